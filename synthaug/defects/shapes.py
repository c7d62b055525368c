"""Where to put a defect: masks of real defects bent and moved, blots of Perlin noise, strokes and scratches.

Every shape is drawn at the asked-for share of the picture and lies on the object where one is told; the same generator gives the same
shape on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synthaug.errors import require

__all__ = ["perlin"]

Plane = NDArray[np.float32]
Rng = np.random.Generator


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
    return np.clip(np.float32(2**0.5) * (above + fade_v * (below - above)), -1, 1)


def _cells(length: int, cells: int) -> tuple[NDArray[np.intp], Plane]:
    """Of each of ``length`` pixels the cell that it lies in and how far in, 0 to 1."""
    at = np.arange(length, dtype=np.float64) * cells / length
    cell = np.floor(at).astype(np.intp)
    return cell, (at - cell).astype(np.float32)
