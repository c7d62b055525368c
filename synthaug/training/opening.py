"""What is said before a run starts: what was chosen, and what the run will take."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from synthaug.errors import SettingError
from synthaug.models.base import Prediction
from synthaug.models.load import load_base
from synthaug.photos.kohya import count_kept_back
from synthaug.photos.report import report_on
from synthaug.training.defaults import FAMILIES, SMALL, Card, choose_defaults, count_groups, count_photos, kept_share, memory_of
from synthaug.training.estimate import cost_of, rate_of, seconds_per_step
from synthaug.training.lora_training import LoraTraining
from synthaug.training.photo_data import PhotoData

__all__ = ["CHOSEN", "Opening", "choices", "held_out"]

CHOSEN = ("trainer.max_steps", "data.batch_size", "trainer.precision", "model.gradient_checkpointing", "model.learning_rate")
"""Options that are chosen for a card, a base and a number of photos when they are not given."""

ENOUGH = 12
"""So many photos of different things can spare some; fewer are measured on views of themselves."""

SPARED = 2
"""How many are kept back then."""

FEWEST = 3
"""A run in which fewer measurements would be made is not measured at all."""


def choices(
    card: Card, *, base: str, photos: Path, size: tuple[int, int] | None, prediction: Prediction | None = None
) -> tuple[dict[str, object], list[str]]:
    """Every option of :data:`CHOSEN` with its value, and sentences on what they were chosen for.

    Args:
        card: What computes.
        base: As the user gave it.
        photos: Where the photos lie.
        size: Height and width to train at; the base's own when None.
        prediction: What the base predicts, where it does not say.

    Raises:
        SettingError: If there is no such base.
        UnusableFileError: If it cannot be used.
    """
    found = load_base(base, parts=(), prediction=prediction)
    size, count = size or found.size, count_photos(photos)
    choice = choose_defaults(card, family=found.family, native=max(found.size), size=size, photos=count)
    kind = f"small, for {found.size[1]}x{found.size[0]}" if max(found.size) < SMALL else FAMILIES[found.family].title
    memory = f", {card.memory} MiB" if card.memory else ""
    said = [f"{count} photos, {size[1]}x{size[0]}; base {base} ({kind}); {card.name}{memory}"]
    if not choice.fits:
        said.append(
            f"about {choice.memory} MiB will be needed, the card has {card.memory}: it may not fit; a smaller --data.size needs less"
        )
    values = (choice.steps, choice.batch_size, choice.precision, choice.gradient_checkpointing, choice.learning_rate)
    return dict(zip(CHOSEN, values, strict=True)), said


def held_out(photos: Path, *, group: str, measurements: int, views_differ: bool) -> tuple[dict[str, object], str]:
    """What to keep back to measure a run on, as options, and why in words.

    Args:
        photos: Where the photos lie.
        group: Rule that finds a photo's group in its name.
        measurements: How often it would be measured.
        views_differ: Whether one view of a photo differs from another.

    Raises:
        SettingError: If the group rule is no number.
    """
    nothing: dict[str, object] = {"data.held_out": 0, "data.held_out_views": 0}
    if (wanted := count_kept_back(photos)) is not None:
        what = "the file of the photos says so" if wanted else "the file of the photos says that none are"
        return nothing | {"data.held_out": wanted}, f"{wanted} photos are kept back to measure the run on: {what}; --data.held_out counts"
    if measurements < FEWEST:
        return nothing, f"nothing is kept back: {measurements} measurements would be made, which cannot be compared"
    if photos.is_dir() and count_groups(photos, group) >= ENOUGH:
        return nothing | {"data.held_out": SPARED}, f"{SPARED} photos are kept back to measure the run on; --data.held_out 0 trains on all"
    if views_differ:
        why = "a view of each photo is kept back to measure the run on; --data.held_out 0 measures nothing"
        return nothing | {"data.held_out_views": 1}, why
    return nothing, "nothing is kept back: there are too few photos, and every view of them is the same"


class Opening(Callback):
    """Say what is wrong with the photos, how long the run will take and how much memory, before its first step.

    Args:
        look: Whether to look at the photos; it takes up to half a second for each.

    Raises:
        SettingError: At the start, if the base's own answers are wanted for regularisation pictures and there are none.
    """

    def __init__(self, *, look: bool = True) -> None:
        self.look = look

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer.fit
        assert isinstance(data, PhotoData)
        assert isinstance(pl_module, LoraTraining)
        if pl_module.loss.prior == "base" and data.facts().regular == 0:
            raise SettingError(
                "loss.prior 'base' needs regularisation pictures to compare the base on, there are none; give --data.regular FOLDER, or "
                "leave --model.loss.prior out"
            )
        if not trainer.is_global_zero:
            return
        if self.look:
            assert data.found is not None
            assert data.size is not None
            for sentence in report_on(data.found, data.size).sentences():
                print(sentence, flush=True)
        print(estimate(trainer, pl_module, data), flush=True)


def estimate(trainer: Trainer, module: LoraTraining, data: PhotoData) -> str:
    """Time and memory of a run in words; see :mod:`synthaug.training.estimate` for how they are found."""
    assert module.unet is not None
    device, precision = trainer.strategy.root_device, str(trainer.precision)
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision, torch.float32)
    shape, tokens = data.batch(0)["mean"].shape, data.batch(0)["tokens"].shape[-1]
    cost = cost_of(module.unet, (shape[-2], shape[-1]), tokens)
    checkpointed = kept_share(module.gradient_checkpointing, FAMILIES[module.family])
    seconds = trainer.accumulate_grad_batches * seconds_per_step(
        cost, batch_size=data.batch_size, rate=rate_of(device, half), dtype=half, device=device.type,
        checkpointing=module.gradient_checkpointing,
    )  # fmt: skip
    memory = memory_of(
        cost.weights, cost.activations, batch_size=data.batch_size, precision=precision, checkpointed=checkpointed,
        trained=sum(weight.numel() for weight in module.trained.values()),
    )  # fmt: skip
    left = max(0, trainer.max_steps - trainer.global_step)
    return (
        f"estimated: {seconds:.2g} s a step, {_duration(seconds * left)} for {left} steps, {memory} MiB for networks and pictures "
        "(counted, not tried; what is measured is printed as it goes)"
    )


def _duration(seconds: float) -> str:
    """Seconds as one would say them."""
    return f"{seconds:.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
