from __future__ import annotations

from collections import Counter

import pytest

from synthaug.errors import SettingError, UnusableFileError
from synthaug.templates import choose_words, fill, grid_of, read_wildcards


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


def test_texts_that_were_chosen_before_weights_and_wildcards_came_are_chosen_still():
    """Plans that were drawn can be drawn again."""
    assert [fill("a {red|green|blue} {big|small} fish", {}, seed=seed) for seed in range(3)] == [
        "a green small fish", "a red big fish", "a red big fish",
    ]  # fmt: skip
    assert fill("{a {big|small} {trigger}|b {x|y|z}} on {paper|wood}", {"trigger": "cod"}, seed=5) == "a small cod on wood"


def test_a_choice_with_a_weight_comes_up_as_often_as_it_says():
    counts = Counter(fill("{3::red|blue|0::green|.5::grey}", {}, seed=seed) for seed in range(900))

    assert set(counts) == {"red", "blue", "grey"}
    assert counts["red"] == pytest.approx(600, abs=60)
    assert counts["blue"] == pytest.approx(200, abs=45)


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("{2$$a|b|c}", {"a, b", "b, a", "a, c", "c, a", "b, c", "c, b"}),
        ("{2$$ and $$a|b}", {"a and b", "b and a"}),
        ("{1-2$$+$$a|b}", {"a", "b", "a+b", "b+a"}),
        ("{-1$$a|b}", {"", "a", "b"}),
        ("{2-$$a|b}", {"a, b", "b, a"}),
        ("{2$$1::a|0::b|3::c}", {"a, c", "c, a"}),
        ("{1$$a}", {"a"}),
        ("{2$${a|b}|{c|d}}", {"a, c", "a, d", "b, c", "b, d", "c, a", "d, a", "c, b", "d, b"}),
    ],
)
def test_several_are_taken_of_a_choice_and_a_grid_has_them_all(template, texts):
    assert {fill(template, {}, seed=seed) for seed in range(150)} == texts
    assert set(grid_of(template)) == texts
    assert len(grid_of(template)) == len(texts)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{3$$a|b}", r"a choice in '.*' must take at most the 2 that it has, got '3 to 3'"),
        ("{2-1$$a|b}", r"must take at most the 2 that it has, got '2 to 1'"),
        ("{2$$a|0::b}", r"must take at most the 1 that it has, got '2 to 2'"),
        ("{0::a|0::b}", r"a choice in '.*' must have an option of a weight above 0, got '\{0::a\|0::b\}'"),
        ("__colour__", r"unknown wildcard __colour__ in '.*'; choose from: __colours__"),
        ("{name|{trigger}}", r"unknown placeholder \{trigger\} in .*; choose from: none"),
    ],
)
@pytest.mark.parametrize("make", [fill, grid_of])
def test_a_choice_that_cannot_be_made_is_refused(make, template, sentence):
    with pytest.raises(SettingError, match=sentence):
        make(template, {}, wildcards={"colours": ["red"]})


def test_a_wildcard_without_a_folder_says_what_is_missing():
    with pytest.raises(SettingError, match=r"unknown wildcard __colours__ in .*; choose from: none; give a folder of wildcards"):
        fill("a __colours__ fish", {})


def test_wildcards_are_lines_of_files_that_may_hold_choices_names_and_other_wildcards(tmp_path):
    (tmp_path / "animals").mkdir()
    (tmp_path / "animals" / "fish.txt").write_text("# fish\n{big|small} cod\n\n  {trigger}  \r\n", encoding="utf-8")
    (tmp_path / "colours.txt").write_bytes("\ufeffred\nblue|green\n".encode())
    (tmp_path / "all.txt").write_text("__colours__ __animals/fish__", encoding="utf-8")

    wildcards = read_wildcards(tmp_path)
    texts = {fill("{a __all__|b}", {"trigger": "__all__"}, seed=seed, wildcards=wildcards) for seed in range(300)}

    expected = {f"a {colour} {fish}" for colour in ("red", "blue|green") for fish in ("big cod", "small cod", "__all__")} | {"b"}
    assert wildcards == {"all": ("__colours__ __animals/fish__",), "animals/fish": ("{big|small} cod", "{trigger}"),
                         "colours": ("red", "blue|green")}  # fmt: skip
    assert texts == expected
    assert set(grid_of("{a __all__|b}", {"trigger": "__all__"}, wildcards=wildcards)) == expected


def test_a_wildcard_that_calls_itself_is_refused_with_the_way():
    with pytest.raises(SettingError, match=r"a wildcard must not call itself, got __a__ -> __b__ -> __a__ in 'x __a__'"):
        fill("x __a__", {}, wildcards={"a": ["__b__"], "b": ["__a__"]})


def test_a_wildcard_without_a_line_is_refused():
    with pytest.raises(SettingError, match=r"a wildcard must have a line to choose, __a__ in '__a__' has none"):
        fill("__a__", {}, wildcards={"a": []})


def test_underscores_that_enclose_no_name_are_underscores():
    assert fill("a_b __ c__ __d ____", {}) == "a_b __ c__ __d ____"


def test_a_folder_that_holds_no_wildcards_is_named(tmp_path):
    with pytest.raises(UnusableFileError, match=r"a folder of wildcards has text files such as colours.txt, .*nowhere is not there"):
        read_wildcards(tmp_path / "nowhere")
    with pytest.raises(UnusableFileError, match=r"has no .txt file; check the path"):
        read_wildcards(tmp_path)

    (tmp_path / "colours.txt").write_text("# nothing\n\n")
    with pytest.raises(UnusableFileError, match=r"the wildcards .*colours.txt have no line to choose; write one choice per line"):
        read_wildcards(tmp_path)

    (tmp_path / "colours.txt").write_bytes(b"\xff\xfered")
    with pytest.raises(UnusableFileError, match=r"the wildcards .*colours.txt cannot be read \(.*\); save the file as UTF-8 text"):
        read_wildcards(tmp_path)


def test_a_grid_has_every_text_once_and_the_last_choice_changes_fastest():
    assert grid_of("{a|b} {c {x|y}|d}, {trigger}", {"trigger": "{z|w}"}) == [
        "a c x, {z|w}", "a c y, {z|w}", "a d, {z|w}", "b c x, {z|w}", "b c y, {z|w}", "b d, {z|w}",
    ]  # fmt: skip
    assert grid_of("{a|a} {open") == ["a {open"]
    assert grid_of("plain") == ["plain"]


def test_a_grid_is_what_can_be_drawn():
    template = "{a|{b|c} {2::d|e}} {f|} {2$$g|h}"

    assert set(grid_of(template)) == {fill(template, {}, seed=seed) for seed in range(400)}


@pytest.mark.parametrize("template", ["{a|b}" * 14, "{9$$a|b|c|d|e|f|g|h|i}", "{__x__ __x__|a}"])
def test_a_grid_that_is_too_large_is_refused_before_it_is_made(template):
    with pytest.raises(SettingError, match=r"a grid has at most 10000 texts, '.*' has \d+ or more; take out a choice"):
        grid_of(template, wildcards={"x": [str(number) for number in range(200)]})
