"""``synthaug plan``: whether a run fits a card, what of it takes how much, and the settings that fit."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from typing import Literal

from synthaug.errors import require
from synthaug.models.blueprint import Blueprint, blueprint_of
from synthaug.models.cards import Card, builds_for, card_here, card_of, memory_size
from synthaug.models.fitting import BATCHES, Settings, Task, fit_settings, precision_words, precisions_for
from synthaug.models.numerics import PrecisionName
from synthaug.models.operations import operations_of_call, operations_of_decoding

__all__ = ["plan"]

ARTICLE_SIZE, ARTICLE_CALLS = 512, 20
"""Side of the pictures, and steps of an image, in the setting of ``--profile article``."""

ARTICLE_COUNTS: dict[Task, int] = {"fit": 23 * 2, "generate": 4}
"""Photos times epochs, and images."""

ARTICLE_BATCHES: dict[Task, tuple[int, ...]] = {"fit": (1,), "generate": (4, 2, 1)}


def plan(  # noqa: PLR0913  # options of a command, each described below
    *,
    task: Task = "fit",
    base: str = "sd15",
    size: int | tuple[int, int] | None = None,
    batch_size: int | None = None,
    precision: PrecisionName = "auto",
    vram: str | None = None,
    card: str | None = None,
    beside: str | None = None,
    checkpointing: bool | None = None,
    rank: int = 16,
    targets: str = "transformer",
    guidance: bool = True,
    decoder: Literal["full", "tiny"] = "full",
    steps: int = 20,
    profile: Literal["article"] | None = None,
    json: bool = False,
) -> None:
    """Say what a run will take of a card's memory, part by part, and choose what is left out so that it fits.

    Args:
        task: ``fit`` trains a LoRA, ``generate`` draws.
        base: ``sd15``, ``sd21``, ``sdxl``, ``pocket``, a diffusers folder, a hub id or one ``.safetensors`` file.
        size: Side of the pictures, or ``[HEIGHT,WIDTH]``; the base's own when left out.
        batch_size: Pictures at a time; the largest usual one that fits when left out.
        precision: ``auto`` looks at the card.
        vram: Memory of a card that is not here, such as 8GiB.
        card: A card that is not here, such as ``GTX 1080``; with ``vram``, of that memory.
        beside: Memory that another program needs on the same card, such as 3GiB for the detector that is being trained.
        checkpointing: ``fit``: whether activations are computed again; when left out, where it makes room for a larger batch.
        rank: ``fit``: of the LoRA.
        targets: ``fit``: where its layers are put: ``attention``, ``transformer``, ``everything``.
        guidance: ``generate``: with the prompt and without, which is two rows an image.
        decoder: ``generate``: ``full`` is the base's own; ``tiny`` is taken anyway where nothing else fits.
        steps: ``generate``: calls of the UNet for an image, for its time.
        profile: ``article`` plans both tasks for 23 photos of 512 x 512, 2 epochs, and 4 images of 20 steps.
        json: Print JSON.
    """
    require({"steps must be at least 1": (steps >= 1, steps)})
    require({"batch_size must be at least 1": (batch_size is None or batch_size >= 1, batch_size)})
    here = _card(vram, card)
    if profile:
        size, steps = ARTICLE_SIZE, ARTICLE_CALLS
    known = blueprint_of(base)
    sides = known.size if size is None else (size, size) if isinstance(size, int) else size
    usual = ARTICLE_BATCHES if profile else BATCHES
    runs: list[Run] = []
    for each in ("fit", "generate") if profile else (task,):
        wanted = Settings(task=each, size=sides, rank=rank, targets=targets, guidance=guidance, decoder=decoder)
        fitted = fit_settings(
            known, here, wanted, batches=(batch_size,) if batch_size else usual[each], precisions=precisions_for(here, precision, each),
            checkpointing=(False, True) if checkpointing is None else (checkpointing,), beside=0 if beside is None else memory_size(beside),
        )  # fmt: skip
        runs.append(Run.of(known, here, fitted, steps, count=ARTICLE_COUNTS[each] if profile else None))
    print(dumps([run.row() for run in runs], indent=2) if json else "\n\n".join([_about(here), *map(Run.table, runs)]))


def _card(vram: str | None, card: str | None) -> Card:
    """The card that was asked for, or the one that is here."""
    if card is not None:
        known = card_of(card)
        return known if vram is None else Card(name=known.name, memory=memory_size(vram), capability=known.capability, rate=known.rate)
    return card_here() if vram is None else Card(name=f"a card of {vram}", memory=memory_size(vram))


def _about(card: Card) -> str:
    """What a card is, and which PyTorch it needs."""
    first = f"{card.name}: {card.memory:,} MiB, {card.halves}"
    if card.capability is not None:
        first += f", compute capability {card.capability[0]}.{card.capability[1]}"
    build = builds_for(card.capability)
    return first if build is None else f"{first}\ninstall {build}"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run on a card, with what it takes."""

    base: str
    card: Card
    settings: Settings
    operations: float
    """Of a training step, or of an image."""

    count: int | None
    """How many of them, if that is known."""

    @classmethod
    def of(cls, plan: Blueprint, card: Card, settings: Settings, steps: int, *, count: int | None) -> Run:
        """Count the operations: a LoRA's backward pass needs no gradients of frozen weights, and costs as much as the forward pass."""
        call = operations_of_call(plan, settings.size)
        if settings.task == "fit":
            operations = settings.batch_size * call * (3 if settings.checkpointing else 2)
        else:
            operations = steps * (2 if settings.guidance else 1) * call + operations_of_decoding(plan, settings.size, settings.decoder)
        return cls(base=plan.name, card=card, settings=settings, operations=operations, count=count)

    @property
    def seconds(self) -> float | None:
        """Of a training step or an image; None for cards without a published rate."""
        return None if self.card.rate is None else self.operations / self.card.rate / 1e12

    def row(self) -> dict[str, object]:
        """Everything that is known, for programs."""
        one, forecast = self.settings, self.settings.forecast
        parts = {name: {key: round(size, 1) for key, size in getattr(forecast, name).items()} for name in ("kept", "passing", "beyond")}
        return {
            "task": one.task, "base": self.base, "card": self.card.name, "memory": self.card.memory, "size": one.size,
            "batch_size": one.batch_size, "precision": precision_words(one.precision), "checkpointing": one.checkpointing,
            "decoder": one.decoder, "guidance": one.guidance, **parts, "tensors": round(forecast.tensors, 1),
            "peak": round(forecast.peak, 1), "operations": self.operations, "seconds": self.seconds, "count": self.count,
        }  # fmt: skip

    def table(self) -> str:
        """Everything that is known, for people."""
        forecast, memory = self.settings.forecast, self.card.memory
        largest = max(forecast.passing, key=lambda name: forecast.passing[name])
        lines = [f"synthaug {self.settings.task}, {self.base}: {self.settings.said()}"]
        for name, size in forecast.parts.items():
            note = "" if name not in forecast.passing or name == largest else "  (at another time, not in the peak)"
            lines.append(f"  {name:<30} {size:>8,.0f} MiB{note}")
        lines.append(f"  {'peak':<30} {forecast.peak:>8,.0f} MiB of {memory:,}; {memory - forecast.peak:,.0f} are left")
        what = "a training step" if self.settings.task == "fit" else "an image"
        time = "no time is foretold: nobody published this card's rate"
        if self.seconds is not None:
            time = f"about {self.seconds:.2g} s at the rate that was published, give or take a third"
            if self.count is not None:
                time += f"; {self.count} of them {self.count * self.seconds:.0f} s"
        return "\n".join([*lines, f"  {what} is {self.operations / 1e12:.1f} TFLOP: {time}"])
