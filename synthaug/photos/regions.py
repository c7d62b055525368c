"""Areas of a picture as planes of 0 and 1: grown, shrunk, taken apart, their holes filled.

Runs joined by union and find: Rosenfeld & Pfaltz 1966, https://doi.org/10.1145/321356.321357; opening by reconstruction: Vincent 1993,
https://doi.org/10.1109/83.217222.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["blurred", "filled", "grown", "opened", "parts", "shrunk"]


def grown(area: Tensor, reach: int) -> Tensor:
    """The area (H, W) with everything in a square around it, up to a number of pixels away."""
    return _spread(_spread(area, reach).T, reach).T.contiguous()


def shrunk(area: Tensor, reach: int) -> Tensor:
    """The area (H, W) without its rim; what lies beyond the picture counts as area."""
    return -grown(-area, reach)


def opened(area: Tensor, reach: int) -> Tensor:
    """The area without its thin parts, except where they go on from a thick one by no more than ``reach``."""
    return grown(grown(shrunk(area, reach), reach), reach) * area


def filled(area: Tensor) -> Tensor:
    """The area with everything that it encloses.

    Example:
        >>> ring = torch.ones(5, 5)
        >>> ring[2, 2] = 0
        >>> filled(ring).sum()
        tensor(25.)
    """
    outside = _labels(F.pad(1 - area, (1, 1, 1, 1), value=1.0))
    return 1 - (outside == outside[0, 0]).float()[1:-1, 1:-1]


def parts(area: Tensor, *, least: float = 0.002) -> list[Tensor]:
    """Connected parts, the largest first, each (H, W).

    Args:
        area: Zeros and ones, (H, W).
        least: Share of the picture below which a part is left out.

    Example:
        >>> [int(part.sum()) for part in parts(torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))]
        [2, 1]
    """
    labels = _labels(area)
    sizes = torch.bincount(labels.flatten())
    sizes[0] = 0
    order = sizes.argsort(descending=True)
    return [(labels == label).float() for label in order.tolist() if sizes[label] > 0 and sizes[label] >= least * labels.numel()]


def blurred(planes: Tensor, reach: int) -> Tensor:
    """Mean over a square window, (C, H, W), for any window at the same cost; the border repeats."""
    for dim in (-1, -2):
        pad = (reach + 1, reach, 0, 0) if dim == -1 else (0, 0, reach + 1, reach)
        sums = F.pad(planes[None], pad, mode="replicate")[0].cumsum(dim, dtype=torch.float64)
        length, window = planes.shape[dim], 2 * reach + 1
        planes = ((sums.narrow(dim, window, length) - sums.narrow(dim, 0, length)) / window).float()
    return planes


def _spread(area: Tensor, reach: int) -> Tensor:
    """The largest value up to ``reach`` rows away, the window made three times as wide in each step."""
    length, done = len(area), 0
    area = F.pad(area, (0, 0, reach, reach), value=float("-inf"))
    while done < reach:
        step = min(2 * done + 1, reach - done)
        padded = F.pad(area, (0, 0, step, step), value=float("-inf"))
        area = torch.maximum(area, torch.maximum(padded[: len(area)], padded[2 * step :]))
        done += step
    return area[reach : reach + length]


def _labels(area: Tensor) -> Tensor:
    """A number for each pixel of the area, the same for pixels that touch along an edge, 0 outside: (H, W)."""
    inside = area.numpy() > 0.5
    steps = np.diff(np.pad(inside, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, starts), (_, ends) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    roots = _joined(np.searchsorted(rows, np.arange(len(inside) + 1)).tolist(), starts.tolist(), ends.tolist())
    labels = np.zeros(inside.shape, np.int64)
    for run, (row, start, end) in enumerate(zip(rows, starts, ends, strict=True)):
        labels[row, start:end] = roots[run] + 1
    return torch.from_numpy(labels)


def _joined(first: list[int], starts: list[int], ends: list[int]) -> list[int]:
    """The representative of each run; ``first`` is the number of the first run of each row."""
    parent = list(range(len(starts)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    for row in range(1, len(first) - 1):
        above, below = first[row - 1], first[row]
        while above < first[row] and below < first[row + 1]:
            if starts[above] < ends[below] and starts[below] < ends[above]:
                parent[root(below)] = root(above)
            if ends[above] < ends[below]:
                above += 1
            else:
                below += 1
    return [root(run) for run in parent]
