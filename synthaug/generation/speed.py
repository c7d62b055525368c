"""One word for how fast a drawing is made: it replaces fields that could as well be set one by one.

``exact``  Nothing is replaced. What changes time alone (:mod:`synthaug.generation.tuning`) is on anyway.
``fast``   Seven tenths of the steps, and the inner UNet run anew every second one (DeepCache). The composition stays that of ``exact`` from
           the same seed where the sampler adds no noise of its own; fine texture is a little softer.
``draft``  Few steps without guidance, by a LoRA where the base has one of its own: pocket has
           (``python -m synthaug.pocket.distill``). It cannot hear a negative prompt, so with one, and on other bases, ``draft`` is at most
           12 steps, the inner UNet every third, guidance in the first half (late guidance changes little: Kynkäänniemi et al. 2024,
           https://arxiv.org/abs/2404.07724), and the family's tiny decoder where the family is told.

Drawings that are quick already stay as they are: 8 steps or less leave nothing to reuse. docs/speed.md has what each choice gains and
costs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeVar

from synthaug.errors import choose
from synthaug.models.load import few_step_lora
from synthaug.records import Drawing, LoraUse

__all__ = ["TINY", "Speed", "speed_of"]

Speed = Literal["exact", "fast", "draft"]
D = TypeVar("D", bound=Drawing)

SHARE, EVERY = 0.7, 2
"""Share of the steps that ``fast`` takes, and every how many of them it runs the inner UNet."""

DRAFT_STEPS, DRAFT_EVERY, DRAFT_GUIDED = 12, 3, 0.5
"""Most steps of ``draft`` without a few-step LoRA, every how many it runs the inner UNet, and the share of the run it guides."""

TINY = {"sd1": "madebyollin/taesd", "sd2": "madebyollin/taesd", "sdxl": "madebyollin/taesdxl"}
"""Family of a base -> hub id of its tiny autoencoder."""

PHASES = 4
"""Steps that pocket's own few-step LoRA is made for."""


def speed_of(word: Speed, drawing: D, *, base: str, family: str | None = None) -> D:
    """A drawing, plan or request, made at a speed.

    Args:
        word: ``exact``, ``fast`` or ``draft``.
        drawing: What it is made from; fields that are faster already are kept.
        base: Name of the base it is drawn on.
        family: ``sd1``, ``sd2`` or ``sdxl``; None leaves the full decoder in place.

    Raises:
        SettingError: If there is no such word.

    Example:
        >>> quick = speed_of("fast", Drawing(), base="pocket")
        >>> quick.reuse, quick.steps
        (2, 14)
    """
    choose("speed", word, {"exact": 0, "fast": 1, "draft": 2})
    if word == "exact" or drawing.steps <= 8:
        return drawing
    few = few_step_lora(base)
    if word == "draft" and few is not None and not drawing.negative_prompt and drawing.guidance != 1:
        return replace(
            drawing, loras=(*drawing.loras, LoraUse(path=str(few))), sampler="DDIM", schedule="Automatic", steps=PHASES, guidance=1.0,
            guidance_interval=(0.0, 1.0), reuse=1,
        )  # fmt: skip
    if word == "fast":
        return replace(drawing, steps=max(8, round(SHARE * drawing.steps)), reuse=max(drawing.reuse, EVERY))
    begin, end = drawing.guidance_interval
    fields: dict[str, Any] = {"decoder": "tiny"} if family in TINY and base != "pocket" else {}
    return replace(
        drawing, steps=min(drawing.steps, DRAFT_STEPS), reuse=max(drawing.reuse, DRAFT_EVERY),
        guidance_interval=(begin, max(begin, min(end, DRAFT_GUIDED))), **fields,
    )  # fmt: skip
