"""Views of a photo: what a camera might have seen instead, cut, turned, lit and coloured a little differently.

View 0 is the photo as it is. View k depends on the photo, the settings and k alone, so that more views begin with fewer.
A mask goes the same way as its photo.

Size and place of a cut as SDXL is told them: Podell et al. 2023, section 2.2, https://arxiv.org/abs/2307.01952.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms.v2 import functional as F

from synthaug.errors import require
from synthaug.pixels import framed, framed_mask
from synthaug.seeds import seed_for

__all__ = ["View", "Views", "views_of"]

LUMA = (0.2126, 0.7152, 0.0722)
"""Share of each colour in what looks bright: ITU-R BT.709."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """How many different views of each photo are encoded, and how much they differ."""

    count: int = 8
    """Views per photo; the first is the photo as it is."""

    zoom: float = 1.15
    """Largest magnification, 1 or more; a view is cut anywhere inside the magnified photo."""

    flip: bool | None = None
    """Whether a view may be mirrored left to right; wrong for parts that have a handedness. Left out, it may not, unless the
    file that describes the photos allows it."""

    rotate: float = 0.0
    """Largest turn to either side, in degrees; 5 is like a hand that held the camera. Corners are filled by reflection."""

    light: float = 0.0
    """How much brighter or darker the light may be, and how much softer or harder, as a share; 0.15 is like another hour."""

    colour: float = 0.0
    """How much the colour of the light and the strength of colours may change, as a share; 0.05 is like another lamp."""

    def __post_init__(self) -> None:
        require({
            "views.count must be at least 1; 1 is the photo as it is": (self.count >= 1, self.count),
            "views.zoom must be from 1 to 4; 1 cuts nothing off": (1 <= self.zoom <= 4, self.zoom),
            "views.rotate must be from 0 to 180 degrees; 5 is usual": (0 <= self.rotate <= 180, self.rotate),
            "views.light must be from 0 to 1; 0.15 is usual": (0 <= self.light <= 1, self.light),
            "views.colour must be from 0 to 1; 0.05 is usual": (0 <= self.colour <= 1, self.colour),
        })  # fmt: skip

    @property
    def differ(self) -> bool:
        """Whether a second view is anything else than the photo as it is."""
        return self.zoom > 1 or bool(self.flip) or max(self.rotate, self.light, self.colour) > 0


@dataclass(frozen=True, kw_only=True)
class View:
    """One view and where it was cut."""

    picture: Tensor
    """uint8 (3, H, W)."""

    mask: Tensor
    """uint8 (H, W), 1 = defect."""

    place: tuple[int, int, int, int, int, int]
    """Height and width of the photo, top and left of the cut in the photo as it was resized, height and width of the view."""


def views_of(picture: Tensor, mask: Tensor, size: tuple[int, int], views: Views, *, seed: int) -> Iterator[View]:
    """Views of a photo, one after the other.

    Args:
        picture: uint8 (3, H, W).
        mask: uint8 (H, W).
        size: Height and width of a view.
        views: How many, and how different.
        seed: The photo's own.

    Example:
        >>> photo, mask = torch.zeros(3, 60, 80, dtype=torch.uint8), torch.ones(60, 80, dtype=torch.uint8)
        >>> [view.place for view in views_of(photo, mask, (32, 32), Views(count=2, zoom=1.0), seed=0)]
        [(60, 80, 0, 5, 32, 32), (60, 80, 0, 5, 32, 32)]
    """
    yield _as_it_is(picture, mask, size)
    generator = torch.Generator().manual_seed(seed)
    for index in range(1, views.count):
        zoom, down, right, mirrored = torch.rand(4, generator=generator).tolist()
        turn, *light = (torch.rand(7, generator=torch.Generator().manual_seed(seed_for(seed, "turn", index))) * 2 - 1).tolist()
        scale = 1 + zoom * (views.zoom - 1)
        large = (round(size[0] * scale), round(size[1] * scale))
        photo, part = turned(framed(picture, large), framed_mask(mask, large), turn * views.rotate)
        top, left = round(down * (large[0] - size[0])), round(right * (large[1] - size[1]))
        rows, cols = slice(top, top + size[0]), slice(left, left + size[1])
        photo, part = relit(photo[:, rows, cols], light, views), part[rows, cols]
        y, x, spare = _cut_at(picture, large, (top, left), size)
        if views.flip and mirrored < 0.5:
            photo, part, x = F.horizontal_flip(photo), F.horizontal_flip(part), spare - x
        yield View(picture=photo, mask=part, place=(*picture.shape[1:], y, x, *size))


def _as_it_is(picture: Tensor, mask: Tensor, size: tuple[int, int]) -> View:
    y, x, _ = _cut_at(picture, size, (0, 0), size)
    return View(picture=framed(picture, size), mask=framed_mask(mask, size), place=(*picture.shape[1:], y, x, *size))


def _cut_at(picture: Tensor, large: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int]:
    """Top and left of a cut in the whole photo, resized as much as its middle was, and how far left can go."""
    height, width = picture.shape[1:]
    scale = max(large[0] / height, large[1] / width)
    top, left = corner[0] + round((height * scale - large[0]) / 2), corner[1] + round((width * scale - large[1]) / 2)
    return max(0, top), max(0, left), max(0, round(width * scale) - size[1])


def turned(picture: Tensor, mask: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Picture and mask turned about their middle, the corners filled by reflection; 0 degrees changes nothing.

    Args:
        picture: uint8 (3, H, W).
        mask: uint8 (H, W).
        degrees: Counter-clockwise.

    Returns:
        Both as large as before.
    """
    if degrees == 0:
        return picture, mask
    height, width = mask.shape
    angle = math.radians(degrees)
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    from_x, from_y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
    grid = torch.stack([from_x * 2 / width, from_y * 2 / height], -1)[None]
    settings = {"padding_mode": "reflection", "align_corners": False}
    photo = grid_sample(picture[None].float(), grid, mode="bicubic", **settings)[0]
    part = grid_sample(mask[None, None].float(), grid, mode="nearest", **settings)[0, 0]
    return photo.round().clamp(0, 255).to(torch.uint8), part.to(torch.uint8)


def relit(picture: Tensor, change: list[float], views: Views) -> Tensor:
    """A picture under another light; without light and colour to change, as it was.

    Args:
        picture: uint8 (3, H, W).
        change: Six numbers from -1 to 1: brightness, hardness, red, green and blue of the light, strength of colours.
        views: How much each may change.

    Returns:
        uint8 (3, H, W).
    """
    if views.light == views.colour == 0:
        return picture
    bright, hard, *lamp, strong = change
    linear = (picture.float() / 255) ** (2.2 * (1 + views.light) ** hard) * (1 + views.light) ** bright
    luma = torch.tensor(LUMA)
    gains = (1 + views.colour) ** torch.tensor(lamp)
    linear = linear * (gains / (gains * luma).sum())[:, None, None]
    grey = (linear * luma[:, None, None]).sum(0)
    linear = grey + (linear - grey) * (1 + views.colour) ** strong
    return (linear.clamp(0, 1) ** (1 / 2.2) * 255).round().to(torch.uint8)
