"""How well scores put defects above sound pictures; pure functions of scores and labels.

Code name   Meaning
scores      s_i, (N,), higher = more likely a defect
labels      y_i, (N,), 1 = defect, 0 = good
wins        W_ij, (P, Q), 1 where defect i scores above good j, 1/2 where they tie, else 0

AUROC is the mean of W, the Mann-Whitney statistic: Hanley & McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747.
AP is the step sum over thresholds, not a trapezoid: Davis & Goadrich 2006, https://doi.org/10.1145/1143844.1143874.
"""

from __future__ import annotations

import torch
from torch import Tensor

from synthaug.errors import SettingError

__all__ = ["auroc", "average_precision", "wins"]


def auroc(scores: Tensor, labels: Tensor) -> float:
    """Chance that a random defect scores above a random good picture, ties counted half.

    It does not depend on how many defects there are; 0.5 is guessing, 1 is perfect.

    Args:
        scores: (N,), higher = defect.
        labels: (N,), 1 = defect, 0 = good; both must occur.

    Raises:
        SettingError: If a class is missing or a score is not finite.

    Example:
        >>> auroc(torch.tensor([0.9, 0.4, 0.4, 0.1]), torch.tensor([1, 1, 0, 0]))
        0.875
    """
    return float(wins(scores, labels).mean())


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Precision averaged over recall, sum of (R_n - R_n-1) P_n; pictures that tie share one threshold.

    It depends on the share of defects, so it compares detectors on one test set only; guessing gives that share.

    Args:
        scores: (N,), higher = defect.
        labels: (N,), 1 = defect, 0 = good; both must occur.

    Raises:
        SettingError: If a class is missing or a score is not finite.

    Example:
        >>> round(average_precision(torch.tensor([0.9, 0.4, 0.4, 0.1]), torch.tensor([1, 1, 0, 0])), 4)
        0.8333
    """
    _check(scores, labels)
    ordered, order = scores.double().sort(descending=True)
    found = labels[order].double().cumsum(0)
    last_of_tie = torch.cat([ordered.diff() != 0, torch.tensor([True])])
    precision = found / torch.arange(1, len(found) + 1)
    recall = found / found[-1]
    steps = recall[last_of_tie].diff(prepend=torch.zeros(1, dtype=torch.float64))
    return float((steps * precision[last_of_tie]).sum())


def wins(scores: Tensor, labels: Tensor) -> Tensor:
    """Every defect against every good picture: float64 (P, Q), 1 won, 1/2 tied, 0 lost.

    Raises:
        SettingError: If a class is missing or a score is not finite.
    """
    _check(scores, labels)
    defect, good = scores[labels == 1].double(), scores[labels == 0].double()
    above = defect[:, None] - good[None]
    return (above > 0).double() + 0.5 * (above == 0).double()


def _check(scores: Tensor, labels: Tensor) -> None:
    defects, goods = int((labels == 1).sum()), int((labels == 0).sum())
    if scores.shape != labels.shape or defects + goods != len(labels):
        raise SettingError(f"each score needs a label 0 or 1, got {tuple(scores.shape)} scores and {tuple(labels.shape)} labels")
    if not defects or not goods:
        raise SettingError(f"both good and defect pictures are needed, got {goods} good and {defects} defect; add the missing kind")
    if not scores.isfinite().all():
        raise SettingError(f"scores must be finite, {int((~scores.isfinite()).sum())} of {len(scores)} are not")
