"""Seamless pasting: what is pasted keeps its own differences between neighbours, and its rim takes the values of the place.

Poisson image editing, Perez et al. 2003, https://doi.org/10.1145/882262.882269. On a rectangle the sine transform solves the equation
outright; on any other shape it is the preconditioner of conjugate gradients (Concus & Golub 1973, https://doi.org/10.1137/0710092), which
then needs a handful of steps whatever the size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from synthaug.defects.change import Plane

__all__ = ["seamless"]

CLOSE = 0.25
"""The solution is within about this many grey levels of the exact one."""

MOST_STEPS = 60
"""More steps than any shape has needed; the rest of the error is then left."""


def seamless(source: Plane, target: Plane, inside: NDArray[np.bool_], *, mixed: bool = False) -> Plane:
    """Paste ``source`` into ``target`` so that no seam shows.

    Args:
        source: float32 (C, H, W).
        target: float32 (C, H, W), at least 3 x 3.
        inside: What is pasted, bool (H, W); its outermost rows and columns are taken for outside.
        mixed: Take the stronger of both differences between neighbours, so that the target's own texture shows through.

    Returns:
        float32 (C, H, W); outside exactly ``target``.

    Example:
        >>> ramp = np.linspace(0, 80, 9, dtype=np.float32)[None, None] * np.ones((1, 7, 1), np.float32)
        >>> spot = np.full((1, 7, 9), 50, np.float32)
        >>> spot[0, 3, 4] = 20
        >>> out = seamless(spot, ramp, np.ones((7, 9), bool))
        >>> np.round(out[0, 3] - ramp[0, 3]).astype(int).tolist()  # the spot alone, on the ramp
        [0, 0, 0, 0, -30, 0, 0, 0, 0]
    """
    core = inside[1:-1, 1:-1]
    right_side = -_divergence(source, target, mixed=mixed) + _laplacian(target)  # of -laplacian(out - target)
    out = target.copy()
    out[:, 1:-1, 1:-1] += _solved(np.where(core, right_side, np.float32(0)), core)
    return out


def _divergence(source: Plane, target: Plane, *, mixed: bool) -> Plane:
    """Of the differences that the result should have, (C, H - 2, W - 2)."""
    if not mixed:
        return _laplacian(source)
    down, across = (_stronger(np.diff(source, axis=axis), np.diff(target, axis=axis)) for axis in (1, 2))
    return down[:, 1:, 1:-1] - down[:, :-1, 1:-1] + across[:, 1:-1, 1:] - across[:, 1:-1, :-1]


def _stronger(a: Plane, b: Plane) -> Plane:
    """Of two differences the larger one, decided for all channels together so that no colour is made up."""
    return np.where(np.abs(a).sum(0) >= np.abs(b).sum(0), a, b)


def _laplacian(planes: Plane) -> Plane:
    """Of the inner pixels, (C, H - 2, W - 2)."""
    around = planes[:, :-2, 1:-1] + planes[:, 2:, 1:-1] + planes[:, 1:-1, :-2] + planes[:, 1:-1, 2:]
    return around - 4 * planes[:, 1:-1, 1:-1]


def _solved(right_side: Plane, inside: NDArray[np.bool_]) -> Plane:
    """Solve -laplacian(u) = right_side inside, u = 0 outside, by preconditioned conjugate gradients."""
    rows, columns = _sines(inside.shape[0]), _sines(inside.shape[1])
    strength = rows[1][:, None] + columns[1][None]
    solution = np.zeros_like(right_side)
    direction, residual, before = solution, right_side, np.ones((len(right_side), 1, 1), np.float32)
    for _ in range(MOST_STEPS):
        guess = np.where(inside, rows[0] @ ((rows[0] @ residual @ columns[0]) / strength) @ columns[0], np.float32(0))
        if np.abs(guess).max() < CLOSE:
            break
        energy = (guess * residual).sum((1, 2), keepdims=True)
        direction = guess + energy / before * direction
        applied = np.where(inside, -_laplacian(np.pad(direction, ((0, 0), (1, 1), (1, 1)))), np.float32(0))
        step = energy / np.maximum((direction * applied).sum((1, 2), keepdims=True), np.float32(1e-20))
        solution = solution + step * direction
        residual = residual - step * applied
        before = np.maximum(energy, np.float32(1e-20))
    return solution


@lru_cache(maxsize=256)
def _sines(length: int) -> tuple[Plane, Plane]:
    """The sine transform as an orthogonal symmetric matrix, and the eigenvalues of the negative second difference."""
    number = np.arange(1, length + 1)
    angles = np.pi * number / (length + 1)
    matrix = np.sqrt(2 / (length + 1)) * np.sin(angles[:, None] * number[None])
    return matrix.astype(np.float32), (2 - 2 * np.cos(angles)).astype(np.float32)
