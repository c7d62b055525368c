"""A pool of images: kept from pass to pass, and redrawn a share at a time."""

from __future__ import annotations

import random
from dataclasses import dataclass

from synthaug.errors import require
from synthaug.seeds import seed_for

__all__ = ["Pool"]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Keep a number of images, and redraw a share of them in each pass.

    Every pass hands out all of them, shuffled. A share is redrawn before each pass but the first: the places take
    turns in an order of the seed's, so none gets older than ``1 / refresh`` passes. Which images a pass has is a function of
    seed and number of the pass alone; with several workers or processes, each keeps its own places.

    Example:
        >>> pool = Pool(keep=5, refresh=0.4)
        >>> [sorted(pool.indices(0, number)) for number in range(3)]
        [[0, 1, 2, 3, 4], [0, 2, 4, 6, 8], [4, 5, 6, 7, 8]]

    A pool of generated samples that is refreshed while training: Shrivastava et al. 2017, https://arxiv.org/abs/1612.07828,
    section 2.3, keep a history of refined images in this way.
    """

    keep: int
    """Images in the pool, 1 or more."""

    refresh: float = 0.1
    """Share of them that is redrawn before each pass, 0 to 1; at least one image unless it is 0."""

    def __post_init__(self) -> None:
        require({
            "a pool must keep 1 image or more": (self.keep >= 1, self.keep),
            "the share of a pool that is redrawn must be from 0 to 1": (0 <= self.refresh <= 1, self.refresh),
        })  # fmt: skip

    @property
    def redrawn(self) -> int:
        """Images redrawn before each pass."""
        return max(1, round(self.keep * self.refresh)) if self.refresh else 0

    def indices(self, seed: int, number: int, *, part: int = 0, parts: int = 1) -> list[int]:
        """Requests of a pass, as indices into the plan, shuffled; only those of one part.

        Args:
            seed: Of the plan.
            number: Of the pass.
            part: Which part keeps the places.
            parts: How many parts there are.
        """
        current = self._current(seed, number)
        order = list(range(self.keep))
        random.Random(seed_for(seed, "pool", "order", number)).shuffle(order)  # noqa: S311  # an order, not a secret
        return [current[place] for place in order if place % parts == part]

    def replaced(self, seed: int, number: int, *, part: int = 0, parts: int = 1) -> list[int]:
        """Requests of the pass before that this one has replaced.

        Example:
            >>> Pool(keep=5, refresh=0.4).replaced(0, 1)
            [1, 3]
        """
        if number == 0:
            return []
        before, now = self._current(seed, number - 1), self._current(seed, number)
        return [before[place] for place in range(part, self.keep, parts) if before[place] != now[place]]

    def _current(self, seed: int, number: int) -> list[int]:
        """Request that each place holds: its own at first, then one further by ``keep`` each time that it is redrawn."""
        rounds, turns = divmod(self.redrawn * number, self.keep)
        order = list(range(self.keep))
        random.Random(seed_for(seed, "pool", "turns")).shuffle(order)  # noqa: S311
        early = set(order[:turns])
        return [place + self.keep * (rounds + (place in early)) for place in range(self.keep)]
