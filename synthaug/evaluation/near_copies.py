"""Which pictures are others over again: mirrored, shifted, relit, compressed or a little noisier.

Grey thumbnails lose their slow changes of light, are set to norm 1 and are correlated at every shift
and in every mirroring. A pair counts as copies when it agrees far better than pictures of the set
usually do, so that parts which look alike because they lie in one fixture are not taken for copies.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CERTAIN", "likeness", "near_copies"]

SIDE = 32
NEAR = 0.9
"""Copies correlate at least this well, however different the other pictures are."""

CERTAIN = 0.999
"""Pictures that correlate better than this are copies, however alike the others are."""

SHARE = 0.07
"""Between the two, 1 - correlation of a copy is at most this share of that of a usual nearest neighbour."""

_ENOUGH = 64
"""Known pictures whose nearest neighbour is looked up to learn what is usual."""


def near_copies(pictures: Tensor, known: Tensor) -> list[tuple[int, int]]:
    """Pairs of a picture and the known picture it repeats.

    Args:
        pictures: uint8 (N, 3, H, W), such as test photos.
        known: uint8 (M, 3, H, W), such as training photos.

    Returns:
        At most one pair per picture, the known one most like it, in the order of the pictures.

    Example:
        >>> x = torch.randint(0, 255, (3, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        >>> near_copies(x[1:].flip(3), x)
        [(0, 1), (1, 2)]
    """
    if not len(pictures) or not len(known):
        return []
    alike = likeness(pictures, known)
    best, which = alike.max(1)
    limit = min(CERTAIN, max(NEAR, 1 - SHARE * (1 - _usual(best, known))))
    return [(row, int(which[row])) for row in range(len(pictures)) if best[row] >= limit]


def likeness(a: Tensor, b: Tensor) -> Tensor:
    """Best correlation of every picture of ``a`` with every one of ``b``: (N, M), -1 to 1.

    Args:
        a: uint8 (N, 3, H, W).
        b: uint8 (M, 3, H, W).
    """
    left, right = torch.fft.rfft2(_thumbnails(a)), _thumbnails(b)
    best = torch.full((len(a), len(b)), -1.0)
    for mirrored in (right, right.flip(2), right.flip(1), right.flip(1, 2)):
        spectrum = torch.fft.rfft2(mirrored).conj()
        for row, picture in enumerate(left):
            at_every_shift = torch.fft.irfft2(picture * spectrum, s=(SIDE, SIDE))
            best[row] = torch.maximum(best[row], at_every_shift.flatten(1).amax(1))
    return best


def _usual(best: Tensor, known: Tensor) -> float:
    """Likeness of usual nearest neighbours: across the sets or among the known, whichever is lower.

    Many leaked pictures raise the first, photos that the known set holds twice the second.
    """
    across = float(best.median())
    if len(known) < 2:
        return across
    some = torch.linspace(0, len(known) - 1, min(_ENOUGH, len(known))).round().long()
    among = likeness(known[some], known)
    among[torch.arange(len(some)), some] = -1
    return min(across, float(among.amax(1).median()))


def _thumbnails(images: Tensor) -> Tensor:
    """Grey, small, without slow changes of light, norm 1 (0 for a blank picture): float (N, 32, 32)."""
    grey = images.float().mean(1, keepdim=True)
    small = F.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True)
    padded = F.pad(small, (5, 5, 5, 5), mode="replicate")
    detail: Tensor = (F.avg_pool2d(small, 3, 1, 1, count_include_pad=False) - F.avg_pool2d(padded, 11, 1))[:, 0]
    norms: Tensor = detail.flatten(1).norm(dim=1).clamp_min(1e-3)
    return detail / norms[:, None, None]
