"""Where an inpainting base is asked to fill in: the marked defect, or a few blocks and strokes.

Wide strokes teach more than thin ones: Suvorov et al. 2022 (LaMa), https://arxiv.org/abs/2109.07161.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["hole_of"]

EVERYTHING = 0.2
"""Share of random holes that are the whole picture, so that the base can still draw one."""


def hole_of(mask: Tensor | None, size: tuple[int, int], *, seed: int) -> Tensor:
    """What to fill in.

    Args:
        mask: uint8 (H, W), 1 = fill in; None, or one that marks nothing, draws one at random.
        size: Height and width.
        seed: Of the random one.

    Returns:
        uint8 (H, W), 1 = fill in, never empty.

    Example:
        >>> hole = hole_of(None, (48, 64), seed=3)
        >>> hole.shape, bool(hole.any())
        (torch.Size([48, 64]), True)
    """
    if mask is not None and mask.any():
        return mask
    generator = torch.Generator().manual_seed(seed)
    if float(torch.rand((), generator=generator)) < EVERYTHING:
        return torch.ones(size, dtype=torch.uint8)
    hole = torch.zeros(size, dtype=torch.bool)
    for _ in range(1 + int(torch.randint(3, (), generator=generator))):
        draw = _block if float(torch.rand((), generator=generator)) < 0.5 else _stroke
        hole |= draw(size, generator)
    return hole.to(torch.uint8)


def _block(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A rectangle of an eighth to a half of each side."""
    spans = []
    for side in size:
        share, at = torch.rand(2, generator=generator).tolist()
        length = max(1, round(side * (0.125 + 0.375 * share)))
        spans.append((torch.arange(side) - round(at * (side - length))).div(length, rounding_mode="floor") == 0)
    return spans[0][:, None] & spans[1][None]


def _stroke(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A thick line from corner to corner of a random path."""
    height, width = size
    points = torch.rand(4, 2, generator=generator) * torch.tensor([height - 1.0, width - 1.0])
    thick = min(size) * (0.04 + 0.08 * float(torch.rand((), generator=generator)))
    place = torch.stack(torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij"), -1)
    near = torch.zeros(size, dtype=torch.bool)
    for start, end in zip(points[:-1], points[1:], strict=True):
        along = end - start
        share = ((place - start) @ along / along.square().sum().clamp_min(1e-6)).clamp(0, 1)
        near |= (place - start - share[..., None] * along).norm(dim=-1) <= thick
    return near
