"""Is a picture another one over again, shifted, mirrored, lit otherwise or a little noisier?

Thumbnails lose their slow changes of light, are set to norm 1, and are correlated at every shift and in
every mirroring. The distance is sqrt(2 - 2 c) for the best correlation c: 0 for a copy, 1.4 for
strangers. Memorisation by distance to the nearest training picture: Somepalli et al. 2023,
https://arxiv.org/abs/2212.03860.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["copy_distances", "repeats", "thumbnails"]

SIDE = 64
"""Pictures are compared at this size."""

FAINT = 0.2
"""Norm below which details are rounding, not a picture: about half a grey level everywhere."""

BLOCK = 256
"""So many pictures are compared with all earlier ones at a time."""


def thumbnails(images: Tensor, *, zoom: float = 1.0) -> Tensor:
    """What copies are recognised by: small, without noise and slow changes of light, of norm 1.

    Args:
        images: uint8 (N, 3, H, W).
        zoom: Look at the middle only, magnified so much.

    Returns:
        float32 (N, 3, 64, 64); nearly 0 for a blank picture, which is then no copy of anything.
    """
    height, width = images.shape[2:]
    top, left = round(height * (1 - 1 / zoom) / 2), round(width * (1 - 1 / zoom) / 2)
    middle = images[..., top : height - top, left : width - left]
    small = F.interpolate(middle.float() / 255, (SIDE, SIDE), mode="bilinear", antialias=True)
    detail = _smoothed(small, 5) - _smoothed(small, 21)
    norms = torch.linalg.vector_norm(detail, dim=(1, 2, 3), keepdim=True)
    return torch.div(detail, norms.clamp_min(FAINT))


def copy_distances(a: Tensor, b: Tensor) -> Tensor:
    """Distance of every picture of ``a`` to every one of ``b``.

    Args:
        a: Thumbnails of N pictures, as :func:`thumbnails` makes them.
        b: Thumbnails of M pictures.

    Returns:
        float32 (N, M), 0 to 2.

    Example:
        >>> x = thumbnails(torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8))
        >>> copy_distances(x, x.flip(3)).diagonal().max().item() < 0.01
        True
    """
    best = a.new_full((len(a), len(b)), -1.0)
    if not best.numel():
        return best  # some builds of torch cannot transform no picture at all
    spectra = torch.fft.rfft2(a)
    for mirrored in _mirrorings(b):
        others = torch.fft.rfft2(mirrored).conj()
        for row in range(len(a)):
            overlap = torch.fft.irfft2((spectra[row] * others).sum(1), s=(SIDE, SIDE))
            best[row] = torch.maximum(best[row], overlap.flatten(1).amax(1))
    return (2 - 2 * best).clamp_min(0).sqrt()


def repeats(pictures: Tensor, rows: Sequence[int], limit: float) -> dict[int, tuple[int, float]]:
    """Which pictures repeat an earlier one that is no repeat itself.

    Args:
        pictures: Thumbnails of N pictures.
        rows: The pictures to look at, in this order; the others neither repeat nor are repeated.
        limit: Pictures nearer than this are repeats.

    Returns:
        Row of each repeat -> row of the nearest earlier picture, and their distance.

    Example:
        >>> x = thumbnails(torch.randint(0, 255, (3, 3, 64, 64), dtype=torch.uint8))
        >>> x[2] = x[0].flip(2)
        >>> {row: first for row, (first, _) in repeats(x, range(3), 0.1).items()}
        {2: 0}
    """
    found: dict[int, tuple[int, float]] = {}
    for row, earlier in _candidates(pictures, rows, limit).items():
        near = [other for other in earlier if other not in found]
        distances = copy_distances(pictures[row : row + 1], pictures[near])[0]
        if near and float(distances.min()) < limit:
            found[row] = (near[int(distances.argmin())], float(distances.min()))
    return found


def _candidates(pictures: Tensor, rows: Sequence[int], limit: float) -> dict[int, list[int]]:
    """Row -> earlier rows that may be nearer than ``limit``.

    A correlation at any shift is at most the sum of the products of the magnitudes (the triangle
    inequality over frequencies): one matrix product clears nearly every pair before any shift is tried.
    """
    if not len(rows):
        return {}
    chosen = torch.tensor(rows, dtype=torch.int64)
    known = _magnitudes(pictures[chosen])
    least = 1 - limit**2 / 2 - 1e-4
    found: dict[int, list[int]] = {}
    for start in range(0, len(chosen), BLOCK):
        block = pictures[chosen[start : start + BLOCK]]
        for mirrored in (block, block.flip(3)):
            bounds = _magnitudes(mirrored) @ known[: start + BLOCK].T
            for at, other in (bounds > least).nonzero().tolist():
                if other < start + at:
                    found.setdefault(rows[start + at], []).append(rows[other])
    return {row: sorted(set(found[row])) for row in rows if row in found}


def _mirrorings(pictures: Tensor) -> tuple[Tensor, ...]:
    return pictures, pictures.flip(3), pictures.flip(2), pictures.flip(2, 3)


def _magnitudes(pictures: Tensor) -> Tensor:
    """Magnitudes of the spectrum, of norm 1, (N, F): the same when a picture is shifted or turned upside down."""
    half = torch.fft.rfft2(pictures, norm="ortho").abs()
    half[..., 1:-1] *= 2**0.5  # each of these stands for two frequencies of the full spectrum
    return torch.flatten(half, 1)


def _smoothed(images: Tensor, width: int) -> Tensor:
    """Mean over squares of ``width`` pixels, continued at the border."""
    half = width // 2
    smooth: Tensor = F.avg_pool2d(F.pad(images, (half, half, half, half), mode="replicate"), width, stride=1)
    return smooth
