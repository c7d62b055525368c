from __future__ import annotations

from copy import copy

import pytest
import torch

from synthaug.models.load import load_base
from synthaug.prompts.encode import TextStates, token_chunks


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(str(tiny_base), parts=("text",))


@pytest.fixture
def texts(base):
    return TextStates(base.tokenizer, base.text_encoder)


def words(base, count):
    """A text of exactly so many tokens."""
    text = " ".join(["fish"] * count)
    assert len(base.tokenizer(text, add_special_tokens=False).input_ids) == count
    return text


@pytest.mark.parametrize(("count", "chunks"), [(0, 1), (1, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
def test_a_text_is_cut_into_chunks_of_75_words(base, count, chunks):
    found = token_chunks(words(base, count), base.tokenizer)

    spelled = [token for chunk in found for token in chunk if token not in base.tokenizer.all_special_ids]
    assert len(found) == chunks
    assert {len(chunk) for chunk in found} == {77}
    assert all(chunk[0] == base.tokenizer.bos_token_id and base.tokenizer.eos_token_id in chunk for chunk in found)
    assert len(spelled) == count


def test_a_tokenizer_with_a_padding_token_of_its_own_pads_after_one_end(base):
    """As those of SD 2.x have."""
    tokenizer = copy(base.tokenizer)
    tokenizer.pad_token = "!</w>"
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id

    [chunk] = token_chunks("fish fish", tokenizer)

    assert pad != end
    assert (chunk[0], chunk[1] == chunk[2], chunk[3:]) == (start, True, [end, *[pad] * 73])


@pytest.mark.parametrize("text", ["", "a photo of a fish on white paper", "a screw"])
def test_states_of_a_short_text_are_those_that_transformers_computes(base, texts, text):
    tokens = base.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt")

    with torch.inference_mode():
        theirs = base.text_encoder(tokens.input_ids)[0][0]

    assert torch.allclose(texts(text), theirs, atol=1e-6)


def test_a_long_text_is_the_states_of_its_chunks_side_by_side(base, texts):
    long = words(base, 75) + " a screw"

    states = texts(long)

    assert states.shape == (154, 16)
    assert torch.allclose(states[:77], texts(words(base, 75)), atol=1e-6)
    assert torch.allclose(states[77:], texts("a screw"), atol=1e-6)


def test_missing_chunks_are_filled_with_empty_ones(texts):
    states = texts("a screw", 3)

    assert texts.chunks("a screw") == 1
    assert states.shape == (3 * 77, 16)
    assert torch.allclose(states[77:154], texts(""), atol=1e-6)
    assert torch.equal(states[154:], states[77:154])


def test_a_text_is_encoded_once_until_it_is_forgotten(base, texts, monkeypatch):
    calls = []
    forward = type(base.text_encoder).forward
    monkeypatch.setattr(type(base.text_encoder), "forward", lambda self, *a, **k: calls.append(1) or forward(self, *a, **k))

    first = texts("a fish")
    again = texts("a fish")
    texts.forget()
    texts("a fish")

    assert again is first
    assert len(calls) == 2


def test_only_so_many_texts_are_remembered(base):
    texts = TextStates(base.tokenizer, base.text_encoder, keep=2)

    first = texts("a fish")
    texts("a screw")
    texts("paper")

    assert texts("a fish") is not first
    assert torch.equal(texts("a fish"), first)
