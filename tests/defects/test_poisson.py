from __future__ import annotations

import numpy as np
import pytest

from synthaug.defects.poisson import CLOSE, seamless


def solved_outright(source, target, inside):
    """The same by writing down every equation: laplacian(out) = laplacian(source) inside, out = target outside."""
    points = {tuple(point): row for row, point in enumerate(np.argwhere(inside))}
    out = target.astype(np.float64).copy()
    for channel in range(len(source)):
        matrix, right = np.zeros((len(points), len(points))), np.zeros(len(points))
        for (y, x), row in points.items():
            matrix[row, row] = 4
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                right[row] += source[channel, y, x] - source[channel, *near]
                if near in points:
                    matrix[row, points[near]] = -1
                else:
                    right[row] += target[channel, *near]
        for (y, x), value in zip(points, np.linalg.solve(matrix, right), strict=True):
            out[channel, y, x] = value
    return out


def shapes():
    y, x = np.mgrid[:17, :23]
    ring = np.hypot(y - 8, x - 11)
    yield "rectangle", np.pad(np.ones((15, 21), bool), 1)
    yield "ring", (ring > 3) & (ring < 7)
    yield "two parts", ((x > 2) & (x < 7) | (x > 12) & (x < 16)) & (y > 2) & (y < 14)
    yield "one pixel", ring == 0


@pytest.mark.parametrize(("name", "inside"), list(shapes()))
def test_the_solution_is_that_of_the_equations_written_down(name, inside):
    rng = np.random.default_rng(0)
    source, target = (rng.uniform(0, 255, (2, 17, 23)).astype(np.float32) for _ in range(2))

    out = seamless(source, target, inside)

    assert np.abs(out - solved_outright(source, target, inside)).max() < 4 * CLOSE
    assert (out[:, ~inside] == target[:, ~inside]).all()


def test_mixed_keeps_the_targets_texture_where_the_source_is_flat():
    rng = np.random.default_rng(0)
    target = rng.uniform(0, 255, (3, 12, 14)).astype(np.float32)
    flat = np.full_like(target, 100)

    out, plain = (seamless(flat, target, np.ones((12, 14), bool), mixed=mixed) for mixed in (True, False))

    assert np.abs(out - target).max() < 1
    assert plain[:, 2:-2, 2:-2].std() < target.std() / 3
