"""Is a run still getting better? Read from the loss on photos, or views, that were kept back.

The loss is measured on the same noise at the same time steps each time, so that it moves only because the weights do. They move
to and fro while the learning rate is high, by some per cent from one measurement to the next; towards the end they settle, by
tenths of a per cent. What follows from that is told in docs/decisions/0009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["Progress"]

TIE = 0.01
"""Losses that differ by less than this share are taken for equal; the later step then wins."""

WINDOW = 3
"""Whether a run gets worse is read from the mean of so many measurements."""


@dataclass(kw_only=True)
class Progress:
    """Every measurement so far.

    Example:
        >>> progress = Progress()
        >>> for step, loss in enumerate([0.5, 0.4, 0.45, 0.402]):
        ...     progress.add(step, loss)
        >>> progress.kept
        (3, 0.402)
    """

    measured: list[tuple[int, float]] = field(default_factory=list)
    """Step and loss."""

    def add(self, step: int, loss: float) -> None:
        """Take a measurement; one that is no number counts as infinitely bad."""
        self.measured.append((step, loss if math.isfinite(loss) else math.inf))

    @property
    def lowest(self) -> tuple[int, float] | None:
        """Step and loss of the lowest measurement; None before the first that is a number."""
        found = min(self.measured, key=lambda one: one[1], default=None)
        return found if found is not None and found[1] < math.inf else None

    @property
    def kept(self) -> tuple[int, float] | None:
        """The step whose weights are the run's result: the last one that was about as good as the lowest."""
        if self.lowest is None:
            return None
        limit = self.lowest[1] * (1 + TIE)
        return next(one for one in reversed(self.measured) if one[1] <= limit)

    @property
    def worse(self) -> int:
        """So many measurements in a row, up to now, lay above the lowest, each as the mean of it and the two before."""
        losses = [loss for _, loss in self.measured]
        means = [sum(part) / len(part) for part in (losses[max(0, at - WINDOW + 1) : at + 1] for at in range(len(losses)))]
        limit = min(means, default=math.inf) * (1 + TIE)
        return next((count for count, mean in enumerate(reversed(means)) if mean <= limit), 0)
