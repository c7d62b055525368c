"""A difference between two ways of training, and how sure one can be of it.

Code name   Paper     Meaning
t           t         bound of Student's distribution
df          nu        degrees of freedom, number of pairs - 1
theta       theta     atan(t / sqrt(nu))

Student's distribution for whole nu: Abramowitz & Stegun 26.7.3 and 26.7.4, https://personal.math.ubc.ca/~cbm/aands/page_948.htm.
Bootstrap, percentile interval: Efron & Tibshirani 1993, chapter 13.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.errors import SettingError
from synthaug.evaluation.metrics import wins

__all__ = ["Difference", "over_photos", "over_seeds", "t_quantile"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean difference with its confidence interval."""

    mean: float
    """With synthetic images minus without; above 0 = they helped."""

    low: float
    """Lower end of the interval."""

    high: float
    """Upper end of the interval."""

    @property
    def sign(self) -> int:
        """1 if the whole interval lies above 0, -1 if below, 0 if it contains 0."""
        return int(self.low > 0) - int(self.high < 0)


def over_seeds(before: Sequence[float], after: Sequence[float], *, level: float = 0.95) -> Difference:
    """Mean of paired differences with Student's t interval.

    The interval covers what chance in training does (initial weights, order, augmentation) with these
    training and test photos. It says nothing of other test photos: see :func:`over_photos`.

    Args:
        before: One figure per seed, without synthetic images.
        after: The figures of the same seeds with them.
        level: Confidence, between 0 and 1.

    Raises:
        SettingError: If there are fewer than 2 pairs or the numbers differ.

    Example:
        >>> over_seeds([0.80, 0.82, 0.81], [0.90, 0.92, 0.94]).sign
        1
    """
    if len(before) != len(after) or len(before) < 2:
        raise SettingError(f"a paired interval needs the same 2 or more seeds on both sides, got {len(before)} and {len(after)}")
    gaps = torch.tensor(after, dtype=torch.float64) - torch.tensor(before, dtype=torch.float64)
    half = t_quantile(0.5 + level / 2, len(gaps) - 1) * float(gaps.std()) / math.sqrt(len(gaps))
    mean = float(gaps.mean())
    return Difference(mean=mean, low=mean - half, high=mean + half)


def over_photos(
    before: Tensor, after: Tensor, labels: Tensor, *, level: float = 0.95, draws: int = 4000, seed: int = 0
) -> Difference:  # fmt: skip
    """AUROC difference averaged over seeds, with a paired bootstrap interval over the test photos.

    Test photos are drawn again with replacement, good ones and defects apart, the same ones for both
    sides. The interval covers which photos happened to be in the test set, with the detectors as they
    were trained; photos of one part count as independent, so parts shown many times make it too narrow.

    Args:
        before: Scores without synthetic images, (S, N), one row per seed.
        after: Scores with them, (S, N).
        labels: (N,), 1 = defect, 0 = good.
        level: Confidence, between 0 and 1.
        draws: How many test sets to draw.
        seed: Equal seeds give equal intervals.

    Raises:
        SettingError: If a class is missing or a score is not finite.
    """
    gap = torch.stack([wins(b, labels) - wins(a, labels) for a, b in zip(before, after, strict=True)]).mean(0)
    generator = torch.Generator().manual_seed(seed)
    defects, goods = (_resampled(n, draws, generator) for n in gap.shape)
    drawn = ((defects @ gap) * goods).sum(1)
    low, high = drawn.quantile(torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)).tolist()
    return Difference(mean=float(gap.mean()), low=low, high=high)


def t_quantile(p: float, df: int) -> float:
    """The t that a Student variable with ``df`` degrees of freedom stays below with probability ``p``.

    Args:
        p: Probability, between 0 and 1.
        df: Degrees of freedom, at least 1.

    Raises:
        SettingError: If ``p`` or ``df`` is out of range.

    Example:
        >>> round(t_quantile(0.975, 4), 3)
        2.776
    """
    if not 0 < p < 1 or df < 1:
        raise SettingError(f"a t quantile needs a probability between 0 and 1 and at least 1 degree of freedom, got {p} and {df}")
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        theta = (low + high) / 2
        low, high = (theta, high) if _within(theta, df) < abs(2 * p - 1) else (low, theta)
    return math.copysign(math.tan(low) * math.sqrt(df), p - 0.5)


def _within(theta: float, df: int) -> float:
    """A(t | nu), the probability that |T| <= t."""
    c, s = math.cos(theta), math.sin(theta)
    odd = df % 2
    term, total = (c, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, df, 2):  # odd: cos, 2/3 cos^3, ...; even: 1, 1/2 cos^2, ...
        total += term
        term *= c * c * k / (k + 1)
    return 2 / math.pi * (theta + s * total) if odd else s * total


def _resampled(count: int, draws: int, generator: torch.Generator) -> Tensor:
    """How often each of ``count`` things is drawn, as a share: float64 (draws, count), rows sum to 1."""
    picks = torch.randint(count, (draws, count), generator=generator)
    return torch.zeros(draws, count, dtype=torch.float64).scatter_add_(1, picks, torch.full((draws, count), 1 / count, dtype=torch.float64))
