"""Settings for those who give none: from the card, the base, and the number of photos.

Memory of a run, in MiB: the frozen weights, 16 bytes for every weight of the LoRA (itself, its gradient, two moments), what the
backward pass needs of each picture, and what the driver keeps. The counts below are those of
:func:`synthaug.training.estimate.cost_of` on each family; they leave out what torch loses to fragments, so a tenth is kept free.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from synthaug.models.numerics import choose_precision
from synthaug.photos.folder import grouped, photo_files
from synthaug.photos.kohya import to_learn
from synthaug.pixels import SUFFIXES
from synthaug.training.activations import WIDE_SHARE, Checkpointing

__all__ = ["FAMILIES", "Card", "Choice", "Family", "choose_defaults", "count_groups", "count_photos", "kept_share", "memory_of"]

MIB = 2**20
DRIVER = 600
"""MiB that CUDA and cuDNN keep for themselves."""

LORA = 20e6
"""Weights of a LoRA that is on the large side: rank 16 on SDXL, twice as many as on SD 1.x."""

CHECKPOINTINGS: tuple[Checkpointing, ...] = (False, "wide", True)
"""What is tried, in order: each needs less memory than the one before, and more time."""

SMALL = 256
"""Bases for pictures smaller than this are toys and learn fast."""

VIEWS_OF_EACH = 80
"""How often a photo is shown: within the 50 to 100 times that people report for twenty to fifty photos."""

VIEWS_OF_EACH_SMALL = 140
"""The same on small bases, as recipes/iriko.yaml has it."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What computes."""

    name: str
    """As its maker calls it; ``CPU`` without a card."""

    memory: int
    """MiB."""

    capability: tuple[int, int] | None = None
    """CUDA compute capability; None without a card."""

    @classmethod
    def here(cls, accelerator: str = "auto") -> Card:
        """The card of this machine that the trainer would take."""
        if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
            facts = torch.cuda.get_device_properties(0)
            return cls(name=facts.name, memory=facts.total_memory // MIB, capability=(facts.major, facts.minor))
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
        return cls(name="CPU", memory=pages // MIB)

    @property
    def precision(self) -> str:
        """Lightning's name for what suits it; a CPU that multiplies bf16 in hardware is used so."""
        if self.capability is None:
            return "bf16-mixed" if _multiplies_halves() else "32-true"
        autocast = choose_precision("auto", "cuda", capability=self.capability, card=self.name).autocast
        return {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}.get(autocast, "32-true") if autocast else "32-true"


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of base, at the size it was made for."""

    title: str
    weights: float
    """Values in the UNet."""

    activations: float
    """Values that the backward pass needs of one picture, for each place of the latents."""

    checkpointed: float
    """Share of them that stays with gradient checkpointing."""


FAMILIES: dict[str, Family] = {
    "sd1": Family(title="Stable Diffusion 1.x", weights=859.5e6, activations=160e3, checkpointed=0.24),
    "sd2": Family(title="Stable Diffusion 2.x", weights=865.9e6, activations=162e3, checkpointed=0.24),
    "sdxl": Family(title="Stable Diffusion XL", weights=2567.5e6, activations=295e3, checkpointed=0.16),
}
"""Name, as :class:`synthaug.models.Base` has it -> what it takes."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen; the user's own settings stand above each."""

    steps: int
    batch_size: int
    precision: str
    gradient_checkpointing: Checkpointing
    learning_rate: float
    memory: int | None
    """Estimated MiB; None for small bases, where it does not matter."""

    fits: bool
    """Whether the estimate is below what the card has."""


def kept_share(checkpointing: Checkpointing, family: Family) -> float | None:
    """Share of the activations that checkpointing leaves; None without it.

    Example:
        >>> kept_share("wide", FAMILIES["sd1"])
        0.65
    """
    return {"wide": WIDE_SHARE, True: family.checkpointed, False: None}[checkpointing]


def memory_of(
    weights: float, activations: float, *, batch_size: int, precision: str, checkpointed: float | None = None, trained: float = LORA
) -> int:
    """Estimated MiB of networks and pictures, without what the driver keeps.

    Args:
        weights: Values in the frozen network.
        activations: Values that the backward pass needs of one picture.
        batch_size: Pictures at a time.
        precision: The trainer's.
        checkpointed: Share of the activations that gradient checkpointing leaves; None without it.
        trained: Values in the LoRA.

    Example:
        >>> memory_of(860e6, 655e6, batch_size=1, precision="bf16-mixed", checkpointed=0.24)
        2245
    """
    half = 3 if checkpointed is None or checkpointed >= WIDE_SHARE else 2  # norms keep fp32 values beside the halves
    stored, computed = (4, 4) if precision == "32-true" else (2, half)
    kept = activations * (1.0 if checkpointed is None else checkpointed)
    return round((weights * stored + trained * 16 + batch_size * kept * computed) / MIB)


def choose_defaults(card: Card, *, family: str, native: int, size: tuple[int, int], photos: int) -> Choice:
    """Pick settings that fit.

    The larger batch goes before the faster step: of four, two and one picture a step, and with little checkpointing before much,
    the first that leaves a tenth of the memory free. Cards before Volta compute in fp32 while it fits and store halves where not.

    Args:
        card: What computes.
        family: ``sd1``, ``sd2`` or ``sdxl``.
        native: Longer side of the pictures that the base was made for.
        size: Height and width of the pictures to train on.
        photos: How many there are.

    Example:
        >>> card = Card(name="NVIDIA GeForce RTX 3070", memory=8192, capability=(8, 6))
        >>> choice = choose_defaults(card, family="sd1", native=512, size=(512, 512), photos=23)
        >>> (choice.batch_size, choice.precision, choice.gradient_checkpointing, choice.steps)
        (4, 'bf16-mixed', True, 450)
    """
    if native < SMALL:
        steps = _rounded(VIEWS_OF_EACH_SMALL * photos / 8, 200, 2000)
        return Choice(steps=steps, batch_size=8, precision=card.precision, gradient_checkpointing=False, learning_rate=1e-3,
                      memory=None, fits=True)  # fmt: skip
    precisions = [card.precision]
    if card.precision == "32-true" and card.capability is not None and card.capability < (7, 0):
        precisions.append("16-mixed")
    every = [(precision, batch, again) for precision in precisions for batch in (4, 2, 1) for again in CHECKPOINTINGS]
    of, places = FAMILIES[family], (size[0] // 8) * (size[1] // 8)
    needs = {
        (precision, batch, again): DRIVER
        + memory_of(of.weights, of.activations * places, batch_size=batch, precision=precision, checkpointed=kept_share(again, of))
        for precision, batch, again in every
    }
    fitting = [one for one in every if needs[one] <= 0.9 * card.memory]
    precision, batch, again = fitting[0] if fitting else min(every, key=lambda one: needs[one])
    return Choice(
        steps=_rounded(VIEWS_OF_EACH * photos / batch, 400, 4000), batch_size=batch, precision=precision, gradient_checkpointing=again,
        learning_rate=round(1e-4 * batch**0.5, 6), memory=needs[precision, batch, again], fits=bool(fitting),
    )  # fmt: skip


def _rounded(steps: float, least: int, most: int) -> int:
    return int(min(most, max(least, round(steps / 50) * 50)))


def count_photos(place: Path) -> int:
    """How many photos will be learned from: files are counted, not opened, so that one that is damaged counts, too.

    Args:
        place: A folder, as :func:`synthaug.photos.read_training_set` takes it; or a file, then it is about how many lie beside and
            below it, without folders of masks.
    """
    if place.is_dir():
        return sum(path.suffix.lower() in SUFFIXES for source in to_learn(place) for path in photo_files(source.folder))
    return sum(path.suffix.lower() in SUFFIXES and path.parent.name not in ("mask", "masks") for path in place.parent.rglob("*"))


def count_groups(folder: Path, rule: str) -> int:
    """How many groups the photos of a folder have, see :func:`synthaug.photos.read_folder`; files are counted, not opened.

    Raises:
        PhotoFolderError: If there is no such folder.
        SettingError: If the group rule is no number.
    """
    found = [(source.folder, pair) for source in to_learn(folder) for pair in grouped(source, rule)]
    return len({(place, group) for place, (path, group) in found if path.suffix.lower() in SUFFIXES})


def _multiplies_halves() -> bool:
    """Whether the CPU computes with bf16 in hardware."""
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it without types
    return there and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
