from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from synthaug.errors import SettingError
from synthaug.evaluation.metrics import auroc, average_precision


def some_scores(seed: int, *, tied: bool):
    """Scores of 37 pictures, 1 to 36 of them defects; with ties, only five values occur."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(37) < 1 + 7 * (seed % 6)).long()[torch.randperm(37, generator=generator)]
    scores = (torch.rand(37, generator=generator) + 0.3 * labels) / 1.3
    return ((scores * 5).floor() / 5 if tied else scores), labels


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_auroc_and_ap_equal_those_of_torchmetrics(seed, tied):
    scores, labels = some_scores(seed, tied=tied)

    assert auroc(scores, labels) == pytest.approx(float(binary_auroc(scores, labels)), abs=1e-6)
    assert average_precision(scores, labels) == pytest.approx(float(binary_average_precision(scores, labels)), abs=1e-6)


def test_equal_scores_are_worth_a_guess():
    labels = torch.tensor([1, 0, 0, 0])

    assert auroc(torch.full((4,), 0.7), labels) == 0.5
    assert average_precision(torch.full((4,), 0.7), labels) == 0.25


def test_the_order_of_the_pictures_does_not_matter():
    scores, labels = some_scores(2, tied=True)
    order = torch.randperm(37, generator=torch.Generator().manual_seed(5))

    assert auroc(scores[order], labels[order]) == pytest.approx(auroc(scores, labels))
    assert average_precision(scores[order], labels[order]) == pytest.approx(average_precision(scores, labels))


@pytest.mark.parametrize("metric", [auroc, average_precision])
def test_a_test_set_without_defects_is_refused(metric):
    with pytest.raises(SettingError, match="both good and defect pictures are needed, got 3 good and 0 defect"):
        metric(torch.rand(3), torch.zeros(3, dtype=torch.long))


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(SettingError, match="scores must be finite, 1 of 2 are not"):
        auroc(torch.tensor([0.5, float("nan")]), torch.tensor([0, 1]))
