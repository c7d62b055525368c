"""Is a picture one of the photos over again, shifted, mirrored, lit otherwise or a little noisier?

Thumbnails lose their slow changes of light, are set to norm 1, and are correlated at every shift and in
every mirroring. The distance is sqrt(2 - 2 c) for the best correlation c: 0 for a copy, 1.4 for
strangers. Memorisation by distance to the nearest training picture: Somepalli et al. 2023,
https://arxiv.org/abs/2212.03860.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["copy_distances"]

SIDE = 64


def copy_distances(a: Tensor, b: Tensor) -> Tensor:
    """Distance of every picture of ``a`` to every one of ``b``, (N, M), 0 to 2.

    Args:
        a: uint8 (N, 3, H, W).
        b: uint8 (M, 3, H, W).

    Example:
        >>> x = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
        >>> copy_distances(x, x.flip(3)).diagonal().max().item() < 0.01
        True
    """
    left = torch.fft.rfft2(_thumbnails(a))
    best = torch.full((len(a), len(b)), -1.0)
    right = _thumbnails(b)
    for mirrored in (right, right.flip(3), right.flip(2), right.flip(2, 3)):
        spectrum = torch.fft.rfft2(mirrored)
        for row in range(len(a)):
            overlap = torch.fft.irfft2((left[row] * spectrum.conj()).sum(1), s=(SIDE, SIDE))
            best[row] = torch.maximum(best[row], overlap.flatten(1).amax(1))
    return (2 - 2 * best).clamp_min(0).sqrt()


def _thumbnails(images: Tensor) -> Tensor:
    """Small, without noise and without slow changes of light, of norm 1: float (N, 3, 64, 64)."""
    small = F.interpolate(images.float() / 255, (SIDE, SIDE), mode="bilinear", antialias=True)
    detail = _smoothed(small, 5) - _smoothed(small, 21)
    return detail / detail.flatten(1).norm(dim=1).clamp_min(1e-6)[:, None, None, None]


def _smoothed(images: Tensor, width: int) -> Tensor:
    """Mean over squares of ``width`` pixels, continued at the border."""
    half = width // 2
    return F.avg_pool2d(F.pad(images, (half, half, half, half), mode="replicate"), width, stride=1)
