"""Put cut-outs of a bank into normal pictures: turned, scaled, lit as the place is, blended in.

Three ways of blending. ``feather`` lays the cut-out over the place through a soft rim, its colours shifted and stretched to the mean and
contrast around the place. ``ratio`` multiplies the place by what the cut-out is to its own surroundings, so that the texture of the place
goes on below it. ``poisson`` keeps the cut-out's differences between neighbours and takes the values of the place at the rim
(:mod:`synthaug.defects.poisson`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from synthaug.defects.change import Change, Plane, find_place, is_visible
from synthaug.defects.cutout import Cutout
from synthaug.defects.poisson import seamless
from synthaug.errors import choose, require

__all__ = ["BLENDINGS", "FromBank", "Pasting"]

TRIES = 6
"""So many cut-outs are tried before a picture is given up."""

RIM = 3
"""Pixels around a cut-out at which the place is looked at."""

FARTHEST = 8.0
"""A cut-out is never enlarged or reduced by more than this."""


@dataclass(frozen=True, kw_only=True)
class Pasting:
    """How cut-outs are put into pictures.

    Raises:
        SettingError: If a value cannot be used.

    Example:
        >>> Pasting(blending="magic")
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: unknown blending 'magic'; choose one of: feather, poisson, ratio
    """

    blending: str | tuple[str, ...] = ("poisson", "feather")
    """``feather``, ``ratio`` or ``poisson``, or several of them to draw from."""

    scale: tuple[float, float] = (0.8, 1.25)
    """Smallest and largest size, drawn evenly by ratio; 1 is the share of the picture that the defect has in its own."""

    rotation: float = 180.0
    """Largest turn either way, in degrees."""

    flip: bool = True
    """Whether half of them are mirrored."""

    relight: bool = True
    """Whether brightness and contrast follow those around the place; with False a cut-out keeps its own."""

    def __post_init__(self) -> None:
        require({
            "scale must be (low, high), both above 0, in this order": (
                len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1], self.scale
            ),
            "rotation must be in [0, 180] degrees": (0 <= self.rotation <= 180, self.rotation),
            "blending must not be empty": (bool(self.blending), self.blending),
        })  # fmt: skip
        for name in self.names:
            choose("blending", name, BLENDINGS)

    @property
    def names(self) -> tuple[str, ...]:
        """The ways of blending to draw from."""
        return (self.blending,) if isinstance(self.blending, str) else tuple(self.blending)


class FromBank:
    """Defects of a bank, as a source for ``SyntheticDefect``.

    Args:
        bank: Where they come from; real defects, drawn ones, or both.
        pasting: How they are put in.
    """

    def __init__(self, bank: Sequence[Cutout], pasting: Pasting | None = None) -> None:
        self.bank, self.pasting = bank, pasting or Pasting()
        self._ready = [_Ready.of(cutout) for cutout in bank]

    def draw(self, picture: Plane, free: NDArray[np.bool_], rng: np.random.Generator) -> Change | None:
        """See :class:`synthaug.defects.change.DefectSource`."""
        how = self.pasting
        for _ in range(TRIES):
            ready = self._ready[rng.integers(len(self._ready))]
            low, high = how.scale
            grow = math.exp(rng.uniform(math.log(low), math.log(high))) * ready.factor(picture.shape[1:])
            turn = math.radians(rng.uniform(-how.rotation, how.rotation))
            flipped = how.flip and rng.random() < 0.5
            blend = BLENDINGS[how.names[rng.integers(len(how.names))]]
            piece = ready.warped(grow, turn, flipped=flipped)
            place = find_place(piece.mask, free, rng) if piece is not None else None
            if piece is None or place is None or not _fits(piece.mask.shape, place, picture.shape[1:]):
                continue
            top, left = place
            under = picture[:, top : top + piece.mask.shape[0], left : left + piece.mask.shape[1]]
            pixels = np.clip(blend(piece, under, relight=how.relight), 0, 255)
            change = Change(top=top, left=left, pixels=pixels, mask=piece.mask, kind=ready.kind)
            if is_visible(change, picture):
                return change
        return None


def _fits(shape: tuple[int, ...], place: tuple[int, int], size: tuple[int, ...]) -> bool:
    return place[0] + shape[0] <= size[0] and place[1] + shape[1] <= size[1]


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A cut-out as it goes into a picture."""

    pixels: Plane
    alpha: Plane
    mask: NDArray[np.bool_]
    mean: Plane
    """Of its surroundings where it comes from, (3, 1, 1)."""
    spread: Plane
    """Spread of its surroundings, (3, 1, 1)."""


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A cut-out with what is needed again and again."""

    planes: Tensor
    """Picture, alpha and mask, float (1, 5, h, w)."""
    mean: Plane
    spread: Plane
    size: tuple[int, int]
    kind: str

    @classmethod
    def of(cls, cutout: Cutout) -> _Ready:
        planes = torch.cat([cutout.rgba.float(), cutout.mask[None] * 255.0])
        mean, spread = _level(planes[:3, planes[3] == 0].numpy())
        return cls(
            planes=planes[None], mean=mean, spread=spread,
            size=cutout.origin.size, kind=cutout.origin.defect,
        )  # fmt: skip

    def factor(self, size: tuple[int, ...]) -> float:
        """How much larger a picture is than the one that the cut-out comes from, by area."""
        return math.sqrt(size[0] * size[1] / (self.size[0] * self.size[1]))

    def warped(self, grow: float, turn: float, *, flipped: bool) -> _Piece | None:
        """Scaled and turned, with a rim of :data:`RIM` pixels; None if nothing would be left of it."""
        grow = min(max(grow, 1 / FARTHEST), FARTHEST)
        planes = self.planes
        if grow < 0.7:  # every pixel must count, not one in two
            small = [max(1, round(side * grow)) for side in planes.shape[2:]]
            planes, grow = F.interpolate(planes, small, mode="area"), 1.0
        height, width = planes.shape[2:]
        cos, sin = math.cos(turn), math.sin(turn)
        rows = math.ceil(grow * (height * abs(cos) + width * abs(sin))) + 2 * RIM
        columns = math.ceil(grow * (width * abs(cos) + height * abs(sin))) + 2 * RIM
        mirror = -1.0 if flipped else 1.0
        theta = torch.tensor([
            [mirror * cos * columns / (grow * width), mirror * sin * rows / (grow * width), 0.0],
            [-sin * columns / (grow * height), cos * rows / (grow * height), 0.0],
        ])  # fmt: skip
        grid = F.affine_grid(theta[None], [1, 1, rows, columns], align_corners=False)
        out = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)[0].numpy()
        mask = out[4] > 127.5
        if not mask.any():
            return None
        box = _around(out[3] > 1)
        return _Piece(
            pixels=out[:3, *box], alpha=np.asarray(out[3, *box] / 255, np.float32), mask=mask[box], mean=self.mean, spread=self.spread
        )


def _around(inside: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of an area with a rim, as far as there is one."""
    spans = (np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0)))
    rows, columns = (slice(max(0, int(span[0]) - RIM), int(span[-1]) + 1 + RIM) for span in spans)
    return rows, columns


def _relit(piece: _Piece, under: Plane, *, relight: bool) -> Plane:
    """The cut-out with the mean and the contrast of the place's surroundings."""
    if not relight:
        return piece.pixels
    mean, spread = _level(under[:, piece.alpha <= 1 / 255])
    gain = np.clip((spread.mean() + 1) / (piece.spread.mean() + 1), 0.5, 2)  # one for all channels, so that colours keep their hue
    return (piece.pixels - piece.mean) * gain + mean  # type: ignore[no-any-return]  # numpy's operators say Any


def _level(around: Plane) -> tuple[Plane, Plane]:
    """Middle and spread of pixels (3, N), each (3, 1, 1); other defects among them do little harm (median, and median deviation)."""
    middle = np.median(around, 1)
    spread = np.float32(1.4826) * np.median(np.abs(around - middle[:, None]), 1)
    return middle[:, None, None], spread[:, None, None]


def _feather(piece: _Piece, under: Plane, *, relight: bool) -> Plane:
    return under + piece.alpha * (_relit(piece, under, relight=relight) - under)


def _ratio(piece: _Piece, under: Plane, *, relight: bool) -> Plane:
    """Relighting is what a ratio is; without it the cut-out's own surroundings are put to the place's level."""
    ratio: Plane = np.clip(piece.pixels / np.maximum(piece.mean, 1), 0, 4)
    base = under if relight else piece.mean
    return np.asarray(under + piece.alpha * (base * ratio - under), np.float32)


def _poisson(piece: _Piece, under: Plane, *, relight: bool) -> Plane:
    return seamless(_relit(piece, under, relight=relight), under, piece.alpha > 1 / 255)


BLENDINGS: dict[str, Callable[..., Plane]] = {"feather": _feather, "ratio": _ratio, "poisson": _poisson}
"""Way of blending -> how it is done."""
