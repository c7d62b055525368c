"""From scores to verdicts: hard limits first, then repeats, then the best share of what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from synthaug.curation.near_copies import repeats
from synthaug.curation.scores import Reference, Scores
from synthaug.errors import SettingError
from synthaug.records import Verdict

__all__ = ["DAMAGED", "Limits", "count_reasons", "is_copy", "judge"]

DAMAGED = "damaged file"
"""How the reason of a sample begins that cannot be looked at."""

_KINDS = {
    "odd": "odd", "copy of": "copy of a photo", "repeat of": "repeat of another sample", "blank": "blank",
    "less typical": "less typical than the rest", DAMAGED: DAMAGED, "not a picture": "not a picture",
}  # fmt: skip
"""How a reason begins -> what it is called when reasons are counted."""

_UNIT = "where 1 is the distance between photos"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where a picture stops being usable."""

    farthest: float = 2.0
    """Odd beyond this many times the distance that photos keep from each other."""

    copy: float = 0.35
    """A copy below this many times the photos' own copy distance, see :mod:`synthaug.curation.near_copies`."""

    nearest: float = 0.33
    """A copy of a photo, too, below this many times the distance by features that photos keep from each other."""

    dullest: float = 0.3
    """Blank below this share of the dullest photo's contrast."""

    share: float = 0.7
    """Keep at most this share of all pictures, the most typical first; 1 keeps all that pass."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise SettingError(f"the share to keep must be in (0, 1], got {self.share}; 0.7 keeps seven in ten")
        if not 0 <= self.copy < 1:
            raise SettingError(f"the copy limit must be in [0, 1), got {self.copy}; at 1 half of the photos are copies of each other")
        if not 0 <= self.nearest < self.farthest:
            raise SettingError(
                f"the odd limit must be above the nearest distance allowed, {self.nearest}, got {self.farthest}; 2 is a good start"
            )


def judge(scores: Scores, reference: Reference, limits: Limits = Limits(), *, names: Sequence[str] = ()) -> list[Verdict]:
    """Verdict of every picture, in their order.

    No kept picture is a copy of a photo or of another kept picture. Of two that are alike the first is kept.

    Args:
        scores: As :meth:`Reference.scores` gives them.
        reference: The photos they were compared with.
        limits: Where to draw the lines.
        names: What to call the pictures in reasons; their numbers when left out.

    Example:
        >>> photos = torch.randint(0, 255, (5, 3, 32, 32), dtype=torch.uint8)
        >>> reference = Reference(photos, names=["a", "b", "c", "d", "e"])
        >>> judge(reference.scores(photos[2:3]), reference)[0].reason.split(":")[0]
        'copy of photo c'
    """
    names = names or [str(row) for row in range(len(scores))]
    reasons = [_reason(scores, row, reference, limits) for row in range(len(scores))]
    unlike = [row for row, reason in enumerate(reasons) if not reason]
    for row, (first, distance) in repeats(scores.thumbnails, unlike, limits.copy * reference.copy_scale).items():
        reasons[row] = f"repeat of sample {names[first]}: {distance / reference.copy_scale:.2f} as a picture, {_UNIT}"
    passing = [row for row in unlike if not reasons[row]]
    best = set(sorted(passing, key=lambda row: float(scores.distance[row]))[: round(limits.share * len(reasons))])
    return [
        Verdict(
            keep=row in best,
            reason=reason or ("" if row in best else f"less typical than the best {limits.share:.0%}: {_far(scores, row)}"),
            scores={name: round(float(getattr(scores, name)[row]), 4) for name in ("typical", "alive", "new")},
        )
        for row, reason in enumerate(reasons)
    ]


def is_copy(scores: Scores, limits: Limits) -> torch.Tensor:
    """Which pictures are copies of a photo, (N,) bool."""
    return (scores.copy < limits.copy) | (scores.distance < limits.nearest)


def count_reasons(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many were rejected for what, the commonest first.

    Example:
        >>> count_reasons([Verdict(keep=False, reason="odd: 2.1 times as far"), Verdict(keep=True)])
        {'odd': 1}
    """
    kinds = [next((kind for start, kind in _KINDS.items() if v.reason.startswith(start)), "other") for v in verdicts if not v.keep]
    return dict(sorted(Counter(kinds).items(), key=lambda item: (-item[1], item[0])))


def _reason(scores: Scores, row: int, reference: Reference, limits: Limits) -> str:
    """Why a picture cannot be used; "" if it can."""
    if not torch.isfinite(scores.distance[row]):
        return "not a picture: its features are not finite"
    if scores.alive[row] < limits.dullest:
        return f"blank: {float(scores.alive[row]):.0%} of the contrast of the dullest photo"
    if is_copy(scores, limits)[row]:
        by_look = scores.copy[row] < limits.copy
        photo = reference.names[int(scores.copied[row] if by_look else scores.nearest[row])]
        return f"copy of photo {photo}: {float(scores.copy[row]):.2f} as a picture, {float(scores.distance[row]):.2f} by features, {_UNIT}"
    if scores.distance[row] > limits.farthest:
        return f"odd: {_far(scores, row)}"
    return ""


def _far(scores: Scores, row: int) -> str:
    return f"{float(scores.distance[row]):.2f} times as far from the nearest photo as photos are from each other"
