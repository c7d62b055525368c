"""Even out the light of a photo: corners, window light, the large soft shadow of whoever held the phone.

The light is what a large median sees: it looks past anything that fills less than half of its window. The
picture is divided by it in linear light. What is larger than the window, or as smooth as light itself, is
taken for light: a stain over half the part would be evened out, too, which :func:`contrast` finds out.

Background division: Gonzalez & Woods, Digital Image Processing, section 2.6; median as background
estimate: Huang et al. 1979, https://doi.org/10.1109/TASSP.1979.1163188.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from synthaug.errors import require

__all__ = ["contrast", "flattened"]

SIDE = 96
"""The light is looked for at this size, long side in pixels."""

WINDOW = 0.4
"""Side of the median's window over the picture's long side."""

DARKEST = 0.02
"""Light below this, of 1, is taken for this, so that black borders are not blown up."""


def flattened(picture: Tensor, *, strength: float = 1.0) -> Tensor:
    """The picture under even light.

    Args:
        picture: uint8 (3, H, W).
        strength: 0 leaves it as it is, 1 takes out all unevenness.

    Returns:
        uint8 (3, H, W), as bright as before in the middle of its range.

    Raises:
        SettingError: If the strength is not 0 to 1.

    Example:
        >>> slope = torch.linspace(60, 200, 64).expand(3, 48, 64).to(torch.uint8)
        >>> bool(flattened(slope).float().std() < 0.25 * slope.float().std())
        True
    """
    require({"strength must be from 0 to 1; 1 takes out all unevenness": (0 <= strength <= 1, strength)})
    bright = (picture.float() / 255) ** 2.2
    light = _light(bright.mean(0)).clamp_min(DARKEST)
    even = bright * (light.median() / light) ** strength
    return (even.clamp(0, 1) ** (1 / 2.2) * 255).round().to(torch.uint8)


def contrast(picture: Tensor, mask: Tensor) -> float:
    """Difference between a marked area and what lies around it, in parts of 255.

    Args:
        picture: uint8 (3, H, W).
        mask: uint8 (H, W), 1 = marked.
    """
    inside = mask[None, None].float()
    reach = 2 * max(2, min(mask.shape) // 32) + 1
    around = F.max_pool2d(inside, reach, 1, reach // 2) - inside
    values = picture.float()
    means = [(values * area[0]).sum((1, 2)) / area.sum().clamp_min(1) for area in (inside, around)]
    return float((means[0] - means[1]).abs().max())


def _light(bright: Tensor) -> Tensor:
    """What a large median sees of a plane (H, W), smooth, of the same size."""
    height, width = bright.shape
    scale = SIDE / max(height, width)
    small = F.interpolate(bright[None, None], (max(8, round(height * scale)), max(8, round(width * scale))), mode="area")
    half = max(2, round(WINDOW * SIDE / 2))
    rows, cols = small.shape[-2:]
    padded = F.pad(small, (min(half, cols - 1),) * 2 + (min(half, rows - 1),) * 2, mode="reflect")
    windows = padded.unfold(2, padded.shape[2] - rows + 1, 1).unfold(3, padded.shape[3] - cols + 1, 1)
    seen = windows.flatten(4).median(-1).values
    smooth = F.avg_pool2d(F.pad(seen, (8, 8, 8, 8), mode="replicate"), 17, 1)
    return F.interpolate(smooth, (height, width), mode="bicubic", align_corners=False)[0, 0]
