"""Photos of one thing on paper, drawn, with everything known about them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.photos.shadows import displayed

__all__ = ["StillLife", "still_life"]


@dataclass(frozen=True)
class StillLife:
    picture: Tensor
    thing: Tensor
    """Bool (H, W)."""
    shadow: Tensor
    """Bool (H, W), where it is seen."""
    without_shadow: Tensor


def still_life(size=(180, 240), *, seed=0, shade=0.55, colour=(0.10, 0.16, 0.30), shift=(8, 14)) -> StillLife:
    """A speckled ellipse on grainy paper that is brighter on the left, its shadow to the lower right."""
    height, width = size
    noise = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    paper = (0.75 - 0.25 * x) * torch.tensor([1.0, 0.98, 0.92])[:, None, None]
    paper = paper * (1 + 0.03 * torch.randn(1, height, width, generator=noise))

    def ellipse(down, right):
        return (((y - 0.5 - down / height) / 0.16) ** 2 + ((x - 0.48 - right / width) / 0.24) ** 2) < 1

    thing = ellipse(0, 0)
    shadow = ellipse(*shift) & ~thing
    skin = torch.tensor(colour)[:, None, None] * (0.3 + 1.4 * torch.rand(1, height, width, generator=noise))
    lit = torch.where(thing, skin, paper)
    return StillLife(displayed(torch.where(shadow, lit * shade, lit)), thing, shadow, displayed(lit))
