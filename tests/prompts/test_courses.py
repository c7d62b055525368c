from __future__ import annotations

import random
from itertools import pairwise

import pytest

from synthaug.errors import SettingError
from synthaug.prompts.courses import Part, course_of


def said(prompt, steps, **settings):
    """The text of each step of a prompt of one part."""
    course = course_of(prompt, steps, **settings)
    parts = [course.at(step) for step in range(steps)]
    assert {len(each) for each in parts} == {1}
    return [part.text for [part] in parts]


SCHEDULES = {
    "a [b:3]": ["a "] * 4 + ["a b"] * 6,
    "a [b: 3 ]": ["a "] * 4 + ["a b"] * 6,
    "a [b::3] c": ["a b c"] * 4 + ["a  c"] * 6,
    "a [b:c:3]": ["a b"] * 4 + ["a c"] * 6,
    "a [b:c:0.3]": ["a b"] * 4 + ["a c"] * 6,
    "a [b:c:.55]": ["a b"] * 6 + ["a c"] * 4,
    "a [b:c:1.0]": ["a b"] * 10,
    "a [b:c:1]": ["a b"] * 2 + ["a c"] * 8,
    "a [b:c:0]": ["a c"] * 10,
    "a [b:c:-1]": ["a c"] * 10,
    "a [b:c:50]": ["a b"] * 10,
    "a [b:c:3e0]": ["a b"] * 4 + ["a c"] * 6,
    "[::5]": [""] * 10,
    "[(b:1.3):c:3]": ["(b:1.3)"] * 4 + ["c"] * 6,
    "a[b:[c:d:2]:1]e": ["abe"] * 2 + ["ace"] + ["ade"] * 7,
    "[[b:c:2]:d:6]": ["b"] * 3 + ["c"] * 4 + ["d"] * 3,
    "([b:c:4]:1.2)": ["(b:1.2)"] * 5 + ["(c:1.2)"] * 5,
    "[b [c]:d:4]": ["b [c]"] * 5 + ["d"] * 5,
    r"[b\]:c\:d:4]": [r"b\]"] * 5 + [r"c\:d"] * 5,
    "[b:c:4] (d": ["b (d"] * 5 + ["c (d"] * 5,
    "[b:c:4] d: e": ["b d: e"] * 5 + ["c d: e"] * 5,
    "[b|c]": ["b", "b", "c", "b", "c", "b", "c", "b", "c", "b"],
    "[b|c|d]": ["b", "b", "c", "d", "b", "c", "d", "b", "c", "d"],
    "[fe|]male": ["female", "female", "male", "female", "male", "female", "male", "female", "male", "female"],
    "[|a]": ["", "", "a", "", "a", "", "a", "", "a", ""],
    "[b|(c:1.2)]": ["b", "b", "(c:1.2)", "b", "(c:1.2)", "b", "(c:1.2)", "b", "(c:1.2)", "b"],
    "[[b|c]:d:4]": ["b", "b", "c", "b", "c", "d", "d", "d", "d", "d"],
    "[b|[c:d:5]]": ["b", "b", "c", "b", "c", "b", "d", "b", "d", "b"],
}


@pytest.mark.parametrize(("prompt", "expected"), SCHEDULES.items())
def test_a_schedule_says_this_at_ten_steps(prompt, expected):
    assert said(prompt, 10) == expected


@pytest.mark.parametrize(
    "prompt",
    ["", "a fish", "(red:1.3) [fish]", "[red", "[red:blue", "[red:blue:x]", "[a:b:c:4]", "[a(:b:4]", "a | b [c:d:4]", "[a|b:c]",
     "[a:4] \\", r"\[a:b:4\]", "[a:b:4 5]", "[a:b:1.2.3]", "ends in 3:"],
)  # fmt: skip
def test_what_is_no_schedule_is_one_part_that_never_changes(prompt):
    course = course_of(prompt, 20)

    assert course.changes == ((0, (Part(prompt, 1.0),)),)
    assert course.texts == (prompt,)


HIRES = {
    "[b:c:0.5]": ["c"] * 10,
    "[b:c:1.5]": ["b"] * 6 + ["c"] * 4,
    "[b:c:2.0]": ["b"] * 10,
    "[b:c:3]": ["c"] * 10,
    "[b:c:25]": ["b"] * 6 + ["c"] * 4,
}


@pytest.mark.parametrize(("prompt", "expected"), HIRES.items())
def test_the_second_pass_goes_on_where_the_first_ended(prompt, expected):
    assert said(prompt, 10, hires=True, first_steps=20) == expected


def test_what_is_scheduled_for_the_second_pass_does_not_happen_in_the_first():
    assert set(said("[b:c:1.5]", 10)) == {"b"}
    assert said("[b:c:15]", 10, hires=True) == ["b"] * 6 + ["c"] * 4


PARTS = {
    "a AND b": [("a", 1), (" b", 1)],
    "a :1.2 AND b :-0.5 AND c": [("a", 1.2), (" b", -0.5), (" c", 1)],
    "a:2": [("a", 2)],
    "a AND b:.5 ": [("a", 1), (" b", 0.5)],
    "a AND b:1.": [("a", 1), (" b", 1)],
    "a AND b:1e3": [("a", 1), (" b:1e3", 1)],
    "a AND (b:1.5)": [("a", 1), (" (b:1.5)", 1)],
    "a AND (b:1.5):0.7": [("a", 1), (" (b:1.5)", 0.7)],
    "aAND and And ANDb": [("aAND and And ANDb", 1)],
    "AND": [("", 1), ("", 1)],
    "a: b :1": [("a: b", 1)],
}


@pytest.mark.parametrize(("prompt", "expected"), PARTS.items())
def test_and_divides_a_prompt_into_weighted_parts(prompt, expected):
    assert [(part.text, part.weight) for part in course_of(prompt, 10).at(0)] == expected


def test_in_a_negative_prompt_and_is_a_word():
    assert course_of("a AND [b|c] :1.2", 5, composes=False).at(2) == (Part("a AND c :1.2", 1.0),)


def test_parts_have_schedules_of_their_own():
    course = course_of("[a:b:2] AND [c|d] :0.5", 4)

    assert [[part.text for part in course.at(step)] for step in range(4)] == [["a", " c"], ["a", " c"], ["a", " d"], ["b", " c"]]
    assert {part.weight for step in range(4) for part in course.at(step)[1:]} == {0.5}
    assert course.texts == ("a", " c", " d", "b")


def test_as_long_as_nothing_changes_the_answer_is_the_very_same_object():
    course = course_of("a [b:c:5] AND d", 10)
    answers = [course.at(step) for step in range(10)]

    assert all(first is second for first, second in pairwise(answers[:6]))
    assert all(first is second for first, second in pairwise(answers[6:]))
    assert answers[5] is not answers[6]


def test_brackets_deeper_than_a_hundred_are_refused_and_not_a_crash():
    assert course_of("(" * 99 + "a", 5).at(0) == (Part("(" * 99 + "a", 1.0),)
    with pytest.raises(SettingError, match=r"brackets may be nested 100 deep, these of '\(.* are deeper; write \(word:1.3\) for a weight"):
        course_of("(" * 2000, 5)


def written(rng, depth):
    """A random prompt, and what it says at a step counted from 1."""
    pieces = []
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice("wsafr") if depth else "w"
        if kind == "w":
            word = rng.choice(["red", " ", "fish,", r"\[", r"\:", "紙 "])
            pieces.append((word, lambda _, word=word: word))
            continue
        texts, inner = zip(*[written(rng, depth - 1) for _ in range(rng.randint(2, 3))], strict=True)
        when = rng.randint(1, 8)
        if kind == "a":
            pieces.append((f"[{'|'.join(texts)}]", lambda step, inner=inner: inner[(step - 1) % len(inner)](step)))
        elif kind == "r":
            pieces.append((f"({texts[0]}:1.2)", lambda step, inner=inner: f"({inner[0](step)}:1.2)"))
        else:
            number = when if kind == "s" else when / 8 + 0.01
            says = lambda step, inner=inner, when=when: inner[0 if step <= when else 1](step)  # noqa: E731
            pieces.append((f"[{texts[0]}:{texts[1]}:{number}]", says))
    return "".join(text for text, _ in pieces), lambda step: "".join(says(step) for _, says in pieces)


def test_a_random_prompt_says_at_each_step_what_its_brackets_mean():
    for seed in range(150):
        prompt, says = written(random.Random(seed), 3)

        assert said(prompt, 8, composes=False) == [says(max(1, step)) for step in range(8)], prompt


def test_whatever_is_typed_says_something_at_each_step():
    for seed in range(300):
        rng = random.Random(seed)
        typed = "".join(rng.choice(["(", ")", "[", "]", ":", "|", "\\", "a", " ", "3", ".5", " AND "]) for _ in range(25))

        course = course_of(typed, 6)

        assert course.changes[0][0] == 0
        assert all(len(course.at(step)) == typed.count(" AND ") + 1 for step in range(6))
        assert all(first != second for (_, first), (_, second) in pairwise(course.changes))
