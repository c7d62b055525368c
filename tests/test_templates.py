from __future__ import annotations

from collections import Counter

import pytest

from synthaug.errors import SettingError
from synthaug.templates import fill


def test_values_are_filled_in_and_spaces_tidied():
    assert fill("  a photo of {trigger} ,  {n} of them", {"trigger": "いりこ", "n": "two"}) == "a photo of いりこ , two of them"


def test_every_choice_comes_up_and_the_seed_decides():
    texts = [fill("a {red|green|blue} fish", {}, seed=seed) for seed in range(60)]

    assert set(Counter(texts)) == {"a red fish", "a green fish", "a blue fish"}
    assert texts == [fill("a {red|green|blue} fish", {}, seed=seed) for seed in range(60)]


def test_choices_may_be_nested_and_hold_values_or_nothing():
    texts = {fill("{a {big|small} {trigger}|}", {"trigger": "cod"}, seed=seed) for seed in range(40)}

    assert texts == {"a big cod", "a small cod", ""}


@pytest.mark.parametrize("template", ["{name}", "a {} b", "{this or that}"])
def test_a_name_without_value_is_refused_with_the_names_there_are(template):
    with pytest.raises(SettingError, match=r"unknown placeholder \{.*\} in .*; choose from: \{trigger\}, or write \{this\|that\}"):
        fill(template, {"trigger": "cod"})
