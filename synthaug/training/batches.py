"""Which photos, views and captions are in the batch of a step: a pure function of seed and step.

A batch is of one size. Buckets take turns: in a cycle of as many steps as there are photos (each counted as often as its repeats
say, divided by what the buckets' counts have in common), a bucket has as many steps as photos, in an order drawn for each cycle.
Within a step the bucket's photos are shuffled, and shown again when the batch is larger than the bucket. So over a cycle every photo
can be expected as often as its repeats say, whatever bucket it is in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from typing_extensions import override

from synthaug.errors import SettingError
from synthaug.records import Photo
from synthaug.seeds import seed_for
from synthaug.training.rows import Batch

__all__ = ["Drawn", "FromStep", "Order", "as_they_are", "kept_back"]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What is in a batch, row by row."""

    items: Tensor
    """Which picture, int64 (B,)."""

    views: Tensor
    """Which view of it, int64 (B,)."""

    captions: Tensor
    """Which of its captions, as a share of their number, (B,)."""

    captioned: Tensor
    """Whether it has a caption at all, bool (B,)."""

    regular: Tensor
    """Whether it is a regularisation picture, bool (B,)."""

    def part(self, rank: int, world: int) -> Drawn:
        """The part of one process of several."""
        count = len(self.items) // world
        mine = slice(rank * count, (rank + 1) * count)
        return Drawn(**{name: values[mine] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is drawn when."""

    buckets: tuple[Tensor, ...]
    """For each bucket the photos in it, int64 (N,); one that is shown twice as often stands there twice."""

    regular: tuple[Tensor, ...]
    """For each bucket the regularisation pictures that go with it; all empty when there are none."""

    share: Fraction = Fraction(0)
    """Share of regularisation pictures, 0 to 1."""

    views: int
    """Views of each photo that are trained on; regularisation pictures have one."""

    caption_dropout: float
    """Share of rows without a caption."""

    seed: int
    """Of everything."""

    def bucket(self, step: int) -> int:
        """The bucket of a step."""
        counts = [len(rows) for rows in self.buckets]
        common = math.gcd(*counts)
        turns = torch.tensor([bucket for bucket, count in enumerate(counts) for _ in range(count // common)])
        cycle, at = divmod(step, len(turns))
        generator = torch.Generator().manual_seed(seed_for(self.seed, "buckets", cycle))
        return int(turns[torch.randperm(len(turns), generator=generator)[at]])

    def draw(self, step: int, count: int) -> Drawn:
        """The batch of a step, of all processes together.

        Args:
            step: Which step.
            count: How many rows.
        """
        bucket = self.bucket(step) if len(self.buckets) > 1 else 0
        generator = torch.Generator().manual_seed(seed_for(self.seed, "batch", step))
        items = _shuffled(self.buckets[bucket], count, generator)
        views = torch.randint(self.views, (count,), generator=generator)
        captioned = torch.rand(count, generator=generator) >= self.caption_dropout
        captions = torch.rand(count, generator=torch.Generator().manual_seed(seed_for(self.seed, "captions", step)))
        regular = self._is_regular(step, count)
        if regular.any():
            others = _shuffled(self.regular[bucket], count, torch.Generator().manual_seed(seed_for(self.seed, "regular", step)))
            items, views = torch.where(regular, others, items), views.masked_fill(regular, 0)
        return Drawn(items=items, views=views, captions=captions, captioned=captioned, regular=regular)

    def _is_regular(self, step: int, count: int) -> Tensor:
        """Which rows are regularisation pictures: of all rows of a run, counted from its start, exactly the share, evenly spread."""
        first = step * count
        marks = [math.floor((row + 1) * self.share) > math.floor(row * self.share) for row in range(first, first + count)]
        return torch.tensor(marks, dtype=torch.bool)


def as_they_are(rows: Sequence[tuple[int, int]]) -> Drawn:
    """Rows and views by number, with their first caption.

    Example:
        >>> as_they_are([(3, 0), (5, 0)]).items
        tensor([3, 5])
    """
    items, views = torch.tensor(rows).T
    no = torch.zeros(len(rows), dtype=torch.bool)
    return Drawn(items=items, views=views, captions=torch.zeros(len(rows)), captioned=~no, regular=no)


def _shuffled(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` of the rows in random order, all of them before one comes again."""
    order = rows[torch.randperm(len(rows), generator=generator)]
    return order.repeat(-(-count // len(rows)))[:count]


def kept_back(photos: Sequence[Photo], count: int, *, seed: int) -> tuple[list[int], list[int]]:
    """Rows to train on and rows to measure on: groups are drawn until enough photos are kept back.

    Raises:
        SettingError: If fewer than two photos would be left to train on.
    """
    groups = sorted({photo.group for photo in photos}, key=lambda group: seed_for(seed, "held out", group))
    back: list[int] = []
    for group in groups:
        if len(back) >= count:
            break
        back += [row for row, photo in enumerate(photos) if photo.group == group]
    trained = [row for row in range(len(photos)) if row not in back]
    if len(trained) < 2:
        raise SettingError(
            f"at least two photos must be left to train on, {count} kept back in whole groups leave {len(trained)} of "
            f"{len(photos)}; use a smaller --data.held_out"
        )
    return trained, back


class FromStep(IterableDataset[Batch]):
    """``make(k)`` for k = first, first + 1, ... without end."""

    def __init__(self, make: Callable[[int], Batch], first: int) -> None:
        self._make, self._first = make, first

    @override
    def __iter__(self) -> Iterator[Batch]:
        step = self._first
        while True:
            yield self._make(step)
            step += 1
