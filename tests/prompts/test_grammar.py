from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from synthaug.errors import SettingError
from synthaug.prompts.grammar import Run, weighted_runs

CASES = {
    "": [[]],
    "a fish": [[("a fish", 1)]],
    "a (red) fish": [[("a ", 1), ("red", 1.1), (" fish", 1)]],
    "((red))": [[("red", 1.21)]],
    "(((red)))": [[("red", 1.331)]],
    "[red]": [[("red", 1 / 1.1)]],
    "[[red]]": [[("red", 1 / 1.21)]],
    "[(red)]": [[("red", 1.0)]],
    "(red:1.3)": [[("red", 1.3)]],
    "(red : 1.3 )": [[("red ", 1.3)]],
    "(red:.5)": [[("red", 0.5)]],
    "(red:2.)": [[("red", 2.0)]],
    "(red:+1.5)": [[("red", 1.5)]],
    "(red:-0.5)": [[("red", -0.5)]],
    "(red:0)": [[("red", 0.0)]],
    "((red:1.3))": [[("red", 1.43)]],
    "(a (red:1.5) fish:0.8)": [[("a ", 0.8), ("red", 1.2), (" fish", 0.8)]],
    "[red:1.3]": [[("red:1.3", 1 / 1.1)]],  # a schedule that was not read as one
    "red:1.3": [[("red:1.3", 1)]],
    "red:1.3)": [[("red:1.3)", 1)]],
    "(red:1.3] fish": [[("red:1.3] fish", 1.1)]],
    "(red: very) fish": [[("red: very", 1.1), (" fish", 1)]],
    "(a:1.3:1.4)": [[("a:1.3", 1.4)]],
    "(red": [[("red", 1.1)]],
    "a ((red": [[("a ", 1), ("red", 1.21)]],
    "a [red (fish": [[("a ", 1), ("red ", 1 / 1.1), ("fish", 1.0)]],
    "red)": [[("red)", 1)]],
    "red]": [[("red]", 1)]],
    ")(": [[(")", 1)]],
    "(a]b)": [[("a]b", 1.1)]],
    "([a)b]": [[("a", 1.0), ("b", 1 / 1.1)]],  # pairs may cross
    r"\(red\)": [[("(red)", 1)]],
    r"\[red\]": [[("[red]", 1)]],
    r"a\\b": [[(r"a\b", 1)]],
    r"a\b": [[("ab", 1)]],
    "a\\": [[("a", 1)]],
    r"(\(red\):1.3)": [[("(red)", 1.3)]],
    r"(red\:1.3)": [[("red", 1.3)]],
    "()(:1.3)[]": [[]],
    "(red)(fish)": [[("redfish", 1.1)]],
    "(red)[(fish)]": [[("red", 1.1), ("fish", 1.0)]],
    "a BREAK b": [[("a", 1)], [("b", 1)]],
    "BREAK": [[], []],
    "BREAK a": [[], [("a", 1)]],
    "a BREAK BREAK b": [[("a", 1)], [], [("b", 1)]],
    "aBREAK BREAKs break Break": [[("aBREAK BREAKs break Break", 1)]],
    "a,BREAK,b": [[("a,", 1)], [(",b", 1)]],
    "(a BREAK b:1.3) c": [[("a", 1.3)], [("b", 1.3), (" c", 1)]],
    "(red:-1) BREAK": [[("red", -1)], []],
    "赤い(魚:1.2)": [[("赤い", 1), ("魚", 1.2)]],
}


@pytest.mark.parametrize(("prompt", "expected"), CASES.items())
def test_a_prompt_has_these_weights(prompt, expected):
    found = weighted_runs(prompt)

    assert [[run.text for run in section] for section in found] == [[text for text, _ in section] for section in expected]
    assert [run.weight for section in found for run in section] == pytest.approx([weight for section in expected for _, weight in section])


@pytest.mark.parametrize("number", ["1.2.3", ".", "+.", "..5"])
def test_a_weight_that_is_no_number_is_refused(number):
    with pytest.raises(SettingError, match=r"a weight is a number such as 1.3, got '.*' in the prompt '\(red:.*\)'; write \(word:1.3\)"):
        weighted_runs(f"(red:{number})")


def test_a_weight_beyond_all_numbers_is_refused():
    with pytest.raises(SettingError, match=r"weights must multiply to a finite number, got inf for 'red'; write smaller weights"):
        weighted_runs(f"(red:{'9' * 400})")


def written(rng, depth, factor=1.0):
    """A random prompt with balanced brackets, and its letters with the weight of each."""
    text, expected = "", []
    for _ in range(rng.randint(0, 4)):
        kind = rng.choice("wwwerswb") if depth else rng.choice("wwe")
        if kind == "w":
            word = rng.choice(["red", " ", "fish, ", "紙", "BREAKs"])
            text, expected = text + word, [*expected, *((letter, factor) for letter in word)]
        elif kind == "e":
            sign = rng.choice("()[]\\")
            text, expected = text + "\\" + sign, [*expected, (sign, factor)]
        else:
            number = {"r": 1.1, "s": 1 / 1.1}.get(kind, rng.choice([0.0, 0.5, 1.25, -1.5]))
            inner, said = written(rng, depth - 1, factor * number)
            brackets = {"r": f"({inner})", "s": f"[{inner}]"}.get(kind, f"({inner}:{number})")
            text, expected = text + brackets, [*expected, *said]
    return text, expected


def test_letters_have_the_product_of_the_weights_around_them():
    for seed in range(500):
        text, expected = written(random.Random(seed), 4)

        [section] = weighted_runs(text)

        found = [(letter, run.weight) for run in section for letter in run.text]
        assert [letter for letter, _ in found] == [letter for letter, _ in expected], text
        assert all(math.isclose(weight, wanted) for (_, weight), (_, wanted) in zip(found, expected, strict=True)), text
        assert all(run.text for run in section)
        assert all(first.weight != second.weight for first, second in pairwise(section)), text


def test_whatever_is_typed_is_read_or_refused_in_a_sentence():
    refused = 0
    for seed in range(500):
        rng = random.Random(seed)
        typed = "".join(rng.choice(["(", ")", "[", "]", ":", "\\", "a", " ", "1", ".", "-", " BREAK ", ":1.3)"]) for _ in range(30))
        try:
            sections = weighted_runs(typed)
        except SettingError:
            refused += 1
            continue

        assert len(sections) == typed.count(" BREAK ") + 1
        assert sum(run.text.count("a") for section in sections for run in section) == typed.count("a")

    assert refused < 50


def test_an_escaped_text_is_itself():
    for seed in range(200):
        rng = random.Random(seed)
        text = "".join(rng.choice(["(", ")", "[", "]", ":", "\\", "a", " ", "1.3"]) for _ in range(20))

        escaped = "".join("\\" + letter if letter in "\\()[]" else letter for letter in text)

        assert weighted_runs(escaped) == ((Run(text, 1.0),),)
