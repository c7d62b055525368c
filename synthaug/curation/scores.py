"""How a picture compares with the photos: typical, alive, and not one of them over again.

Code name    Meaning
d1           distance to the nearest photo
scale        median over the photos of the distance to their nearest other photo (leave one out)

Distances of the four groups are each divided by the photos' own leave-one-out median, then averaged as
squares; a value of 1 therefore means "as far as photos are from each other".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.curation.features import Features, describe, group_distances
from synthaug.errors import SettingError

__all__ = ["Reference", "Scores"]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of N pictures, each (N,), 0 to 1, higher = keep."""

    typical: Tensor
    """1 as near to the photos as they are to each other, 0.5 at twice that distance, towards 0 beyond."""

    alive: Tensor
    """1 where the lightness varies as much as in the dullest photo, 0 for a blank picture."""

    new: Tensor
    """0 for a copy of a photo, 1 from half the photos' own distance on."""

    distance: Tensor
    """d1 over scale, (N,): not a score, the number behind ``typical`` and ``new``."""

    nearest: Tensor
    """Which photo is the nearest, (N,), int64."""


class Reference:
    """The photos that pictures are compared with.

    Args:
        photos: uint8 (N, 3, H, W), at least 3.

    Raises:
        SettingError: If there are fewer than 3 photos.

    Example:
        >>> photos = torch.randint(0, 255, (5, 3, 32, 32), dtype=torch.uint8)
        >>> Reference(photos).scores(photos).new.max().item()
        0.0
    """

    def __init__(self, photos: Tensor) -> None:
        if len(photos) < 3:
            raise SettingError(f"at least 3 photos are needed to tell what is usual, got {len(photos)}; add photos")
        self.features = describe(photos)
        among = group_distances(self.features, self.features)
        self._unit = {name: _leave_one_out(distances).median().clamp_min(1e-4) for name, distances in among.items()}
        self.own = _leave_one_out(self._combined(among))
        self.scale = self.own.median()

    def _combined(self, groups: dict[str, Tensor]) -> Tensor:
        """One distance from those of the groups, (N, M)."""
        return torch.stack([(groups[name] / unit).square() for name, unit in self._unit.items()]).mean(0).sqrt()

    def distances(self, features: Features) -> Tensor:
        """Distance of every picture to every photo, in units of ``scale``, (N, M)."""
        return self._combined(group_distances(features, self.features)) / self.scale

    def scores(self, images: Tensor) -> Scores:
        """Score pictures, uint8 (N, 3, H, W)."""
        features = describe(images)
        d1, nearest = self.distances(features).min(1)
        dullest = self.features.spread.min().clamp_min(1e-3)
        return Scores(
            typical=1 / (1 + (d1 - 1).clamp_min(0)),
            alive=(features.spread / dullest).clamp(0, 1),
            new=(d1 / 0.5).clamp(0, 1) if len(images) else d1,
            distance=d1,
            nearest=nearest,
        )


def _leave_one_out(distances: Tensor) -> Tensor:
    """Distance of each photo to the nearest other one, (N,)."""
    return distances.masked_fill(torch.eye(len(distances), dtype=torch.bool), torch.inf).amin(1)
