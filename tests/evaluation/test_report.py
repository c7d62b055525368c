from __future__ import annotations

import json

import pytest

from synthaug.evaluation.intervals import Difference, over_seeds
from synthaug.evaluation.report import Arm, Gain


def gain(before, after, *, photos=None, test=(50, 60), cautions=()) -> Gain:
    """A gain with these AUROCs; AP is 0.01 lower each time."""
    real, mixed = (Arm(auroc=tuple(aurocs), ap=tuple(a - 0.01 for a in aurocs)) for aurocs in (before, after))
    change = over_seeds(real.auroc, mixed.auroc)
    return Gain(
        real=real, mixed=mixed, auroc=change, ap=over_seeds(real.ap, mixed.ap), over_photos=photos or change, steps=150,
        counts={"good training": 200, "defect training": 23, "synthetic": 70, "good test": test[0], "defect test": test[1]},
        cautions=cautions,
    )  # fmt: skip


LOW, HIGH = (0.82, 0.84, 0.83, 0.80, 0.86), (0.90, 0.93, 0.90, 0.91, 0.91)


def test_a_gain_is_said_with_its_interval():
    found = gain(LOW, HIGH)

    assert found.verdict == "helped"
    assert found.sentence == (
        "AUROC went from 0.830 to 0.910, +0.080 (95 % CI +0.052 to +0.108) over 5 seeds: the synthetic images helped."
    )  # fmt: skip


def test_a_loss_is_said_as_plainly():
    found = gain(HIGH, LOW)

    assert found.verdict == "worse"
    assert "-0.080 (95 % CI -0.108 to -0.052) over 5 seeds: it got worse; leave the synthetic images out" in found.sentence


def test_an_interval_that_contains_0_allows_no_claim():
    found = gain((0.82, 0.84, 0.83, 0.80, 0.86), (0.84, 0.83, 0.85, 0.79, 0.87))

    assert found.verdict == "unclear"
    assert found.sentence.endswith("over 5 seeds: the interval contains 0: no difference can be claimed.")


@pytest.mark.parametrize(("before", "after", "word"), [(LOW, HIGH, "rose"), (HIGH, LOW, "fell")])
def test_a_change_that_other_test_photos_might_not_show_allows_no_claim(before, after, word):
    found = gain(before, after, photos=Difference(mean=0.08, low=-0.02, high=0.18))

    assert found.verdict == "unclear"
    assert f"on these test photos it {word}, but with others it might not (95 % CI -0.020 to +0.180 over test photos)" in found.sentence


def test_equal_figures_everywhere_allow_no_claim():
    assert gain(LOW, LOW).verdict == "unclear"


def test_a_small_test_set_is_called_small():
    assert "The test set is small (1 good test photo and 8 defect test photos): a single photo can move AUROC by up to 1.00." in gain(
        LOW, HIGH, test=(1, 8)
    ).sentence  # fmt: skip
    assert "small (8 defect test photos): a single photo can move AUROC by up to 0.12." in gain(LOW, HIGH, test=(50, 8)).sentence
    assert "small" not in gain(LOW, HIGH, test=(20, 20)).sentence


def test_nothing_is_claimed_from_fewer_than_ten_test_photos_of_a_kind():
    found = gain(LOW, HIGH, test=(50, 9))

    assert found.verdict == "unclear"
    assert "over 5 seeds: with fewer than 10 test photos of a kind no difference can be claimed." in found.sentence
    assert gain(LOW, HIGH, test=(10, 10)).verdict == "helped"


def test_a_saturated_test_set_is_called_too_easy():
    assert "a harder test set is needed to see a difference" in gain((1.0,) * 5, (1.0,) * 5).sentence
    assert "harder" not in gain(LOW, (1.0,) * 5).sentence


def test_what_could_not_be_checked_stands_in_the_sentence():
    assert gain(LOW, HIGH, cautions=("x.safetensors does not list its photos.",)).sentence.endswith(
        " x.safetensors does not list its photos."
    )


def test_the_table_shows_every_seed_the_means_and_what_guessing_would_give():
    lines = gain(LOW, HIGH, test=(50, 150)).table().splitlines()

    assert lines[0].split() == ["seed", "AUROC", "real", "with", "synthetic", "change", "AP", "real", "with", "synthetic", "change"]
    assert lines[4].split() == ["3", "0.800", "0.910", "+0.110", "0.790", "0.900", "+0.110"]
    assert lines[6].split() == ["mean", "0.830", "0.910", "+0.080", "0.820", "0.900", "+0.080"]
    assert len({len(line) for line in lines[:7]}) == 1
    assert lines[9].endswith("guessing would have AP 0.750")
    assert lines[10] == "200 good training, 23 defect training, 70 synthetic, 50 good test, 150 defect test; 150 steps for every detector"


def test_json_carries_every_figure_the_verdict_and_the_sentence():
    found = gain(LOW, HIGH)

    data = json.loads(json.dumps(found.to_json()))

    assert data["real"]["auroc"] == list(LOW)
    assert data["auroc"] == {"mean": found.auroc.mean, "low": found.auroc.low, "high": found.auroc.high}
    assert (data["verdict"], data["sentence"], data["steps"]) == ("helped", found.sentence, 150)
    assert data["counts"]["synthetic"] == 70
