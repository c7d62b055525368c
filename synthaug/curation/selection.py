"""From scores to verdicts: hard limits first, then the best share of what is left."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from synthaug.curation.scores import Scores
from synthaug.errors import SettingError
from synthaug.records import Verdict

__all__ = ["Limits", "judge"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where a picture stops being usable."""

    farthest: float = 2.0
    """Odd beyond this many times the distance that photos keep from each other."""

    copy: float = 0.33
    """A copy of a photo below this many times that distance."""

    dullest: float = 0.3
    """Blank below this share of the dullest photo's contrast."""

    share: float = 0.7
    """Keep at most this share of all pictures, the most typical first; 1 keeps all that pass."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise SettingError(f"the share to keep must be in (0, 1], got {self.share}; 0.7 keeps seven in ten")
        if not 0 <= self.copy < self.farthest:
            raise SettingError(f"the copy limit must be at least 0 and below the odd limit {self.farthest}, got {self.copy}")


def judge(scores: Scores, limits: Limits = Limits()) -> list[Verdict]:
    """Verdict of every picture, in their order.

    Args:
        scores: As :meth:`Reference.scores` gives them.
        limits: Where to draw the lines.
    """
    reasons = [_reason(scores, row, limits) for row in range(len(scores.typical))]
    passing = [row for row, reason in enumerate(reasons) if not reason]
    room = round(limits.share * len(reasons))
    best = set(sorted(passing, key=lambda row: float(scores.distance[row]))[:room])
    return [
        Verdict(
            keep=row in best,
            reason=reason or ("" if row in best else f"less typical than the best {limits.share:.0%} ({_far(scores, row)})"),
            scores={name: round(float(getattr(scores, name)[row]), 4) for name in ("typical", "alive", "new")},
        )
        for row, reason in enumerate(reasons)
    ]


def _reason(scores: Scores, row: int, limits: Limits) -> str:
    """Why a picture cannot be used; "" if it can."""
    if not torch.isfinite(scores.distance[row]):
        return "not a picture: its features are not finite"
    if scores.alive[row] < limits.dullest:
        return f"blank: {float(scores.alive[row]):.0%} of the contrast of the dullest photo"
    if scores.distance[row] < limits.copy:
        return f"copy of photo {int(scores.nearest[row])}: {_far(scores, row)}"
    if scores.distance[row] > limits.farthest:
        return f"odd: {_far(scores, row)}"
    return ""


def _far(scores: Scores, row: int) -> str:
    return f"{float(scores.distance[row]):.2f} times as far from the nearest photo as photos are from each other"
