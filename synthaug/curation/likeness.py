"""How drawn images relate to the photos, in three numbers: what a run of training is handed to watch itself with.

Coverage: Naeem et al. 2020, https://arxiv.org/abs/2002.09797, on the hand-made features of
:mod:`synthaug.curation.features`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from synthaug.curation.features import describe
from synthaug.curation.scores import Reference
from synthaug.curation.selection import Limits, is_copy
from synthaug.errors import SettingError

__all__ = ["PhotoLikeness"]


class PhotoLikeness:
    """Compare images with photos.

    Args:
        limits: From where on an image is a copy; its other limits do not matter here.
        neighbours: A photo is covered when an image is as near to it as its so many nearest other photos are.

    Raises:
        SettingError: If ``neighbours`` is below 1.

    Example:
        >>> photos = torch.randint(0, 255, (5, 3, 32, 32), dtype=torch.uint8)
        >>> PhotoLikeness(neighbours=2).score(photos[:3], photos)["copy_rate"]
        1.0
    """

    def __init__(self, *, limits: Limits = Limits(), neighbours: int = 5) -> None:
        if neighbours < 1:
            raise SettingError(f"neighbours must be at least 1, got {neighbours}; 5 is usual")
        self._limits, self._neighbours = limits, neighbours
        self._reference: tuple[Tensor, Reference] | None = None

    def score(self, images: Tensor, photos: Tensor) -> dict[str, float]:
        """Compare.

        Args:
            images: uint8 (N, 3, H, W), at least one.
            photos: uint8 (M, 3, H, W), at least 3.

        Returns:
            ``copy_rate``, the share of images that are copies of a photo; ``coverage``, the share of photos that have an image
            near them; ``distance_ratio``, the median distance of an image to its nearest photo, 1 = as far as photos are from
            each other.

        Raises:
            SettingError: If there are too few photos.
        """
        reference = self._of(photos)
        scores = reference.scores(images)
        among = reference.distances(reference.features)
        reach = among.sort(1).values[:, min(self._neighbours, len(photos) - 1)]  # the nearest is the photo itself
        near = reference.distances(describe(images)).amin(0) <= reach
        return {
            "copy_rate": float(is_copy(scores, self._limits).float().mean()),
            "coverage": float(near.float().mean()),
            "distance_ratio": float(torch.median(scores.distance)),
        }

    def _of(self, photos: Tensor) -> Reference:
        """The photos' description, made once for the same photos."""
        if self._reference is None or self._reference[0] is not photos:
            self._reference = (photos, Reference(photos))
        return self._reference[1]
