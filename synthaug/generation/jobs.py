"""One image on its way through the denoise loop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.records import Request

__all__ = ["Job", "evaluations"]


@dataclass(kw_only=True)
class Job:
    """What the loop needs to know of one image in one pass."""

    request: Request
    """What is drawn."""

    size: tuple[int, int]
    """Height and width of this pass in pixels; a hires pass is larger than its request's size."""

    noise: Tensor
    """Starting noise, fp32 (C, h, w)."""

    generator: torch.Generator
    """Where noise during the run comes from."""

    steps: int
    """Steps of the whole schedule."""

    first: int = 0
    """Step that the run begins at: above 0 where it begins with a picture."""

    start: Tensor | None = None
    """Clean latents to begin with, fp32 (C, h, w); None begins with noise alone."""

    redraw: Tensor | None = None
    """Where it is redrawn, fp32 (1, h, w), 1 or 0; elsewhere the start is put back after each step."""

    shown: Tensor | None = None
    """What an inpainting UNet is shown besides: mask and masked latents, fp32 (C + 1, h, w)."""

    hires: bool = False
    """Whether this is a second pass."""


def evaluations(steps: int, strength: float, *, exact: bool) -> tuple[int, int]:
    """Steps of the whole schedule, and the one that image-to-image begins at.

    As A1111 counts: ``int(min(strength, 0.999) * steps) + 1`` steps are taken, or with ``exact`` all that were asked for, of a longer
    schedule.

    Example:
        >>> evaluations(20, 0.5, exact=False), evaluations(20, 0.5, exact=True), evaluations(20, 1.0, exact=False)
        ((20, 9), (40, 20), (20, 0))
    """
    share = min(strength, 0.999)
    if exact:
        whole = max(steps, int(steps / share))
        return whole, whole - steps
    return steps, steps - (int(share * steps) + 1)
