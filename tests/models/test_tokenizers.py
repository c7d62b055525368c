from __future__ import annotations

import shutil

import pytest
from checkpoints import cut_off
from transformers import CLIPTokenizer

from synthaug.errors import UnusableFileError
from synthaug.models import tokenizers
from synthaug.models.tokenizers import find_tokenizer, read_tokenizer
from synthaug.pocket.words import train_tokenizer


@pytest.fixture
def words(tiny_base):
    return len(CLIPTokenizer.from_pretrained(tiny_base, subfolder="tokenizer"))


@pytest.fixture
def hub(tiny_base, monkeypatch):
    """Stands for the hub and its cache; says what was asked of it."""
    asked = []
    real = CLIPTokenizer.from_pretrained

    def make(*, cached, online):
        def load(place, *, subfolder="", local_files_only=False):
            if place not in dict(tokenizers._KNOWN):
                return real(place)
            asked.append((place, "cache" if local_files_only else "hub"))
            if (place in cached) if local_files_only else online:
                return real(tiny_base, subfolder="tokenizer")
            raise OSError("not there")

        monkeypatch.setattr(CLIPTokenizer, "from_pretrained", load)
        return asked

    return make


def test_a_folder_beside_the_file_is_taken_without_looking_elsewhere(tiny_base, tmp_path, words, hub, monkeypatch):
    cut_off(monkeypatch)
    asked = hub(cached=(), online=True)
    shutil.copytree(tiny_base / "tokenizer", tmp_path / "tokenizer")

    assert len(find_tokenizer(tmp_path / "model.safetensors", words=words, is_open=False)) == words
    assert asked == []


def test_the_cache_is_asked_before_the_hub_whichever_base_it_came_with(tmp_path, words, hub):
    asked = hub(cached=("stabilityai/stable-diffusion-xl-base-1.0",), online=True)

    find_tokenizer(tmp_path / "model.safetensors", words=words, is_open=False)

    assert {where for _, where in asked} == {"cache"}
    assert asked[-1][0] == "stabilityai/stable-diffusion-xl-base-1.0"


def test_the_hub_is_asked_last(tmp_path, words, hub):
    asked = hub(cached=(), online=True)

    find_tokenizer(tmp_path / "model.safetensors", words=words, is_open=False)

    assert [where for _, where in asked] == ["cache"] * 4 + ["hub"]


def test_without_any_the_user_is_told_where_to_put_one(tmp_path, words, hub):
    hub(cached=(), online=False)

    with pytest.raises(
        UnusableFileError, match=r"has no folder 'tokenizer' and openai/.* cannot be reached; copy vocab.json, merges.txt .*/tokenizer"
    ):
        find_tokenizer(tmp_path / "model.safetensors", words=words, is_open=False)


def test_a_tokenizer_with_other_words_than_the_encoder_is_refused(tiny_base, tmp_path, words):
    shutil.copytree(tiny_base / "tokenizer", tmp_path / "tokenizer")

    with pytest.raises(UnusableFileError, match=rf"tokenizer has {words}, .*model.safetensors was trained with 49408; put the tokenizer"):
        find_tokenizer(tmp_path / "model.safetensors", words=49408, is_open=False)


def test_a_folder_without_words_is_refused(tmp_path):
    (tmp_path / "tokenizer").mkdir()

    with pytest.raises(ValueError, match=r"its tokenizer knows \d tokens, not even the letters"):
        find_tokenizer(tmp_path / "model.safetensors", words=49408, is_open=False)


def test_a_tokenizer_whose_files_are_damaged_is_named(tmp_path):
    train_tokenizer(["a fish"], tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "merges.txt").write_text("#version: 0.2\nbroken\n")

    with pytest.raises(ValueError, match=r"its tokenizer cannot be read: .*[Mm]erges"):
        read_tokenizer(tmp_path / "tokenizer")


def test_an_open_clip_encoder_gets_texts_that_are_filled_up_with_word_0(tiny_base, tmp_path, words):
    shutil.copytree(tiny_base / "tokenizer", tmp_path / "tokenizer")
    path = tmp_path / "model.safetensors"

    clip, open_clip = (find_tokenizer(path, words=words, is_open=is_open) for is_open in (False, True))

    assert clip.pad_token_id == clip.eos_token_id
    assert open_clip.pad_token_id == 0
    assert open_clip("fish").input_ids == clip("fish").input_ids


def test_the_second_encoder_takes_its_own_folder_if_there_is_one(tiny_base, tmp_path, words):
    for folder, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "b")):
        CLIPTokenizer.from_pretrained(tiny_base, subfolder="tokenizer", pad_token=pad).save_pretrained(tmp_path / folder)
    path = tmp_path / "model.safetensors"

    first, second = (find_tokenizer(path, words=words, is_open=second, second=second) for second in (False, True))

    assert (first.pad_token, second.pad_token) == ("<|endoftext|>", "b")
