"""Describe pictures with hand-made features: no weights, the same numbers everywhere.

Four groups: colour (how light, how coloured, how varied), texture (edge strength by scale), shape (the
thing that stands out from its background: area, elongation, solidity, contrast), and patch (that thing,
turned upright and scaled to one size). The first three do not change when a picture is turned or
mirrored; patches are compared in all four mirrorings.

Texture: filter-bank statistics after Varma & Zisserman 2005, https://doi.org/10.1007/s11263-005-4635-4.
Shape: second moments after Hu 1962, https://doi.org/10.1109/TIT.1962.1057692.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Features", "describe", "foreground", "group_distances"]

SIDE = 64
"""Pictures are described at this size, which leaves sensor noise behind."""

PATCH = (12, 24)
"""Height and width of an upright patch."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Descriptions of N pictures, float32."""

    colour: Tensor
    """(N, 9)"""

    texture: Tensor
    """(N, 18)"""

    shape: Tensor
    """(N, 6)"""

    patch: Tensor
    """(N, 3, 12, 24)"""

    spread: Tensor
    """Standard deviation of the lightness, (N,): near 0 for a blank picture."""

    def __len__(self) -> int:
        return len(self.spread)


def describe(images: Tensor) -> Features:
    """Describe pictures.

    Args:
        images: uint8 (N, 3, H, W).

    Example:
        >>> describe(torch.zeros(2, 3, 40, 60, dtype=torch.uint8)).colour.shape
        torch.Size([2, 9])
    """
    small = F.interpolate(images.float() / 255, (SIDE, SIDE), mode="bilinear", antialias=True)
    light, pairs = _opponent(small)
    channels = torch.cat([light, pairs], 1)
    flat = channels.flatten(2)
    tails = (flat.quantile(0.95, 2) - flat.quantile(0.05, 2)) / 2
    shapes, patches = zip(*(_thing(picture) for picture in small), strict=True)
    return Features(
        colour=torch.cat([flat.mean(2), flat.std(2), tails], 1),
        texture=_texture(channels),
        shape=torch.stack(shapes),
        patch=torch.stack(patches),
        spread=light.flatten(1).std(1),
    )


def _opponent(small: Tensor) -> tuple[Tensor, Tensor]:
    """Lightness (N, 1, H, W), and red-green and yellow-blue (N, 2, H, W)."""
    red, green, blue = small.unbind(1)
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    return light[:, None], torch.stack([red - green, (red + green) / 2 - blue], 1)


def _texture(channels: Tensor) -> Tensor:
    """Mean and spread of the edge strength of each channel at three scales, (N, 18)."""
    found, level = [], channels
    for _ in range(3):
        dx, dy = level[..., :-1, 1:] - level[..., :-1, :-1], level[..., 1:, :-1] - level[..., :-1, :-1]
        strength = (dx.square() + dy.square()).sqrt().flatten(2)
        found += [strength.mean(2), strength.std(2)]
        level = F.avg_pool2d(level, 2)
    return torch.cat(found, 1)


def foreground(picture: Tensor) -> Tensor:
    """What stands out from a smooth background: the largest connected part, (H, W) of 0 and 1.

    The background is a second-order surface, fitted first to the border and then to all that is like it.

    Args:
        picture: float (3, H, W), 0 to 1.
    """
    _, height, width = picture.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y, x * y, x * x, y * y], -1).reshape(-1, 6)
    colours = picture.reshape(3, -1).T
    weight = ((x.abs() > 0.85) | (y.abs() > 0.85)).float().reshape(-1, 1)
    for _ in range(4):
        normal = basis.T @ (basis * weight) + 1e-4 * torch.eye(6)
        surface = basis @ torch.linalg.solve(normal, basis.T @ (colours * weight))
        far = (colours - surface).norm(dim=1)
        limit = max(0.06, 3.5 * float(far[weight[:, 0] > 0].median()))
        weight = (far < limit).float()[:, None]
    inside = (far > limit).float().reshape(1, 1, height, width)
    opened = F.max_pool2d(-F.max_pool2d(-inside, 3, 1, 1), 3, 1, 1)
    return _largest_part(opened[0, 0])


def _largest_part(mask: Tensor) -> Tensor:
    """The largest connected part of a mask: labels spread to neighbours until nothing changes."""
    labels = (torch.arange(mask.numel(), dtype=torch.float32).reshape(mask.shape) + 1) * mask
    while True:
        spread = F.max_pool2d(labels[None, None], 3, 1, 1)[0, 0] * mask
        if torch.equal(spread, labels):
            break
        labels = spread
    sizes = torch.bincount(labels[mask > 0].long())
    return (labels == sizes.argmax()).float() * mask if len(sizes) else mask


def _thing(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Shape (6,) and upright patch (3, *PATCH) of what stands out; zeros when nothing does."""
    mask = foreground(picture)
    area = mask.mean()
    if area < 0.002 or area > 0.8:
        return torch.zeros(6), torch.zeros(3, *PATCH)
    height, width = mask.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    total = mask.sum()
    cx, cy = (mask * x).sum() / total, (mask * y).sum() / total
    xx, yy, xy = (mask * (x - cx) ** 2).sum() / total, (mask * (y - cy) ** 2).sum() / total, (mask * (x - cx) * (y - cy)).sum() / total
    values, vectors = torch.linalg.eigh(torch.stack([torch.stack([xx, xy]), torch.stack([xy, yy])]))
    minor, major = values.clamp_min(1e-6).sqrt()
    axis = vectors[:, 1]
    outside = picture[:, mask == 0]
    inside = picture[:, mask > 0]
    contrast = (inside.mean(1) - outside.mean(1)).norm()
    shape = torch.stack([area.sqrt(), major, minor / major, area * 4 / (torch.pi * 4 * major * minor), contrast, inside.std(1).mean()])
    along, across = 2.2 * major, 2.6 * minor
    v, u = torch.meshgrid(torch.linspace(-1, 1, PATCH[0]) * across, torch.linspace(-1, 1, PATCH[1]) * along, indexing="ij")
    grid = torch.stack([cx + u * axis[0] - v * axis[1], cy + u * axis[1] + v * axis[0]], -1)
    patch = F.grid_sample(picture[None], grid[None], padding_mode="border", align_corners=True)[0]
    return shape, patch


def group_distances(a: Features, b: Features) -> dict[str, Tensor]:
    """Distance of every picture of ``a`` to every one of ``b``, (N, M), by group."""
    flips = [b.patch, b.patch.flip(3), b.patch.flip(2), b.patch.flip(2, 3)]
    return {
        "colour": torch.cdist(a.colour, b.colour),
        "texture": torch.cdist(a.texture, b.texture),
        "shape": torch.cdist(a.shape, b.shape),
        "patch": torch.stack([torch.cdist(a.patch.flatten(1), flip.flatten(1)) for flip in flips]).amin(0),
    }
