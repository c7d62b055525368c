from __future__ import annotations

import random
from itertools import pairwise

import pytest

from synthaug.errors import SettingError
from synthaug.pocket.words import train_tokenizer
from synthaug.prompts.chunks import prompt_chunks, spelling, token_chunks


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Each of these words, and a comma, is one token."""
    return train_tokenizer(["red fish on white paper"] * 5, tmp_path_factory.mktemp("words"))


def words_of(chunks, tokenizer):
    """What each chunk says, without start, end and padding."""
    found = []
    for chunk in chunks:
        tokens = list(chunk.tokens)
        end = tokens.index(tokenizer.eos_token_id, 1)
        assert len(tokens) == len(chunk.weights) == 77
        assert tokens[0] == tokenizer.bos_token_id
        assert set(tokens[end + 1 :]) <= {tokenizer.pad_token_id}
        assert set(chunk.weights[end:]) == {1.0} == {chunk.weights[0]}
        found.append(tokenizer.decode(tokens[1:end]).strip())
    return found


def lengths(prompt, tokenizer, **settings):
    return [chunk.tokens.index(tokenizer.eos_token_id, 1) - 1 for chunk in prompt_chunks(prompt, tokenizer, **settings)]


def fish(count):
    return "fish " * count


CUTS = {
    fish(75): [75],
    fish(76): [75, 1],
    fish(160): [75, 75, 10],
    fish(54) + "," + fish(30): [75, 10],  # the comma is 21 back
    fish(55) + "," + fish(30): [56, 30],
    fish(74) + "," + fish(3): [75, 3],
    fish(75) + "," + fish(3): [75, 4],  # a comma itself moves nothing
    fish(60) + "," + fish(5) + "," + fish(20): [67, 20],
    fish(60) + "," + fish(14): [75],
    fish(60) + "," + fish(14) + "BREAK red": [75, 1],
    fish(60) + "," + fish(85): [61, 75, 10],
    fish(60) + "," + fish(20) + "," + fish(60): [61, 75, 6],
    fish(60) + ", BREAK " + fish(80): [61, 75, 5],
    "": [0],
    "BREAK": [0],
    "a BREAK": [1],
    "BREAK a": [0, 1],
    "a BREAK BREAK a": [1, 0, 1],
    "(" + fish(40) + ")" + fish(36): [75, 1],
}


@pytest.mark.parametrize(("prompt", "expected"), CUTS.items(), ids=range(len(CUTS)))
def test_a_prompt_is_cut_where_the_webui_cuts_it(tokenizer, prompt, expected):
    assert lengths(prompt, tokenizer) == expected


def test_weights_lie_on_the_tokens_they_are_meant_for(tokenizer):
    [first, second] = prompt_chunks("red (fish on:1.5) BREAK [(white:0.5) paper]", tokenizer)

    assert words_of([first, second], tokenizer) == ["red fish on", "white paper"]
    assert first.weights[:5] == (1.0, 1.0, 1.5, 1.5, 1.0)
    assert second.weights[:4] == pytest.approx((1.0, 0.5 / 1.1, 1 / 1.1, 1.0))
    assert set(prompt_chunks("red fish", tokenizer)[0].weights) == {1.0}


def test_weights_move_on_with_their_words(tokenizer):
    [first, second] = prompt_chunks(f"{fish(60)}, (red:1.5) {fish(20)}", tokenizer)

    assert set(first.weights) == {1.0}
    assert second.weights[:3] == (1.0, 1.5, 1.0)


@pytest.mark.parametrize(("emphasis", "weight"), [("Original", 1.5), ("No norm", 1.5), ("Ignore", 1.0)])
def test_emphasis_says_whether_weights_count(tokenizer, emphasis, weight):
    [chunk] = prompt_chunks("(red:1.5) fish", tokenizer, emphasis=emphasis)

    assert words_of([chunk], tokenizer) == ["red fish"]
    assert chunk.weights[1] == weight


def test_without_emphasis_brackets_are_text(tokenizer):
    [chunk] = prompt_chunks("(red:1.5) BREAK fish", tokenizer, emphasis="None")

    assert list(chunk.tokens) == token_chunks("(red:1.5) BREAK fish", tokenizer)[0]
    assert set(chunk.weights) == {1.0}


def test_an_unknown_emphasis_is_refused_with_the_list(tokenizer):
    with pytest.raises(SettingError, match=r"unknown emphasis 'original'; choose one of: Ignore, No norm, None, Original"):
        prompt_chunks("red", tokenizer, emphasis="original")


def test_runs_of_equal_weight_are_spelled_as_one(tokenizer):
    assert prompt_chunks("(fi)(sh)", tokenizer)[0].tokens == prompt_chunks("fish", tokenizer)[0].tokens
    assert prompt_chunks("(fi)sh", tokenizer)[0].tokens != prompt_chunks("fish", tokenizer)[0].tokens


def test_no_word_is_lost_and_no_chunk_overflows(tokenizer):
    for seed in range(60):
        rng = random.Random(seed)
        text = "".join(rng.choice(["red ", "fish ", ", ", "paper "] + ["on "] * rng.choice([1, 20])) for _ in range(rng.randint(0, 300)))

        found = prompt_chunks(text, tokenizer)

        said = [chunk.tokens[1 : chunk.tokens.index(tokenizer.eos_token_id, 1)] for chunk in found]
        comma = spelling(",", tokenizer)[0]
        assert [token for part in said for token in part] == list(spelling(text, tokenizer))
        for part, following in pairwise(said):
            ends_at_comma = part[-1] == comma and len(part) + len(following) > 75
            assert len(part) == 75 or (ends_at_comma and len(part) >= 56), text


def test_vectors_take_the_place_of_a_word_at_its_beginning_only(tokenizer):
    [chunk] = prompt_chunks("red (myfish:1.5) fish xmyfish MyFish", tokenizer, learned={"myfish": 2})

    assert chunk.learned[:2] == ((2, "myfish", 0), (3, "myfish", 1))
    assert chunk.weights[:5] == (1.0, 1.0, 1.5, 1.5, 1.0)
    assert [name for _, name, _ in chunk.learned] == ["myfish"] * 4
    assert chunk.learned[3][0] == 4 + len(spelling("fish xmyfish", tokenizer)) + 1


def test_of_two_names_the_longer_one_counts(tokenizer):
    [chunk] = prompt_chunks("bad-fish bad", tokenizer, learned={"bad": 1, "bad-fish": 1})

    assert chunk.learned == ((1, "bad-fish", 0), (2, "bad", 0))


@pytest.mark.parametrize(
    ("before", "count", "expected"),
    [(70, 5, [75]), (70, 6, [70, 6]), (0, 75, [75]), (3, 75, [3, 75]), (0, 80, [75, 5]), (3, 80, [3, 75, 5]), (75, 1, [75, 1])],
)
def test_vectors_stay_together_if_they_fit_into_a_chunk(tokenizer, before, count, expected):
    assert lengths(fish(before) + "myword", tokenizer, learned={"myword": count}) == expected


def test_vectors_behind_a_late_comma_move_on_as_a_whole(tokenizer):
    first, second = prompt_chunks(f"{fish(60)}, myword {fish(11)} red", tokenizer, learned={"myword": 3})

    assert first.learned == ()
    assert second.learned == ((1, "myword", 0), (2, "myword", 1), (3, "myword", 2))
