"""What every maker of defects hands over: the changed part of a picture and where the defect is in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthaug.errors import SettingError
from synthaug.photos.foreground import find_foreground

__all__ = ["Change", "DefectSource", "Plane", "find_place", "is_visible", "object_mask"]

Plane = NDArray[np.float32]
"""float32 (H, W), or (3, H, W) with values of 0 to 255 for pictures."""

VISIBLE = 2.0
"""Mean difference in grey levels below which nothing can be seen."""

PLACES = 24
"""So many places are tried for a shape."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One defect in one picture."""

    top: int
    """First changed row."""

    left: int
    """First changed column."""

    pixels: Plane
    """What stands there now, float32 (3, h, w), 0 to 255."""

    mask: NDArray[np.bool_]
    """The defect, bool (h, w), never empty; pixels outside it may differ where edges are soft."""

    kind: str
    """Type of defect."""

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the defect in the picture, right and bottom exclusive."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return self.left + int(columns[0]), self.top + int(rows[0]), self.left + int(columns[-1]) + 1, self.top + int(rows[-1]) + 1


class DefectSource(Protocol):
    """Makes defects: a bank (:class:`synthaug.defects.FromBank`) or one of the hand-made recipes."""

    def draw(self, picture: Plane, free: NDArray[np.bool_], rng: np.random.Generator) -> Change | None:
        """Put one defect into a picture; the picture itself is left alone.

        Args:
            picture: float32 (3, H, W), 0 to 255.
            free: Where the defect may be, bool (H, W): on the object, and not on an earlier defect.
            rng: Everything random comes from here.

        Returns:
            The change; None if no place was found.
        """


def find_place(mask: NDArray[np.bool_], free: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int] | None:
    """Where a shape lies on free ground with all of its mask: its top and left; None if no place was found.

    Args:
        mask: bool (h, w).
        free: bool (H, W).
        rng: Draws the places to try.

    Example:
        >>> free = np.zeros((8, 8), bool)
        >>> free[2:5, 3:6] = True
        >>> find_place(np.ones((3, 3), bool), free, np.random.default_rng(0))
        (2, 3)
    """
    (height, width), (rows, columns) = mask.shape, free.shape
    if height > rows or width > columns:
        return None
    room = np.flatnonzero(free)
    for pick in rng.integers(0, max(1, len(room)), PLACES) if len(room) else ():
        top, left = int(room[pick]) // columns - height // 2, int(room[pick]) % columns - width // 2
        if 0 <= top <= rows - height and 0 <= left <= columns - width and not (mask & ~free[top : top + height, left : left + width]).any():
            return top, left
    return None


def is_visible(change: Change, picture: Plane) -> bool:
    """Whether the defect differs from what was there by :data:`VISIBLE` grey levels in the mean; fainter ones would be label noise."""
    under = picture[:, *change.window]
    return bool(np.abs(change.pixels - under).max(0)[change.mask].mean() >= VISIBLE)


def object_mask(images: Tensor) -> Tensor:
    """Where the object lies in pictures that a fixed camera took of one kind of part: computed once, given to ``SyntheticDefect``.

    Args:
        images: A few normal pictures, uint8 (N, 3, H, W); their median is looked at.

    Returns:
        uint8 (H, W), 1 = object.

    Raises:
        SettingError: If the object cannot be told from its background, as in a picture that is all texture.

    Example:
        >>> paper = torch.full((1, 3, 60, 80), 230, dtype=torch.uint8)
        >>> paper[:, :, 20:40, 30:60] = torch.tensor([40, 90, 160], dtype=torch.uint8)[:, None, None]
        >>> bool(object_mask(paper)[30, 45]), bool(object_mask(paper)[5, 5])
        (True, False)
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        raise SettingError(f"pictures must be uint8 (N, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    found = find_foreground(images[:31].median(0).values)
    if found.doubt:
        raise SettingError(
            f"the object cannot be told from its background: {found.doubt}; give a mask of your own, or leave the foreground out where "
            "the whole picture is the object"
        )
    return (found.matte > 0.5).to(torch.uint8)


Foreground = Tensor | Callable[[Tensor], Tensor] | None
"""Where the object is: one mask for all pictures, or a function of a uint8 picture (3, H, W)."""
