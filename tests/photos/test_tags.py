from __future__ import annotations

from collections import Counter

import pytest

from synthaug.errors import SettingError
from synthaug.photos.tags import CaptionRules

MANY = range(200)


def variants(rules, caption):
    return {rules.variant(caption, seed) for seed in MANY}


def test_without_rules_a_caption_stays_letter_by_letter():
    rules = CaptionRules()

    assert variants(rules, "a fish,on paper , {close|far} ||| grey;;;blue") == {"a fish,on paper , {close|far} ||| grey;;;blue"}
    assert not rules.varies


def test_tags_are_shuffled_behind_those_that_are_kept_and_the_seed_decides():
    rules = CaptionRules(shuffle=True, keep=1)

    found = variants(rules, "iriko, burst ,  close,on paper")

    assert len(found) == 6
    assert {text.split(", ")[0] for text in found} == {"iriko"}
    assert {frozenset(text.split(", ")) for text in found} == {frozenset(["iriko", "burst", "close", "on paper"])}
    assert rules.variant("a, b, c, d", 7) == rules.variant("a, b, c, d", 7)
    assert rules.varies


def test_every_order_comes_up_about_equally_often():
    counts = Counter(CaptionRules(shuffle=True).variant("a, b, c", seed) for seed in range(1200))

    assert len(counts) == 6
    assert min(counts.values()) > 150


def test_the_keep_separator_frees_head_and_tail_and_goes_away_itself():
    rules = CaptionRules(shuffle=True, keep=3, keep_separator="|||")

    assert variants(rules, "iriko, fish ||| burst, close ||| on paper, grey") == {
        "iriko, fish, burst, close, on paper, grey", "iriko, fish, close, burst, on paper, grey",
    }  # fmt: skip
    assert variants(rules, "iriko ||| a, b") == {"iriko, a, b", "iriko, b, a"}
    assert variants(CaptionRules(keep_separator="|||"), "iriko ||| a, b") == {"iriko, a, b"}, "also where nothing is shuffled"
    assert variants(rules, "a, b, c, d") == {"a, b, c, d"}, "without the sign the number of tags counts"


def test_tags_are_left_out_but_never_those_that_are_kept():
    rules = CaptionRules(drop_tags=0.25, keep=1)
    texts = [rules.variant("iriko, b, c", seed) for seed in range(2000)]

    shares = Counter(tag for text in texts for tag in text.split(", "))

    assert shares["iriko"] == 2000
    assert 0.72 < shares["b"] / 2000 < 0.78
    assert 0.72 < shares["c"] / 2000 < 0.78
    assert CaptionRules(drop_tags=1).variant("a, b", 0) == ""
    assert rules.varies


def test_glued_tags_move_and_go_as_one():
    rules = CaptionRules(shuffle=True, drop_tags=0.3, group_separator=";;;")

    assert variants(rules, "sky;;;cloud;;;day, sea") == {"sky, cloud, day, sea", "sea, sky, cloud, day", "sky, cloud, day", "sea", ""}
    assert variants(CaptionRules(group_separator=";;;"), "sky;;;cloud, sea") == {"sky, cloud, sea"}


def test_prefix_and_suffix_are_part_of_the_tags():
    rules = CaptionRules(shuffle=True, keep_separator="|||", prefix="iriko, fish |||", suffix=", shot ||| on paper")

    assert variants(rules, "burst") == {"iriko, fish, burst, shot, on paper", "iriko, fish, shot, burst, on paper"}
    assert CaptionRules(prefix="a photo of", suffix="on paper").variant("iriko", 0) == "a photo of iriko on paper"
    assert CaptionRules(suffix=", on paper").variant("iriko", 0) == "iriko, on paper"
    assert CaptionRules(shuffle=True, keep=1, prefix="best,").variant("a", 3) == "best, a"


def test_wildcards_choose_a_line_and_its_words():
    rules = CaptionRules(wildcards=True, suffix=", {x|y}")

    assert variants(rules, "a {big|small} fish\n\na fish, {{grey}}\n") == {
        f"{text}, {end}" for text in ("a big fish", "a small fish", "a fish, {grey}") for end in "xy"
    }
    assert variants(CaptionRules(), "first\nsecond") == {"first"}
    assert rules.varies


def test_another_separator_takes_the_place_of_the_comma():
    assert variants(CaptionRules(shuffle=True, separator="."), "A fish, grey. On paper.") == {
        "A fish, grey. On paper",
        "On paper. A fish, grey",
    }


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"keep": -1}, "keep must be 0 tags or more, got -1"),
        ({"drop_tags": 1.5}, "drop_tags must be from 0 to 1; 0 leaves none out, got 1.5"),
        ({"separator": " "}, "separator must be one sign or more; a comma is usual, got ' '"),
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong, sentence):
    with pytest.raises(SettingError, match=sentence):
        CaptionRules(**wrong)
