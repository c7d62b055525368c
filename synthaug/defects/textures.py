"""Textures of our own for hand-made defects, where DRAEM takes those of a data set; every call draws another one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from synthaug.defects.change import Plane

__all__ = ["texture"]

Rng = np.random.Generator


def texture(picture: Plane, rng: Rng) -> Plane:
    """A texture unlike the picture: clouds, stripes, a checkerboard, grain, or the picture's own pieces in another order.

    One to three photometric changes are then applied, as DRAEM does: inverted, solarised, posterised, other contrast, swapped channels.

    Args:
        picture: float32 (3, H, W), 0 to 255; at least 2 x 2.
        rng: Everything random comes from here.

    Returns:
        float32 (3, H, W), 0 to 255.

    Source:
        Zavrtanik et al. 2021, DRAEM, https://arxiv.org/abs/2108.07610; the picture's own pieces: Yang et al. 2023, MemSeg,
        https://arxiv.org/abs/2205.00908.

    Example:
        >>> picture = np.zeros((3, 30, 40), np.float32)
        >>> made = texture(picture, np.random.default_rng(0))
        >>> made.shape, made.dtype, bool(made.min() >= 0 and made.max() <= 255)
        ((3, 30, 40), dtype('float32'), True)
    """
    made = _KINDS[rng.integers(len(_KINDS))](picture, rng)
    for which in rng.choice(len(_CHANGES), size=rng.integers(1, 4), replace=False):
        made = _CHANGES[which](made, rng)
    return np.clip(made, 0, 255).astype(np.float32)


def _colours(weight: Plane, rng: Rng) -> Plane:
    """A plane of 0 to 1 as a mixture of two colours."""
    first, second = rng.uniform(0, 255, (2, 3, 1, 1)).astype(np.float32)
    return np.asarray(first + weight * (second - first), np.float32)


def _smooth(size: tuple[int, ...], cells: int, rng: Rng, *, planes: int = 1) -> Plane:
    """Random values at the knots of a coarse lattice, 0 to 1, faded into each other, (planes, H, W)."""
    knots = torch.from_numpy(rng.random((1, planes, cells + 1, cells + 1), np.float32))
    out: Plane = F.interpolate(knots, list(size), mode="bilinear", align_corners=True)[0].numpy()
    return out


def _clouds(picture: Plane, rng: Rng) -> Plane:
    size = picture.shape[1:]
    first = int(rng.integers(2, 9))
    coarse, fine = (_smooth(size, cells, rng, planes=3) for cells in (first, 4 * first))
    return np.asarray((2 * coarse + fine) * 85, np.float32)


def _stripes(picture: Plane, rng: Rng) -> Plane:
    height, width = picture.shape[1:]
    turn, period = rng.uniform(0, np.pi), rng.uniform(4, max(5, min(height, width) / 6))
    along = np.cos(turn) * np.arange(width, dtype=np.float32)[None] + np.sin(turn) * np.arange(height, dtype=np.float32)[:, None]
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * along / period + 3 * _smooth((height, width), 3, rng)[0])
    return _colours(wave.astype(np.float32), rng)


def _checkers(picture: Plane, rng: Rng) -> Plane:
    height, width = picture.shape[1:]
    side = int(rng.integers(2, max(3, min(height, width) // 8 + 1)))
    fields = (np.arange(height)[:, None] // side + np.arange(width)[None] // side) % 2
    return _colours(fields.astype(np.float32), rng)


def _grain(picture: Plane, rng: Rng) -> Plane:
    height, width = picture.shape[1:]
    step = int(rng.integers(1, 5))
    grains = rng.random((-(-height // step), -(-width // step)), np.float32)
    return _colours(grains.repeat(step, 0).repeat(step, 1)[:height, :width], rng)


def _shuffled(picture: Plane, rng: Rng) -> Plane:
    """The picture's own pieces, 8 x 8 of them, in another order."""
    pieces = min(8, *picture.shape[1:])
    height, width = (side // pieces for side in picture.shape[1:])
    tiles = picture[:, : height * pieces, : width * pieces].reshape(3, pieces, height, pieces, width).transpose(1, 3, 0, 2, 4)
    mixed = tiles.reshape(pieces * pieces, 3, height, width)[rng.permutation(pieces * pieces)]
    joined = mixed.reshape(pieces, pieces, 3, height, width).transpose(2, 0, 3, 1, 4).reshape(3, height * pieces, width * pieces)
    rest = [(0, 0), *((0, side - have) for side, have in zip(picture.shape[1:], joined.shape[1:], strict=True))]
    return np.pad(joined, rest, mode="edge")


def _posterised(made: Plane, step: np.float32) -> Plane:
    return np.asarray(np.floor(made / step) * step, np.float32)


_KINDS: tuple[Callable[[Plane, Rng], Plane], ...] = (_clouds, _stripes, _checkers, _grain, _shuffled)

_CHANGES: tuple[Callable[[Plane, Rng], Plane], ...] = (
    lambda made, _: np.float32(255) - made,
    lambda made, rng: np.where(made > rng.uniform(64, 192), np.float32(255) - made, made),
    lambda made, rng: _posterised(made, np.float32(256 / rng.integers(2, 9))),
    lambda made, rng: np.asarray((made - 128) * rng.uniform(0.5, 2) + rng.uniform(88, 168), np.float32),
    lambda made, rng: made[rng.permutation(3)],
)
