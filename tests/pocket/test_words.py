from __future__ import annotations

import pytest
from transformers import CLIPTokenizer

from synthaug.models.load import load_base
from synthaug.pocket import WEIGHTS
from synthaug.pocket.words import train_tokenizer


@pytest.fixture(scope="module", params=["trained here", "shipped"])
def tokenizer(request, tmp_path_factory):
    if request.param == "shipped":
        return CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    captions = ["a photo of a silver fish on white paper", "two steel screws with a crack"] * 4
    return train_tokenizer(captions, tmp_path_factory.mktemp("words"))


@pytest.mark.parametrize("text", ["iriko", "いりこ", "「いりこ」 腹切れ", "żółw 🐟", "belly-burst 12%"])
def test_any_text_is_spelled_without_unknown_tokens_and_read_back(tokenizer, text):
    tokens = tokenizer(text, add_special_tokens=False).input_ids

    assert tokens
    assert not set(tokens) & {tokenizer.unk_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}
    assert tokenizer.decode(tokens).replace(" ", "") == text.replace(" ", "")


def test_words_of_the_captions_are_short_and_strange_ones_longer(tokenizer):
    lengths = {word: len(tokenizer(word, add_special_tokens=False).input_ids) for word in ("fish", "paper", "iriko")}

    assert lengths["fish"] <= 2
    assert lengths["paper"] <= 2
    assert lengths["iriko"] > 1


def test_a_text_is_framed_as_clip_frames_it(tokenizer):
    ids = tokenizer("a fish", padding="max_length", max_length=77).input_ids

    assert (ids[0], ids[-1], len(ids)) == (tokenizer.bos_token_id, tokenizer.eos_token_id, 77)


def test_case_and_spaces_do_not_matter(tokenizer):
    assert tokenizer("A  Fish").input_ids == tokenizer("a fish").input_ids


def test_the_text_encoder_knows_every_token():
    base = load_base("pocket", parts=("text",))

    assert base.text_encoder.config.vocab_size == len(base.tokenizer)
