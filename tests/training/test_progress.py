import math

import pytest

from synthaug.training.progress import Progress


def measured(*losses: float) -> Progress:
    progress = Progress()
    for step, loss in enumerate(losses, 1):
        progress.add(step, loss)
    return progress


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ((0.5,), 1), ((0.5, 0.4, 0.45), 2), ((0.5, 0.4, 0.403), 3), ((0.4, 0.403, 0.39), 3), ((0.4, 0.405), 1),
        ((0.4, 0.403, 0.406), 2), ((math.nan, 0.4), 2), ((0.4, math.nan), 1),
    ],
)  # fmt: skip
def test_the_step_that_is_kept_is_the_last_that_is_about_as_good_as_the_lowest(losses, step):
    assert measured(*losses).kept[0] == step


def test_nothing_is_kept_before_there_is_a_measurement_that_is_a_number():
    assert measured().kept is None
    assert measured(math.nan, math.inf).kept is None


def test_a_run_is_worse_for_as_long_as_the_mean_of_three_lies_above_its_lowest():
    assert measured(0.5, 0.4, 0.3, 0.3, 0.3).worse == 0
    assert measured(0.3, 0.3, 0.3, 0.4, 0.4).worse == 2


def test_one_bad_measurement_among_good_ones_ends_with_the_window():
    assert measured(0.3, 0.3, 0.3, 0.4, 0.3, 0.3).worse == 3
    assert measured(0.3, 0.3, 0.3, 0.4, 0.3, 0.3, 0.3).worse == 0


@pytest.mark.parametrize(
    "losses",
    [
        (0.584, 0.5638, 0.5701, 0.5646, 0.5576, 0.5506, 0.5493, 0.5485),
        (0.6597, 0.6019, 0.6293, 0.624, 0.6238, 0.6205, 0.6011, 0.6029),
        (0.6962, 0.6597, 0.6428, 0.6019, 0.6432, 0.6293, 0.6183, 0.624, 0.6101, 0.6238, 0.61, 0.6205, 0.6105, 0.6011, 0.6045, 0.6029),
    ],
)
def test_real_courses_that_end_well_are_followed_to_their_end(losses):
    for count in range(1, len(losses) + 1):
        assert measured(*losses[:count]).worse < 3

    assert measured(*losses).kept[0] == len(losses)
