from __future__ import annotations

import pytest

from synthaug.errors import SettingError
from synthaug.generation.jobs import evaluations


@pytest.mark.parametrize(
    ("steps", "strength", "taken"),
    [(20, 0.5, 11), (20, 0.75, 16), (20, 1.0, 20), (20, 0.999, 20), (20, 0.01, 1), (1, 0.3, 1), (1000, 1.0, 1000), (30, 0.4, 13)],
)
def test_steps_are_counted_as_a1111_counts_them(steps, strength, taken):
    """0.5 of 20 steps are 11, not 10: A1111 takes int(min(strength, 0.999) * steps) + 1."""
    whole, first = evaluations(steps, strength, exact=False)

    assert (whole, whole - first) == (steps, taken)


@pytest.mark.parametrize(
    ("steps", "strength", "whole"), [(20, 0.5, 40), (20, 0.75, 26), (20, 1.0, 20), (1, 0.3, 3), (1000, 1.0, 1000), (7, 0.999, 7)]
)
def test_exact_steps_are_all_taken_at_the_end_of_a_longer_schedule(steps, strength, whole):
    assert evaluations(steps, strength, exact=True) == (whole, whole - steps)


def test_exact_steps_of_a_schedule_longer_than_any_are_refused_with_the_most_there_can_be():
    with pytest.raises(
        SettingError, match=r"at most 1000 steps, and 30 exact steps at strength 0.02 .* one of 1500; take at most 20 steps"
    ):
        evaluations(30, 0.02, exact=True)
    assert evaluations(20, 0.02, exact=True) == (1000, 980)
