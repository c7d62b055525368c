"""Where to put a defect: masks of real defects bent and moved, blots of Perlin noise, strokes and scratches.

Every shape is drawn at the asked-for share of the picture and lies on the object where one is told; the same generator gives the same
shape on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from synthaug.errors import SettingError, choose, require
from synthaug.photos.regions import parts, shrunk
from synthaug.seeds import seed_for

__all__ = ["ShapeKind", "blot", "draw_shape", "perlin", "stroke", "warped"]

Plane = NDArray[np.float32]
Rng = np.random.Generator
ShapeKind = Literal["warped", "perlin", "stroke"]
"""A real defect's mask bent and moved; a blot of noise; a scratch."""

TRIES = 12
"""Places that are tried before an object counts as too small for a shape."""


def perlin(shape: tuple[int, int], *, scale: tuple[int, int], rng: Rng) -> Plane:
    """Gradient noise: random slopes at the knots of a lattice, faded into each other.

    Args:
        shape: Height and width in pixels, any.
        scale: Cells of the lattice down and across, each at least 1; more cells give smaller blots.
        rng: Draws the slopes, one per knot.

    Returns:
        float32 (H, W), -1 to 1, 0 at the knots.

    Raises:
        SettingError: If a side or a number of cells is below 1.

    Source:
        Perlin 1985, https://doi.org/10.1145/325165.325247, with the fade of Perlin 2002, https://doi.org/10.1145/566654.566636.

    Example:
        >>> noise = perlin((30, 50), scale=(2, 5), rng=np.random.default_rng(0))
        >>> noise.shape, noise.dtype, bool(abs(noise).max() <= 1)
        ((30, 50), dtype('float32'), True)
    """
    require({
        "the shape of noise must be at least 1 x 1": (min(shape) >= 1, shape),
        "the scale of noise must be at least 1 cell each way": (min(scale) >= 1, scale),
    })  # fmt: skip
    angles = rng.uniform(0, 2 * np.pi, (scale[0] + 1, scale[1] + 1)).astype(np.float32)
    down, across = np.sin(angles), np.cos(angles)
    (row, v), (column, u) = (_cells(length, cells) for length, cells in zip(shape, scale, strict=True))
    v, u = v[:, None], u[None, :]

    def pull(i: int, j: int) -> Plane:
        """What the knot below (i = 1) or right (j = 1) of each pixel's cell adds."""
        knots = np.ix_(row + i, column + j)
        return np.asarray(down[knots] * (v - i) + across[knots] * (u - j), np.float32)

    fade_v, fade_u = (t * t * t * (t * (t * 6 - 15) + 10) for t in (v, u))
    above = pull(0, 0) + fade_u * (pull(0, 1) - pull(0, 0))
    below = pull(1, 0) + fade_u * (pull(1, 1) - pull(1, 0))
    return np.asarray(np.clip(np.float32(2**0.5) * (above + fade_v * (below - above)), -1, 1), np.float32)


def _cells(length: int, cells: int) -> tuple[NDArray[np.intp], Plane]:
    """Of each of ``length`` pixels the cell that it lies in and how far in, 0 to 1."""
    at = np.arange(length, dtype=np.float64) * cells / length
    cell = np.floor(at).astype(np.intp)
    return cell, (at - cell).astype(np.float32)


def draw_shape(
    kind: ShapeKind,
    size: tuple[int, int],
    *,
    share: tuple[float, float],
    seed: int,
    area: Tensor | None = None,
    masks: Sequence[Tensor] = (),
) -> Tensor:
    """Draw where a defect goes.

    Args:
        kind: ``"warped"`` needs masks of real defects.
        size: Height and width.
        share: Least and greatest share of the picture's pixels, in (0, 0.5]; every size between is as likely, counted in factors.
        seed: The same seed gives the same shape.
        area: Where the object is, uint8 (H, W), 1 = object; all of the picture when left out.
        masks: Of real defects, uint8 (h, w) of any sizes.

    Returns:
        uint8 (H, W), 1 = defect, 0 wherever ``area`` is 0.

    Raises:
        SettingError: If the kind is unknown or lacks masks, a share is out of range, the area has another size, or the object is smaller
            than the shape.

    Example:
        >>> shape = draw_shape("perlin", (40, 60), share=(0.05, 0.05), seed=1)
        >>> shape.shape, int(shape.sum())
        (torch.Size([40, 60]), 120)
    """
    draw = choose("kind of shape", kind, {"warped": _one_of(masks), "perlin": blot, "stroke": stroke})
    low, high = share
    require({"the share of a shape must be (least, greatest) with 0 < least <= greatest <= 0.5": (0 < low <= high <= 0.5, share)})
    area = torch.ones(size, dtype=torch.uint8) if area is None else area
    if tuple(area.shape) != tuple(size):
        raise SettingError(f"the object's mask must have the size of its photo, {tuple(size)}, got {tuple(area.shape)}; find it again")
    rng = np.random.default_rng(seed_for(seed, "shape", kind))
    pixels = max(4, round(float(np.exp(rng.uniform(np.log(low), np.log(high)))) * size[0] * size[1]))
    if pixels > 0.9 * int(area.sum()):
        raise SettingError(
            f"a shape must be smaller than the object, the object has {int(area.sum())} pixels and the shape {pixels}; "
            "ask for a smaller share"
        )
    return draw(size, pixels=pixels, rng=rng, area=area)


def blot(size: tuple[int, int], *, pixels: int, rng: Rng, area: Tensor) -> Tensor:
    """A blot around a place on the object, its edge as ragged as gradient noise; exactly so many pixels, uint8 (H, W).

    Example:
        >>> area = torch.zeros(30, 30, dtype=torch.uint8)
        >>> area[:, :10] = 1
        >>> shape = blot((30, 30), pixels=40, rng=np.random.default_rng(0), area=area)
        >>> int(shape.sum()), int(shape[:, 10:].sum())
        (40, 0)
    """
    y, x = _place(area, rng)
    reach = (pixels / np.pi) ** 0.5
    turn, squash = rng.uniform(0, np.pi), rng.uniform(0.5, 1.0)
    rows, columns = _grid(size)
    u = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    v = ((rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)) / squash
    cells = (max(1, round(size[0] / (1.2 * reach))), max(1, round(size[1] / (1.2 * reach))))
    return _nearest(np.hypot(u, v) / reach - 0.9 * perlin(size, scale=cells, rng=rng), pixels, area)


def stroke(size: tuple[int, int], *, pixels: int, rng: Rng, area: Tensor) -> Tensor:
    """A scratch: a line that turns a little as it goes, exactly so many pixels, uint8 (H, W).

    Its width is a tenth to a thirtieth of its length.
    """
    slim = rng.uniform(10, 30)
    width = max(1.5, (pixels / slim) ** 0.5)
    length = pixels / width
    rows, columns = _grid(size)
    best = torch.zeros(size, dtype=torch.uint8)
    fit = -1.0
    for _ in range(TRIES):  # of some places the straightest fit is taken: a line that runs off the object is folded back by _nearest
        y, x = _place(area, rng)
        heading, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.25)
        steps = 12
        turns = heading + bend * np.arange(steps) / steps + rng.normal(0, 0.06, steps).cumsum()
        ys, xs = (np.concatenate([[0], (each * length / steps).cumsum()]) for each in (np.sin(turns), np.cos(turns)))
        ys, xs = ys - ys.mean() + y, xs - xs.mean() + x
        away = np.min([_to_segment(rows, columns, ys[i : i + 2], xs[i : i + 2]) for i in range(steps)], axis=0)
        on = float(area.numpy()[away <= width / 2].mean()) if (away <= width / 2).any() else 0.0
        if on > fit:
            best, fit = _nearest(away, pixels, area), on
        if fit > 0.95:
            break
    return best


def warped(mask: Tensor, size: tuple[int, int], *, pixels: int, rng: Rng, area: Tensor) -> Tensor:
    """The mask of a real defect turned, mirrored, squeezed, bent and moved onto the object, about so many pixels, uint8 (H, W).

    Of a mask in several parts the largest is taken, with those at least a third as large: a shape is not made of crumbs. Affine and
    elastic, after Simard et al. 2003, https://doi.org/10.1109/ICDAR.2003.1227801, the displacement being gradient noise.

    Args:
        mask: uint8 (h, w), not empty.
        size: Height and width of what is made.
        pixels: How many to mark.
        rng: Draws the place and the bending.
        area: Where the object is, uint8 (H, W).

    Raises:
        SettingError: If the mask is empty.
    """
    if not mask.any():
        raise SettingError("the mask of a real defect must mark something, got an empty one; leave it out")
    pieces = parts((mask > 0).float(), least=0)
    mask = torch.stack([piece for piece in pieces if piece.sum() >= pieces[0].sum() / 3]).sum(0)
    found = mask.nonzero()
    middle = found.float().mean(0).numpy()
    tall = mask[None, None]
    best, fit = torch.zeros(size, dtype=torch.uint8), -1.0
    for _ in range(TRIES):
        y, x = _place(area, rng)
        turn, squash, flip = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-0.3, 0.3)), rng.choice([-1, 1])
        scale = (len(found) / pixels) ** 0.5
        rows, columns = _grid(size)
        reach = 2 * (pixels / np.pi) ** 0.5
        cells = (max(1, round(size[0] / (2 * reach))), max(1, round(size[1] / (2 * reach))))
        dy, dx = rows - y, columns - x
        dy, dx = (each + 0.25 * reach * perlin(size, scale=cells, rng=rng) for each in (dy, dx))
        u = (dx * np.cos(turn) + dy * np.sin(turn)) * scale * squash * flip + middle[1]
        v = (dy * np.cos(turn) - dx * np.sin(turn)) * scale / squash + middle[0]
        at = np.stack([(2 * u + 1) / mask.shape[1] - 1, (2 * v + 1) / mask.shape[0] - 1], -1).astype(np.float32)
        soft = F.grid_sample(tall, torch.from_numpy(at)[None], align_corners=False)[0, 0]
        made = ((soft > 0.5) & (area > 0)).to(torch.uint8)
        off = abs(float(made.sum()) / pixels - 1)
        if -off > fit or fit == -1.0:
            best, fit = made, -off
        if off < 0.2:
            break
    if not best.any():
        raise SettingError(f"a mask of {len(found)} pixels could not be laid on the object at {pixels} pixels; ask for a larger share")
    return best


def _one_of(masks: Sequence[Tensor]) -> Callable[..., Tensor]:
    """:func:`warped` of a mask that is drawn from several."""

    def draw(size: tuple[int, int], *, pixels: int, rng: Rng, area: Tensor) -> Tensor:
        if not masks:
            raise SettingError("shapes of the kind warped need masks of real defects, got none; give masks, or take perlin or stroke")
        return warped(masks[int(rng.integers(len(masks)))], size, pixels=pixels, rng=rng, area=area)

    return draw


def _place(area: Tensor, rng: Rng) -> tuple[float, float]:
    """A place on the object, in its inside if it has one."""
    inner = shrunk(area.float(), max(1, min(area.shape) // 32))
    places = (inner if inner.any() else area).nonzero()
    y, x = places[int(rng.integers(len(places)))].tolist()
    return float(y), float(x)


def _grid(size: tuple[int, int]) -> tuple[Plane, Plane]:
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    return rows, columns


def _nearest(away: NDArray[np.floating], pixels: int, area: Tensor) -> Tensor:
    """The so many pixels of the object with the least ``away``."""
    outside = np.where(area.numpy() > 0, away, np.inf).ravel()
    made = np.zeros(outside.size, np.uint8)
    made[np.argsort(outside, kind="stable")[:pixels]] = 1
    return torch.from_numpy(made.reshape(away.shape))


def _to_segment(rows: Plane, columns: Plane, ys: NDArray[np.floating], xs: NDArray[np.floating]) -> NDArray[np.floating]:
    """Distance of every pixel to a stretch of a line."""
    dy, dx = ys[1] - ys[0], xs[1] - xs[0]
    along = np.clip(((rows - ys[0]) * dy + (columns - xs[0]) * dx) / max(dy * dy + dx * dx, 1e-9), 0, 1)
    return np.asarray(np.hypot(rows - ys[0] - along * dy, columns - xs[0] - along * dx))
