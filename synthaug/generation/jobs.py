"""One image on its way through the denoise loop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.errors import SettingError
from synthaug.records import Request

__all__ = ["LONGEST", "Job", "Paste", "evaluations"]

LONGEST = 1000
"""Steps that a schedule may have: as many as the bases were trained with."""


@dataclass(frozen=True, kw_only=True)
class Paste:
    """How a drawn picture is laid on the photo that it belongs to."""

    photo: Tensor
    """The whole photo, uint8 (3, H, W)."""

    cover: Tensor
    """How much of the drawn picture is seen, float (H, W), 0 to 1; where it is 0 the photo stays as it is, bit for bit."""

    box: tuple[int, int, int, int]
    """Part of the photo that was drawn: top, left, bottom, right."""


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

    ignores_start: bool = False
    """Whether it begins with noise alone all the same, and the start only says what lies around the mask."""

    redraw: Tensor | None = None
    """Where it is redrawn, fp32 (1, h, w), 1 or 0; elsewhere the start is put back after each step."""

    shown: Tensor | None = None
    """What an inpainting UNet is shown besides: mask and masked latents, fp32 (C + 1, h, w)."""

    photo: Tensor | None = None
    """The picture behind the start, uint8 (3, H, W) of this pass's size."""

    paste: Paste | None = None
    """How the drawn picture is laid on its photo; None leaves it as it is."""

    hires: bool = False
    """Whether this is a second pass."""

    @property
    def from_noise(self) -> bool:
        """Whether the run begins with noise alone."""
        return self.start is None or self.ignores_start


def evaluations(steps: int, strength: float, *, exact: bool) -> tuple[int, int]:
    """Steps of the whole schedule, and the one that image-to-image begins at.

    As A1111 counts: ``int(min(strength, 0.999) * steps) + 1`` steps are taken, or with ``exact`` all that were asked for, of a longer
    schedule.

    Raises:
        SettingError: If that schedule would have more steps than :data:`LONGEST`.

    Example:
        >>> evaluations(20, 0.5, exact=False), evaluations(20, 0.5, exact=True), evaluations(20, 1.0, exact=False)
        ((20, 9), (40, 20), (20, 0))
    """
    if not exact:
        return steps, steps - (int(min(strength, 0.999) * steps) + 1)
    whole = max(steps, int(steps / strength))
    if whole > LONGEST:
        raise SettingError(
            f"a schedule has at most {LONGEST} steps, and {steps} exact steps at strength {strength:g} belong to one of {whole}; "
            f"take at most {int(LONGEST * strength)} steps, or more strength"
        )
    return whole, whole - steps
