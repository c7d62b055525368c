"""What a set of pictures is like as a whole, in numbers that still mean something with twenty photos.

FID and KID are left out on purpose: with so few photos they praise a model that repeats them.
"""

from __future__ import annotations

from dataclasses import dataclass

from synthaug.curation.scores import Reference, Scores
from synthaug.curation.selection import Limits, is_copy

__all__ = ["SetReport", "report"]


@dataclass(frozen=True, kw_only=True)
class SetReport:
    """How a set of pictures compares with the photos."""

    images: int
    """How many pictures."""

    photos: int
    """How many photos."""

    distance_ratio: float
    """Median distance to the nearest photo over the photos' own leave-one-out median: 1 is as alike as photos are."""

    copy_share: float
    """Share of copies of a photo, 0 to 1."""

    photos_met: int
    """How many photos are the nearest one of some picture; few of them mean that the pictures are all alike."""

    def __str__(self) -> str:
        return (
            f"distance ratio {self.distance_ratio:.2f} (1 = as far from the nearest photo as photos are from each other), "
            f"near-copies {self.copy_share:.1%}, {self.photos_met} of {self.photos} photos are the nearest of some image"
        )


def report(scores: Scores, reference: Reference, limits: Limits = Limits()) -> SetReport:
    """Sum up the scores of a set of pictures, rejected ones included.

    Args:
        scores: As :meth:`Reference.scores` gives them, of at least one picture.
        reference: The photos they were compared with.
        limits: What counts as a copy.

    Example:
        >>> import torch
        >>> photos = torch.randint(0, 255, (5, 3, 32, 32), dtype=torch.uint8)
        >>> reference = Reference(photos)
        >>> found = report(reference.scores(photos), reference)
        >>> found.copy_share, found.photos_met
        (1.0, 5)
    """
    return SetReport(
        images=len(scores),
        photos=len(reference.names),
        distance_ratio=round(float(scores.distance.median()), 4),
        copy_share=round(float(is_copy(scores, limits).float().mean()), 4),
        photos_met=len(set(scores.nearest.tolist())),
    )
