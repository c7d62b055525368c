"""Settings that fit a card: the largest batch first, then the faster step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch

from synthaug.errors import SettingError
from synthaug.models.blueprint import Blueprint
from synthaug.models.cards import Card
from synthaug.models.drawing_memory import predict_drawing
from synthaug.models.memory import Forecast
from synthaug.models.numerics import Precision, PrecisionName, choose_precision
from synthaug.models.training_memory import Prepare, predict_training

__all__ = ["BATCHES", "Settings", "Task", "fit_settings", "precision_words", "precisions_for"]

Task = Literal["fit", "generate"]
BATCHES: dict[Task, tuple[int, ...]] = {"fit": (4, 2, 1), "generate": (16, 8, 4, 2, 1)}
"""Task -> batches that are tried where none was asked for."""

SMALLER = (0.75, 0.5, 0.375, 0.25)
"""Shares of the size that are tried when nothing fits at it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides on memory, for training or drawing, and what it will take."""

    task: Task
    size: tuple[int, int]
    batch_size: int = 1
    precision: Precision = field(default_factory=lambda: Precision(storage=torch.float32, autocast=None))

    checkpointing: bool = False
    """Training: compute activations again."""

    rank: int = 16
    """Training: of the LoRA."""

    targets: str = "transformer"
    """Training: where its layers are put."""

    decoder: Literal["full", "tiny"] = "full"
    """Drawing: the base's own, or a tiny one."""

    guidance: bool = True
    """Drawing: with the prompt and without."""

    forecast: Forecast = field(default_factory=lambda: Forecast(kept={}, passing={}))

    def predicted(self, plan: Blueprint, *, prepare: Prepare | None = None, beside: float = 0.0) -> Settings:
        """The same settings with their forecast."""
        if self.task == "fit":
            made = predict_training(
                plan, size=self.size, batch_size=self.batch_size, precision=self.precision, checkpointing=self.checkpointing,
                rank=self.rank, targets=self.targets, prepare=prepare, beside=beside,
            )  # fmt: skip
        else:
            made = predict_drawing(
                plan, size=self.size, batch_size=self.batch_size, precision=self.precision, guidance=self.guidance, decoder=self.decoder,
                beside=beside,
            )  # fmt: skip
        return replace(self, forecast=made)

    def said(self) -> str:
        """As options of the command.

        Example:
            >>> Settings(task="fit", size=(512, 512), checkpointing=True).said()
            'size 512 x 512, batch 1, fp32, with gradient checkpointing'
        """
        how = f"size {self.size[0]} x {self.size[1]}, batch {self.batch_size}, {precision_words(self.precision)}"
        if self.task == "fit":
            return f"{how}, {'with' if self.checkpointing else 'without'} gradient checkpointing"
        return f"{how}, {self.decoder} decoder, {'with' if self.guidance else 'without'} guidance"


def precision_words(precision: Precision) -> str:
    """A precision, in words.

    Example:
        >>> precision_words(Precision(storage=torch.float16, autocast=torch.float32))
        'fp16 stored and fp32 computed'
    """
    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    stored = names[precision.storage]
    computed = names[precision.autocast or precision.storage]
    return stored if stored == computed else f"{stored} stored and {computed} computed"


def precisions_for(card: Card, name: PrecisionName, task: Task) -> list[Precision]:
    """Precisions to try on a card, the better one first.

    Pascal and older cards train in fp32 where it fits, and in half precision where it does not; the GTX 16 family always in fp32.

    Example:
        >>> [precision_words(each) for each in precisions_for(Card(name="GTX 1080", memory=8192, capability=(6, 1)), "auto", "fit")]
        ['fp32', 'fp16']
    """
    capability = card.capability or (8, 0)
    how = choose_precision(name, "cuda", capability=capability, card=card.name)
    if task == "generate" or name != "auto" or how.autocast != torch.float32:
        return [how]
    return [choose_precision(each, "cuda") for each in (("fp32", "fp16") if capability < (7, 0) else ("fp32",))]


def fit_settings(
    plan: Blueprint,
    card: Card,
    wanted: Settings,
    *,
    batches: Sequence[int],
    precisions: Sequence[Precision],
    checkpointing: Sequence[bool] = (False, True),
    prepare: Prepare | None = None,
    beside: float = 0.0,
) -> Settings:
    """The best settings that a card has memory for, with their forecast.

    Args:
        plan: Of the base.
        card: Whose memory must do.
        wanted: Task, size, and what is not chosen here.
        batches: That are tried, the largest first.
        precisions: That are tried, the better first.
        checkpointing: That is tried in training, the faster first; the larger batch goes before the faster step.
        prepare: As :func:`~synthaug.models.training_memory.predict_training` takes it.
        beside: MiB that another program needs.

    Raises:
        SettingError: If nothing fits: by how much, and the nearest settings that do.
    """
    predicted = partial(Settings.predicted, plan=plan, prepare=prepare, beside=beside)
    least: list[Settings] = []
    for group in _groups(plan, wanted, precisions, checkpointing):
        found: list[Settings] = []
        for one in group:
            smallest = predicted(replace(one, batch_size=min(batches)))
            least.append(smallest)
            larger = [replace(one, batch_size=batch) for batch in sorted(batches, reverse=True) if batch > smallest.batch_size]
            if smallest.forecast.peak <= card.memory:
                found.append(next((each for each in _likely(smallest, larger, predicted, card) if _fits(each, card)), smallest))
                if found[-1].batch_size == max(batches):
                    break
        if found:
            return max(found, key=lambda one: one.batch_size)
    best = min(least, key=lambda one: one.forecast.peak)
    unmoved = best.forecast.peak - max(best.forecast.passing.values())  # neither size nor batch changes it
    nearer = map(predicted, _nearer(best, plan)) if unmoved <= card.memory else ()
    nearest = next((each for each in nearer if _fits(each, card)), None)
    advice = "nothing smaller fits either, take a smaller base" if nearest is None else (
        f"what fits is {nearest.said()}, {nearest.forecast.peak:,.0f} MiB")  # fmt: skip
    raise SettingError(
        f"what a run takes must fit the card's memory, {plan.name} with {best.said()} takes {best.forecast.peak:,.0f} MiB, {card.name} has "
        f"{card.memory:,} MiB, {best.forecast.peak - card.memory:,.0f} too few; {advice}"
    )


def _fits(one: Settings, card: Card) -> bool:
    return one.forecast.peak <= card.memory


def _groups(plan: Blueprint, wanted: Settings, precisions: Sequence[Precision], checkpointing: Sequence[bool]) -> Iterator[list[Settings]]:
    """Settings to try, group after group; within one, the largest batch wins."""
    for precision in precisions:
        if wanted.task == "fit":
            yield [replace(wanted, precision=precision, checkpointing=again) for again in checkpointing]
            continue
        yield [replace(wanted, precision=precision)]
        if plan.channels == 4 and wanted.decoder == "full":  # there are tiny decoders for these latents
            yield [replace(wanted, precision=precision, decoder="tiny")]


def _likely(smallest: Settings, larger: Sequence[Settings], predicted: partial[Settings], card: Card) -> Iterator[Settings]:
    """Larger batches with their forecasts, but for those that cannot fit: tensors that pass grow at least with the batch."""
    room = card.memory - smallest.forecast.peak
    passing = max(smallest.forecast.passing.get(name, 0.0) for name in ("activations and gradients", "UNet's call"))
    for one in larger:
        if (one.batch_size / smallest.batch_size - 1) * 0.8 * passing <= room + max(smallest.forecast.passing.values()) - passing:
            yield predicted(one)


def _nearer(best: Settings, plan: Blueprint) -> Iterator[Settings]:
    """Settings that take less, in the order in which a user would rather have them."""
    if best.batch_size > 1:
        yield (best := replace(best, batch_size=1))
    if best.task == "fit" and not best.checkpointing:
        yield (best := replace(best, checkpointing=True))
    step = 8 * plan.factor
    sizes = [tuple(max(step, int(side * share) // step * step) for side in best.size) for share in SMALLER]
    yield from (replace(best, size=(height, width)) for height, width in dict.fromkeys(sizes) if (height, width) != best.size)
