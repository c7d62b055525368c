"""One word for how fast a drawing is made: it replaces fields that could as well be set one by one.

``exact``  Nothing is replaced. What changes time alone (:mod:`synthaug.generation.tuning`) is on anyway.
``fast``   Guidance in the first half of the run, and the inner UNet run anew every third step (DeepCache). The composition stays that of
           ``exact`` from the same seed; fine texture is a little softer. Guidance late in a run changes little: Kynkäänniemi et al. 2024,
           https://arxiv.org/abs/2404.07724.
``draft``  Few steps without guidance, by a LoRA where the base has one of its own: pocket has
           (``python -m synthaug.pocket.distill``). It cannot hear a negative prompt, so with one, and on other bases, ``draft`` is ``fast``
           in at most 12 steps, with the family's tiny decoder where its family is told.

Drawings that are quick already stay as they are: 8 steps or less leave nothing to reuse.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeVar

from synthaug.errors import choose
from synthaug.generation.finishing import TINY
from synthaug.models.load import few_step_lora
from synthaug.records import Drawing, LoraUse

__all__ = ["Speed", "speed_of"]

Speed = Literal["exact", "fast", "draft"]
D = TypeVar("D", bound=Drawing)

GUIDED, EVERY = 0.5, 3
"""Share of the run that ``fast`` guides, and every how many steps it runs the inner UNet."""

PHASES = 4
"""Steps that pocket's own few-step LoRA is made for."""

DRAFT_STEPS = 12


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
        >>> quick.reuse, quick.guidance_interval, quick.steps
        (3, (0.0, 0.5), 20)
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
    begin, end = drawing.guidance_interval
    fields: dict[str, Any] = {"guidance_interval": (begin, max(begin, min(end, GUIDED))), "reuse": max(drawing.reuse, EVERY)}
    if word == "draft":
        fields["steps"] = min(drawing.steps, DRAFT_STEPS)
        if family in TINY and base != "pocket":
            fields["decoder"] = "tiny"
    return replace(drawing, **fields)
