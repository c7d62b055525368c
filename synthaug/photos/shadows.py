"""The shadow that a thing throws on its ground: how strong, to which side, and how to lighten it.

A shadow is what the ground lacks of the light that the smooth surface through the rest of it has. It is lightened by what it
lacks, in linear light and per colour, so that its tint goes with it; the grain of the ground stays, and the thing is left alone.
The lack is looked at through a guided filter, which keeps a shadow's sharp rim and lets the grain pass.

Shadow as a factor on the ground: Finlayson et al. 2006, https://doi.org/10.1109/TPAMI.2006.18; guided filter: He et al. 2010,
https://doi.org/10.1007/978-3-642-15549-9_1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from synthaug.errors import require
from synthaug.photos.foreground import Foreground, linear
from synthaug.photos.regions import blurred, grown

__all__ = ["Shadow", "cast_shadow", "displayed", "ground_seen", "lightened", "shading"]

REACH = 0.08
"""Share of the long side around the thing in which its shadow is looked for."""

SLIGHT = 0.1
"""Logarithm of light that may be missing before it counts as shadow."""

SIDES = ("right", "lower right", "below", "lower left", "left", "upper left", "above", "upper right")


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """The shadow around a thing."""

    strength: float
    """Share of the light that is missing where it is darkest, the mean over the darkest quarter around the thing, 0 to 1."""

    side: str
    """Where it mostly lies, one of :data:`SIDES`; "" when there is next to none."""


def displayed(light: Tensor) -> Tensor:
    """Linear light, float (3, H, W), to uint8; undoes :func:`~synthaug.photos.foreground.linear`."""
    return (light.clamp(0, 1) ** (1 / 2.2) * 255).round().to(torch.uint8)


def ground_seen(picture: Tensor, found: Foreground) -> tuple[Tensor, Tensor]:
    """The ground of a photo, smooth, its shadows kept, and continued below the thing.

    Args:
        picture: uint8 (3, H, W).
        found: Its foreground.

    Returns:
        Linear light, float (3, H, W), and the logarithm of what the even ground has more of, at most 0 where a
        shadow is near the thing, (3, H, W).
    """
    apart = linear(picture).clamp_min(2e-4).log() - found.ground.clamp_min(2e-4).log()
    reach = max(2, round(0.008 * max(picture.shape[1:])))
    known = (1 - grown((found.matte > 0.05).float(), max(1, reach // 2))) * (1 - found.others)
    lack = _guided(apart, known, reach)
    return found.ground * lack.exp(), lack.clamp(max=0) * (1 - found.others) * _near(found.matte)


def _near(matte: Tensor) -> Tensor:
    """1 where the thing's shadow may fall, 0 far away from it, (H, W)."""
    reach = round(2 * REACH * max(matte.shape))
    return blurred(grown((matte > 0.5).float(), reach)[None], reach // 2)[0]


def shading(lack: Tensor) -> Tensor:
    """Shadow without tint, stains and unevenness too slight to be one: what to multiply another ground with, (H, W)."""
    return blurred((lack.mean(0) + SLIGHT).clamp(max=0).exp()[None], max(1, round(0.006 * max(lack.shape))))[0]


def lightened(picture: Tensor, found: Foreground, *, strength: float = 1.0) -> Tensor:
    """The photo with lighter shadows on its ground.

    Args:
        picture: uint8 (3, H, W).
        found: Its foreground, without doubt.
        strength: 0 leaves it as it is, 1 gives the shadow all the light that is missing.

    Returns:
        uint8 (3, H, W); what is certainly the thing is unchanged.

    Raises:
        SettingError: If the strength is not 0 to 1.

    Example:
        >>> from synthaug.photos.foreground import find_foreground
        >>> photo = torch.full((3, 128, 192), 220, dtype=torch.uint8)
        >>> photo[:, 60:95, 80:140] = 170  # a shadow
        >>> photo[0, 40:80, 60:130] = 20  # and what throws it
        >>> int(lightened(photo, find_foreground(photo))[1, 88, 110]) > 210
        True
    """
    require({"strength must be from 0 to 1; 1 takes the shadow away": (0 <= strength <= 1, strength)})
    ground, lack = ground_seen(picture, found)
    return displayed(linear(picture) + (1 - found.matte) * ground * ((-strength * lack).exp() - 1))


def cast_shadow(picture: Tensor, found: Foreground) -> Shadow:
    """Measure the shadow around the thing of a photo, uint8 (3, H, W)."""
    picture, found = _small(picture, found)
    thing = (found.matte > 0.5).float()
    reach = max(3, round(REACH * max(thing.shape)))
    around = (grown(thing, reach) - grown((found.matte > 0.05).float(), max(1, reach // 8))).clamp(0, 1) * (1 - found.others)
    _, lack = ground_seen(picture, found)
    missing = 1 - lack.mean(0).exp()
    values = missing[around > 0.5]
    if not len(values) or not thing.any():
        return Shadow(strength=0.0, side="")
    strength = float(values.sort().values[-max(1, len(values) // 4) :].mean())
    return Shadow(strength=strength, side=_side(thing, missing * around) if strength > SLIGHT else "")


def _small(picture: Tensor, found: Foreground, longest: int = 256) -> tuple[Tensor, Foreground]:
    """Both at a size that is enough to measure."""
    scale = longest / max(picture.shape[1:])
    if scale >= 1:
        return picture, found
    size = tuple(max(8, round(side * scale)) for side in picture.shape[1:])
    planes = torch.cat([linear(picture), found.ground, found.matte[None], found.others[None]])
    small = F.interpolate(planes[None], size, mode="area")[0]
    return displayed(small[:3]), replace(found, ground=small[3:6], matte=small[6], others=small[7].ceil())


def _side(thing: Tensor, weight: Tensor) -> str:
    """Where the weight lies, seen from the thing: compared pixel by pixel with the nearest rim, by eight directions."""
    smooth = blurred(thing[None], max(2, round(REACH * max(thing.shape))))[0]
    down, right = (torch.gradient(smooth, dim=dim)[0] for dim in (0, 1))
    x, y = -float((right * weight).sum()), -float((down * weight).sum())
    if math.hypot(x, y) < 1e-9:
        return ""
    return SIDES[round(math.atan2(y, x) / (math.pi / 4)) % 8]


def _guided(planes: Tensor, known: Tensor, reach: int, eps: float = 0.004) -> Tensor:
    """Planes (C, H, W) smoothed where nothing much happens, known pixels only, continued into the unknown ones."""
    weight = known[None]
    total = blurred(weight, reach)
    far = blurred(weight, 6 * reach)
    mean = blurred(planes * weight, reach) / total.clamp_min(1e-3)
    variance = (blurred(planes.square() * weight, reach) / total.clamp_min(1e-3) - mean.square()).clamp_min(0)
    slope = variance / (variance + eps)
    part = total.clamp_min(1e-3)
    smooth = blurred(slope * weight, reach) / part * planes + blurred((mean - slope * mean) * weight, reach) / part
    wide = blurred(planes * weight, 6 * reach) / far.clamp_min(1e-3)
    inside = torch.where(total > 0.05, mean, wide)
    return torch.where(weight > 0.5, smooth, inside)
