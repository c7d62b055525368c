"""How a picture compares with the photos: typical, alive, and not one of them over again.

Code name    Meaning
d1           distance to the nearest photo, by features
scale        median over the photos of the distance to their nearest other photo (leave one out)
copy_scale   the same by :func:`synthaug.curation.near_copies.copy_distances`

Distances of the four groups of features are each divided by the photos' own leave-one-out median, then
averaged as squares, and divided by their median again: a value of 1 means "as far as photos are from
each other".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from synthaug.curation.features import Features, describe, group_distances
from synthaug.curation.near_copies import copy_distances, thumbnails
from synthaug.errors import SettingError

__all__ = ["Reference", "Scores"]

ZOOMS = (1.0, 1.075, 1.15)
"""Copies are looked for at these magnifications of a photo: training shows crops, and what is learned by heart is a crop."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of N pictures, and the numbers behind them.

    ``typical``, ``alive`` and ``new`` are 0 to 1, higher = keep; the others are no scores.
    """

    typical: Tensor
    """(N,), 1 as near to the photos as they are to each other, 0.5 at twice that distance, towards 0 beyond."""

    alive: Tensor
    """(N,), 1 where the lightness varies as much as in the dullest photo, 0 for a blank picture."""

    new: Tensor
    """(N,), 0 for a copy of a photo, 1 from half the photos' own distance on."""

    distance: Tensor
    """(N,), d1 over scale."""

    nearest: Tensor
    """(N,), int64: which photo is the nearest by features."""

    copy: Tensor
    """(N,), copy distance to the most similar photo over copy_scale."""

    copied: Tensor
    """(N,), int64: which photo that is."""

    thumbnails: Tensor
    """(N, 3, 64, 64), what repeats among the pictures are found by."""

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """Scores of several batches as one; there must be at least one batch."""
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def __len__(self) -> int:
        return len(self.distance)


class Reference:
    """The photos that pictures are compared with.

    Args:
        photos: uint8 (N, 3, H, W), at least 3.
        names: What to call them in verdicts; their numbers when left out.

    Raises:
        SettingError: If there are fewer than 3 photos.

    Example:
        >>> photos = torch.randint(0, 255, (5, 3, 32, 32), dtype=torch.uint8)
        >>> Reference(photos).scores(photos).new.max().item() < 0.01
        True
    """

    def __init__(self, photos: Tensor, *, names: Sequence[str] = ()) -> None:
        if len(photos) < 3:
            raise SettingError(f"at least 3 photos are needed to tell what is usual, got {len(photos)}; add photos")
        self.names = tuple(names) or tuple(map(str, range(len(photos))))
        self.features = describe(photos)
        self._thumbnails = [thumbnails(photos, zoom=zoom) for zoom in ZOOMS]
        among = group_distances(self.features, self.features)
        self._unit = {name: _leave_one_out(distances).median().clamp_min(1e-4) for name, distances in among.items()}
        self.own = _leave_one_out(self._combined(among))
        self.scale = self.own.median()
        self.copy_scale = float(_leave_one_out(self._copy_distances(self._thumbnails[0])).median().clamp_min(1e-4))

    def _combined(self, groups: dict[str, Tensor]) -> Tensor:
        """One distance from those of the groups, (N, M)."""
        return torch.stack([(groups[name] / unit).square() for name, unit in self._unit.items()]).mean(0).sqrt()

    def _copy_distances(self, small: Tensor) -> Tensor:
        """Of every thumbnail to every photo, at the magnification that brings them nearest, (N, M)."""
        return torch.stack([copy_distances(small, photos) for photos in self._thumbnails]).amin(0)

    def distances(self, features: Features) -> Tensor:
        """Distance of every picture to every photo, in units of ``scale``, (N, M)."""
        return self._combined(group_distances(features, self.features)) / self.scale

    def scores(self, images: Tensor) -> Scores:
        """Score pictures, uint8 (N, 3, H, W), at least one; each score depends on its own picture alone."""
        features, small = describe(images), thumbnails(images)
        d1, nearest = self.distances(features).min(1)
        copy, copied = (self._copy_distances(small) / self.copy_scale).min(1)
        dullest = self.features.spread.min().clamp_min(1e-3)
        return Scores(
            typical=1 / (1 + (d1 - 1).clamp_min(0)),
            alive=(features.spread / dullest).clamp(0, 1),
            new=(torch.minimum(d1, copy) / 0.5).clamp(0, 1),
            distance=d1,
            nearest=nearest,
            copy=copy,
            copied=copied,
            thumbnails=small,
        )


def _leave_one_out(distances: Tensor) -> Tensor:
    """Distance of each photo to the nearest other one, (N,)."""
    return distances.masked_fill(torch.eye(len(distances), dtype=torch.bool), torch.inf).amin(1)
