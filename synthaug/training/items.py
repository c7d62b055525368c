"""Every picture of a run with the size it is trained at."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from synthaug.photos.buckets import Buckets
from synthaug.photos.folder import PhotoFolder
from synthaug.photos.tags import CaptionRules
from synthaug.pixels import picture_size
from synthaug.records import Photo

__all__ = ["Item", "items_of", "magnified", "regular_items", "rows_by_size"]

log = logging.getLogger(__name__)

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture at one size."""

    photo: Photo
    """The picture."""

    rules: CaptionRules
    """How its caption may vary."""

    own: Size
    """Height and width of its file."""

    size: Size
    """Height and width it is trained at."""

    repeats: int = 1
    """How often it is shown against the others."""

    regular: bool = False
    """Whether it is a regularisation picture."""


def items_of(folder: PhotoFolder, rules: Sequence[CaptionRules], buckets: Buckets, like: Size) -> list[Item]:
    """The photos of a folder, each at the size of its bucket.

    Args:
        folder: The photos.
        rules: One for each.
        buckets: Which sizes there are.
        like: The size whose area is aimed at.

    Raises:
        SettingError: If no bucket fits the size.
        PhotoFolderError: If a photo is too small and must not be magnified.
    """
    repeats = folder.repeats or (1,) * len(folder.photos)
    found = []
    for photo, rule, times in zip(folder.photos, rules, repeats, strict=True):
        own = picture_size(photo.path)
        found.append(Item(photo=photo, rules=rule, own=own, size=buckets.size_for(own, like), repeats=times))
    return found


def regular_items(folder: PhotoFolder, rules: Sequence[CaptionRules], sizes: Iterable[Size]) -> list[Item]:
    """Regularisation pictures, at the sizes that photos are trained at.

    A picture goes to the size nearest to its shape; a size that would get none takes all of them.

    Args:
        folder: The pictures.
        rules: One for each.
        sizes: Sizes of the photos' buckets.
    """
    wanted = sorted(set(sizes))
    all_of_one = items_of(folder, rules, Buckets(), wanted[0])
    nearest = [min(wanted, key=lambda size: abs(math.log(item.own[0] / item.own[1] * size[1] / size[0]))) for item in all_of_one]
    return [
        replace(item, size=size, regular=True)
        for size in wanted
        for item, near in zip(all_of_one, nearest, strict=True)
        if near == size or size not in nearest
    ]


def rows_by_size(items: Sequence[Item], rows: Iterable[int]) -> dict[Size, Tensor]:
    """Items by size, int64 (N,) each, in their order, each as often as its repeats say."""
    found: dict[Size, list[int]] = {}
    for row in rows:
        found.setdefault(items[row].size, []).extend([row] * items[row].repeats)
    return {size: torch.tensor(found[size]) for size in sorted(found)}


def magnified(items: Sequence[Item]) -> int:
    """How many photos are smaller than the size they are trained at; says so if there are any."""
    small = [item for item in items if not item.regular and (item.own[0] < item.size[0] or item.own[1] < item.size[1])]
    if small:
        least = min(small, key=lambda item: item.own[0] * item.own[1])
        log.warning(
            "%d of %d photos are smaller than they are trained at and are magnified, the smallest is %s (%d x %d to %d x %d); take larger "
            "photos, or a smaller --data.size",
            len(small), sum(not item.regular for item in items), least.photo.path.name, *least.own, *least.size,
        )  # fmt: skip
    return len(small)
