"""The outcome of an evaluation: figures, a table, and a sentence that says plainly whether it helped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from synthaug.evaluation.intervals import Difference

__all__ = ["FEW", "FEWEST", "Arm", "Gain"]

FEW = 20
"""A test set with fewer photos of a kind is called small."""

FEWEST = 10
"""With fewer test photos of a kind nothing is claimed: a bootstrap of so few is too sure of itself."""

SATURATED = 0.995
"""A mean AUROC from here on leaves nothing to gain."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Figures of one way of training, one per seed."""

    auroc: tuple[float, ...]
    """Image AUROC on the test photos."""

    ap: tuple[float, ...]
    """Average precision on the test photos."""

    @property
    def means(self) -> tuple[float, float]:
        """AUROC and AP, averaged over seeds."""
        return sum(self.auroc) / len(self.auroc), sum(self.ap) / len(self.ap)


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What synthetic images did for a detector, paired over seeds.

    Example:
        >>> from synthaug.evaluation.intervals import over_seeds
        >>> real, mixed = Arm(auroc=(0.80, 0.84), ap=(0.7, 0.7)), Arm(auroc=(0.90, 0.95), ap=(0.8, 0.8))
        >>> gap = over_seeds(real.auroc, mixed.auroc)
        >>> counts = {"good test": 50, "defect test": 50}
        >>> Gain(real=real, mixed=mixed, auroc=gap, ap=gap, over_photos=gap, counts=counts, steps=150).verdict
        'helped'
    """

    real: Arm
    """Trained on real photos only."""

    mixed: Arm
    """Trained on real photos and synthetic images, with the same seeds and steps."""

    auroc: Difference
    """AUROC, mixed minus real, with Student's t interval over seeds."""

    ap: Difference
    """The same of average precision."""

    over_photos: Difference
    """AUROC, mixed minus real, with a bootstrap interval over test photos."""

    counts: Mapping[str, int]
    """How many pictures of each kind."""

    steps: int
    """Optimiser steps of every training."""

    cautions: tuple[str, ...] = ()
    """What could not be checked, in sentences."""

    @property
    def verdict(self) -> Literal["helped", "unclear", "worse"]:
        """Helped or worse only if both intervals, over seeds and over 10 or more test photos of a kind, lie on that side of 0."""
        if self._fewest() < FEWEST:
            return "unclear"
        signs = {self.auroc.sign, self.over_photos.sign}
        return "helped" if signs == {1} else "worse" if signs == {-1} else "unclear"

    @property
    def sentence(self) -> str:
        """The outcome in words, with every reservation."""
        before, after = self.real.means[0], self.mixed.means[0]
        seeds = len(self.real.auroc)
        moved = f"AUROC went from {before:.3f} to {after:.3f}, {_of(self.auroc)} over {seeds} seeds: "
        return " ".join([moved + self._outcome(), *self._reservations(), *self.cautions])

    def table(self) -> str:
        """Figures per seed, means and intervals as plain text."""
        rows = [("seed", "AUROC real", "with synthetic", "change", "AP real", "with synthetic", "change")]
        columns = (self.real.auroc, self.mixed.auroc, self.real.ap, self.mixed.ap)
        lines = [(str(seed), *figures) for seed, figures in enumerate(zip(*columns, strict=True))]
        lines.append(("mean", self.real.means[0], self.mixed.means[0], self.real.means[1], self.mixed.means[1]))
        for name, a, b, c, d in lines:
            rows.append((name, f"{a:.3f}", f"{b:.3f}", f"{b - a:+.3f}", f"{c:.3f}", f"{d:.3f}", f"{d - c:+.3f}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        text = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        notes = [
            f"AUROC change {_of(self.auroc)} over seeds, 95 % CI {_range(self.over_photos)} over test photos",
            f"AP change {_of(self.ap)} over seeds; guessing would have AP {self._share():.3f}",
            ", ".join(f"{count} {kind}" for kind, count in self.counts.items()) + f"; {self.steps} steps for every detector",
        ]
        return "\n".join([*text, "", *notes])

    def to_json(self) -> dict[str, Any]:
        """All figures, the verdict, the sentence and the table as plain data."""
        return {**asdict(self), "counts": dict(self.counts), "verdict": self.verdict, "sentence": self.sentence, "table": self.table()}

    def _outcome(self) -> str:
        if self.verdict == "helped":
            return "the synthetic images helped."
        if self.verdict == "worse":
            return "it got worse; leave the synthetic images out, or screen them harder."
        if self.auroc.sign == 0:
            return "the interval contains 0: no difference can be claimed."
        if self._fewest() < FEWEST:
            return f"with fewer than {FEWEST} test photos of a kind no difference can be claimed."
        return (
            f"on these test photos it {'rose' if self.auroc.sign > 0 else 'fell'}, but with others it might not "
            f"(95 % CI {_range(self.over_photos)} over test photos): no difference can be claimed."
        )

    def _reservations(self) -> list[str]:
        said = []
        small = {kind: self.counts[kind] for kind in ("good test", "defect test") if self.counts[kind] < FEW}
        if small:
            listed = " and ".join(f"{count} {kind} photo{'s' * (count != 1)}" for kind, count in small.items())
            share = 1 / min(small.values())
            said.append(f"The test set is small ({listed}): a single photo can move AUROC by up to {share:.2f}.")
        if self.real.means[0] >= SATURATED:
            said.append("Without synthetic images AUROC is as good as 1 already: a harder test set is needed to see a difference.")
        return said

    def _fewest(self) -> int:
        return min(self.counts["defect test"], self.counts["good test"])

    def _share(self) -> float:
        return self.counts["defect test"] / (self.counts["defect test"] + self.counts["good test"])


def _of(change: Difference) -> str:
    return f"{change.mean:+.3f} (95 % CI {_range(change)})"


def _range(change: Difference) -> str:
    return f"{change.low:+.3f} to {change.high:+.3f}"
