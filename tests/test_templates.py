from __future__ import annotations

from collections import Counter

import pytest

from synthaug.errors import SettingError
from synthaug.templates import choose_words, fill


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


@pytest.mark.parametrize("value", ["{trigger}", "a|b", "{x|y}", "}{"])
def test_signs_in_a_value_are_nothing_but_signs(value):
    assert fill("a {photo of {trigger}|photo of {trigger}}", {"trigger": value}, seed=4) == f"a photo of {value}"


def test_words_are_chosen_and_doubled_braces_are_braces():
    texts = {choose_words("{a|b {c|d} }, {{e|f}}, {g}", seed=seed) for seed in range(60)}

    assert texts == {"a, {e|f}, g", "b c , {e|f}, g", "b d , {e|f}, g"}
    assert choose_words("open { and } shut", seed=0) == "open  and  shut"
    assert choose_words("half } open {", seed=0) == "half } open {"
