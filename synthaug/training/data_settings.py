"""What was asked for, what the file of the photos says, what is usual: in this order."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypeVar

from synthaug.errors import require
from synthaug.photos.buckets import Buckets
from synthaug.photos.kohya import SetSettings

__all__ = ["DataSettings", "Facts", "settled"]

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Settings that a file of photos may carry; None where nothing was said."""

    size: tuple[int, int] | None = None
    batch_size: int | None = None
    buckets: Buckets | None = None
    flip: bool | None = None
    caption_dropout: float | None = None
    outside_mask: float | None = None

    def __post_init__(self) -> None:
        require({
            "batch_size must be at least 1": (self.batch_size is None or self.batch_size >= 1, self.batch_size),
            "outside_mask must be from 0 to 1; 1 leaves masks aside": (self.outside_mask is None or 0 <= self.outside_mask <= 1, self.outside_mask),
            "caption_dropout must be from 0 to 1; 0.1 is usual": (
                self.caption_dropout is None or 0 <= self.caption_dropout <= 1, self.caption_dropout,
            ),
            "size must be [height, width], each a multiple of 8": (self.size is None or all(s >= 8 and s % 8 == 0 for s in self.size), self.size),
        })  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The same when everything is decided."""

    size: tuple[int, int]
    batch_size: int
    buckets: Buckets
    flip: bool
    caption_dropout: float
    outside_mask: float


def settled(given: DataSettings, found: SetSettings, size: tuple[int, int]) -> Settled:
    """Decide every setting; an option that contradicts the file counts, and the contradiction is said.

    Args:
        given: What was asked for.
        found: What the file says.
        size: The base's own size.

    Raises:
        SettingError: If the file says something that cannot be used.

    Example:
        >>> settled(DataSettings(batch_size=2), SetSettings(flip=True), (64, 64)).flip
        True
    """
    outside = None if found.masked is None else 1.0 - found.masked
    file = DataSettings(
        size=found.size, batch_size=found.batch_size, buckets=found.buckets, flip=found.flip, caption_dropout=found.caption_dropout,
        outside_mask=outside,
    )  # fmt: skip

    def one(name: str, usual: T) -> T:
        option, says = getattr(given, name), getattr(file, name)
        if option is not None and says is not None and option != says:
            log.warning("%s is %s by option and %s in the file of the photos; the option counts", name, option, says)
        chosen: T = next((value for value in (option, says) if value is not None), usual)
        return chosen

    return Settled(
        size=one("size", size), batch_size=one("batch_size", 4), buckets=one("buckets", Buckets()), flip=one("flip", usual=False),
        caption_dropout=one("caption_dropout", 0.1), outside_mask=one("outside_mask", 1.0),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What became of the photos, for the report of a run."""

    photos: int
    """Photos trained on."""

    held_out: int
    """Photos kept back."""

    held_out_views: int
    """Views of each photo kept back."""

    regular: int
    """Regularisation pictures."""

    views: int
    """Views of each photo that are trained on."""

    captions: int
    """Different captions, the empty one included."""

    buckets: tuple[tuple[tuple[int, int], int], ...]
    """Size and number of photos of each bucket."""

    magnified: int
    """Photos smaller than the size they are trained at."""

    cache: str
    """Folder of the cache; "" without one."""

    cache_trouble: str
    """Why it could not be written; "" if it could."""

    found: int
    """Entries that were in the cache."""

    made: int
    """Entries that were encoded."""

    damaged: int
    """Entries of the cache that were damaged and encoded again."""

    loaded: tuple[str, ...]
    """Encoders that had to be loaded."""

    repairs: int
    """Pictures encoded again in fp32 because the encoder answered NaN."""

    seconds: float
    """Time that reading and encoding took."""
