from __future__ import annotations

import pytest
import torch

from synthaug.errors import SettingError
from synthaug.evaluation.intervals import over_photos, over_seeds, t_quantile
from synthaug.evaluation.metrics import auroc


@pytest.mark.parametrize(
    ("p", "df", "printed"),
    [
        (0.975, 1, 12.706), (0.975, 2, 4.303), (0.975, 3, 3.182), (0.975, 4, 2.776), (0.975, 5, 2.571), (0.975, 9, 2.262),
        (0.975, 30, 2.042), (0.975, 120, 1.980), (0.95, 4, 2.132), (0.995, 4, 4.604), (0.9995, 7, 5.408), (0.90, 1, 3.078),
    ],
)  # fmt: skip
def test_t_quantiles_equal_the_printed_table(p, df, printed):
    assert t_quantile(p, df) == pytest.approx(printed, abs=6e-4)


def test_t_quantiles_lie_even_around_0():
    assert t_quantile(0.5, 4) == pytest.approx(0, abs=1e-9)
    assert t_quantile(0.1, 4) == pytest.approx(-t_quantile(0.9, 4))


def test_the_interval_over_seeds_is_that_of_the_paired_t_test():
    change = over_seeds([0.80, 0.84, 0.79, 0.85, 0.82], [0.86, 0.87, 0.88, 0.89, 0.90])

    # gaps .06 .03 .09 .04 .08: mean .06, standard deviation .025495, 2.7764 * .025495 / sqrt(5) = .031656
    assert change.mean == pytest.approx(0.06)
    assert (change.low, change.high) == pytest.approx((0.028344, 0.091656), abs=1e-5)


def test_what_is_common_to_a_pair_does_not_widen_the_interval():
    seeds = [0.5, 0.9, 0.6, 0.8, 0.7]

    change = over_seeds(seeds, [figure + 0.01 for figure in seeds])

    assert change.sign == 1


def test_t_intervals_hold_the_truth_as_often_as_they_say():
    gaps = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3

    held = [change.low < 0.3 < change.high for change in (over_seeds([0.0] * 5, row) for row in gaps.tolist())]

    assert sum(held) / 2000 == pytest.approx(0.95, abs=0.015)


def test_one_pair_has_no_interval():
    with pytest.raises(SettingError, match="the same 2 or more seeds on both sides, got 1 and 1"):
        over_seeds([0.5], [0.6])


def test_a_quantile_of_probability_1_is_refused():
    with pytest.raises(SettingError, match="probability between 0 and 1 and at least 1 degree of freedom, got 1 and 4"):
        t_quantile(1, 4)


def test_the_change_over_photos_is_the_mean_change_of_auroc():
    labels = (torch.arange(23) < 9).long()
    before, after = torch.rand(2, 5, 23, generator=torch.Generator().manual_seed(1)).unbind(0)

    change = over_photos(before, after, labels)

    expected = sum(auroc(b, labels) - auroc(a, labels) for a, b in zip(before, after, strict=True)) / 5
    assert change.mean == pytest.approx(expected)
    assert change.low < change.mean < change.high


def test_the_interval_over_photos_narrows_with_the_number_of_photos():
    def width(copies: int) -> float:
        labels = (torch.arange(20) < 10).long().repeat(copies)
        before, after = torch.rand(2, 1, 20 * copies, generator=torch.Generator().manual_seed(2)).unbind(0)
        change = over_photos(before, after, labels)
        return change.high - change.low

    assert width(16) == pytest.approx(width(1) / 4, rel=0.35)


def test_the_interval_over_photos_is_about_that_of_hanley_and_mcneil():
    labels = (torch.arange(200) < 100).long()
    scores = torch.randn(1, 200, generator=torch.Generator().manual_seed(3)) + 1.2 * labels
    a = auroc(scores[0], labels)
    variance = (a * (1 - a) + 99 * (a / (2 - a) - a * a) + 99 * (2 * a * a / (1 + a) - a * a)) / 100**2

    change = over_photos(torch.zeros(1, 200), scores, labels)

    assert change.high - change.low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.2)
