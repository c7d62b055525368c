"""Weights, clip skip and learned words, each against a computation that does without our code."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from checkpoints import shrunken
from conftest import tiny_text
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from synthaug.errors import NumericsError, SettingError, WrongBaseModelError
from synthaug.pocket.words import train_tokenizer
from synthaug.prompts.encode import TextStates, text_states_of, token_chunks
from synthaug.prompts.read import read_tokens, weighed

LAYERS = 4


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer(["red fish on white paper"] * 5, tmp_path_factory.mktemp("words"))


def trained(encoder):
    """Its normalisation is no longer the identity, so that states have a mean."""
    inner = getattr(encoder, "text_model", encoder)
    nn.init.normal_(inner.final_layer_norm.bias, mean=0.3)
    nn.init.normal_(inner.encoder.layers[-2].mlp.fc2.bias, mean=0.3)
    return encoder.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    torch.manual_seed(0)
    return trained(CLIPTextModel(tiny_text(tokenizer, num_hidden_layers=LAYERS)))


@pytest.fixture(scope="module")
def second(tokenizer):
    """SDXL's second tokenizer and encoder."""
    torch.manual_seed(1)
    padded = CLIPTokenizer.from_pretrained(tokenizer.name_or_path, pad_token=tokenizer.convert_ids_to_tokens(0))
    settings = {"hidden_size": 24, "projection_dim": 12, "hidden_act": "gelu", "num_hidden_layers": LAYERS}
    return padded, trained(CLIPTextModelWithProjection(tiny_text(padded, **settings)))


@pytest.fixture
def texts(tokenizer, encoder):
    return TextStates(tokenizer, encoder)


@pytest.fixture
def pair(tokenizer, encoder, second):
    return TextStates(tokenizer, encoder, second)


@torch.no_grad()
def by_hand(encoder, tokens, skip, *, normed=True):
    """States of one chunk from a copy without the layers that are skipped: hidden states are not what they were before transformers 5.6."""
    cut = deepcopy(getattr(encoder, "text_model", encoder))
    cut.encoder.layers = cut.encoder.layers[: len(cut.encoder.layers) + 1 - skip]
    if not normed:
        cut.final_layer_norm = nn.Identity()
    return cut(torch.tensor([tokens]))[0][0]


@pytest.mark.parametrize("skip", [1, 2, 3, 4])
def test_clip_skip_is_an_earlier_layer_and_the_last_normalisation(texts, tokenizer, encoder, skip):
    [tokens] = token_chunks("a red fish", tokenizer)

    states = texts("a red fish", clip_skip=skip)

    assert torch.allclose(states, by_hand(encoder, tokens, skip), atol=1e-5)
    assert skip == 1 or not torch.allclose(states, texts("a red fish"), atol=1e-3)


class BeforeFlattening(nn.Module):
    """A text encoder as transformers laid it out until 5.5: all but the call lies in ``text_model``."""

    def __init__(self, encoder):
        super().__init__()
        self.text_model, self.config, self.device = getattr(encoder, "text_model", encoder), encoder.config, encoder.device
        self.get_input_embeddings, self.forward = encoder.get_input_embeddings, encoder.forward


@pytest.mark.parametrize("skip", [1, 2, 4])
def test_an_encoder_in_the_layout_of_older_versions_says_the_same(texts, tokenizer, encoder, skip):
    older = TextStates(tokenizer, BeforeFlattening(encoder))

    assert torch.equal(older("a (red:1.5) fish", clip_skip=skip), texts("a (red:1.5) fish", clip_skip=skip))


def test_clip_skip_of_sd_2_counts_from_the_last_layer_that_its_base_has(tmp_path):
    base = shrunken("sd2", tmp_path)
    base.text_encoder.eval()
    [tokens] = token_chunks("a screw", base.tokenizer)

    assert torch.allclose(text_states_of(base)("a screw", clip_skip=2), by_hand(base.text_encoder, tokens, 2), atol=1e-5)


def test_clip_skip_of_sdxl_begins_at_the_last_layer_but_one(pair, tokenizer, encoder, second):
    [first_tokens], [tokens] = token_chunks("a red fish", tokenizer), token_chunks("a red fish", second[0])

    def expected(skip):
        return torch.cat([by_hand(encoder, first_tokens, skip, normed=False), by_hand(second[1], tokens, skip, normed=False)], -1)

    assert torch.allclose(pair("a red fish"), expected(2), atol=1e-5)
    assert torch.equal(pair("a red fish", clip_skip=2), pair("a red fish"))
    assert torch.allclose(pair("a red fish", clip_skip=3), expected(3), atol=1e-5)
    assert torch.equal(pair.pooled("a red fish", clip_skip=3), pair.pooled("a red fish"))


@pytest.mark.parametrize("skip", [0, LAYERS + 1])
def test_a_layer_that_there_is_not_is_refused(texts, skip):
    with pytest.raises(SettingError, match=rf"clip_skip must be 1 to 4, the layers of this base's text encoder, got {skip}"):
        texts("a fish", clip_skip=skip)


def test_tokens_that_are_trained_on_have_clip_skip_too(texts, tokenizer, encoder):
    states, _ = read_tokens(torch.tensor(token_chunks("a red fish", tokenizer)), encoder, clip_skip=2)

    assert torch.allclose(states[0], texts("a red fish", clip_skip=2), atol=1e-6)


def test_original_emphasis_weighs_and_keeps_the_mean_of_the_chunk(texts, tokenizer, encoder):
    [tokens] = token_chunks("a red fish", tokenizer)
    plain = by_hand(encoder, tokens, 1)
    place = tokens.index(tokenizer.convert_tokens_to_ids("red</w>"))
    wanted = plain.clone()
    wanted[place] *= 1.5

    no_norm, original = texts("a (red:1.5) fish", emphasis="No norm"), texts("a (red:1.5) fish")

    assert torch.allclose(no_norm, wanted, atol=1e-5)
    assert torch.allclose(original, wanted * (plain.mean() / wanted.mean()), atol=1e-4)
    assert original.mean().item() == pytest.approx(plain.mean().item(), rel=1e-3, abs=1e-6)
    assert not torch.allclose(original, no_norm, atol=1e-3)


def test_emphasis_that_is_ignored_or_text_changes_nothing(texts):
    assert torch.equal(texts("a (red:1.5) fish", emphasis="Ignore"), texts("a red fish"))
    assert torch.equal(texts("a (red:1.5) fish", emphasis="None"), texts.plain("a (red:1.5) fish")[0])
    assert not torch.allclose(texts("a (red:1.5) fish", emphasis="None"), texts("a red fish"), atol=1e-3)


def test_each_chunk_and_each_encoder_keeps_a_mean_of_its_own(pair):
    one, other = pair("(red:1.5) fish"), pair("fish (paper:0.2)")

    both = pair("(red:1.5) fish BREAK fish (paper:0.2)")

    plain = pair("red fish")
    assert torch.allclose(both, torch.cat([one, other]), atol=1e-6)
    for columns in (slice(0, 16), slice(16, 40)):
        assert one[:, columns].mean().item() == pytest.approx(plain[:, columns].mean().item(), rel=1e-3, abs=1e-6)
    assert torch.equal(pair.pooled("(red:1.5) fish"), pair.pooled("red fish"))
    assert torch.equal(pair.pooled("(red:1.5) fish BREAK on paper"), pair.pooled("red fish"))


@pytest.mark.parametrize("states", [[[1.0], [1.0]], [[1.0], [-1.0]]])
def test_a_mean_that_cannot_be_kept_is_refused(states):
    with pytest.raises(NumericsError, match=r"weights move the mean of a text's states from \d to -?\d, .*; take 'No norm'"):
        weighed(torch.tensor(states), [1.0, -1.0], "Original")


def test_a_mean_of_nothing_but_rounding_is_kept_without_scaling():
    """As of an encoder whose last normalisation was never trained."""
    states = torch.tensor([[1.0, -1.0 + 1e-7], [0.5, -0.5 + 2e-7]])

    assert torch.equal(weighed(states, [1.0, 2.0], "Original"), weighed(states, [1.0, 2.0], "No norm"))


def test_weights_do_not_change_the_kind_of_number():
    assert weighed(torch.ones(2, 3, dtype=torch.bfloat16), [1.0, 2.0], "Original").dtype == torch.bfloat16


def test_captions_are_plain_text_whatever_stands_in_them(pair, tokenizer, encoder):
    caption = "a (red:1.5) [fish] BREAK \\(on\\) paper"
    [tokens] = token_chunks(caption, tokenizer)

    states, pooled = pair.plain(caption)

    assert torch.allclose(states[:, :16], by_hand(encoder, tokens, 2, normed=False), atol=1e-5)
    assert torch.equal(pair.tokens(caption)[0], torch.tensor(tokens))
    assert torch.equal(pair.plain("a fish", 2)[0], pair("a fish", 2))
    assert torch.equal(pair.plain("a fish")[1], pair.pooled("a fish"))
    assert not torch.allclose(pooled, pair.pooled(caption), atol=1e-4)


def table_of(encoder, tokenizer, words):
    """What the encoder knows of words, as an embedding would say it."""
    ids = tokenizer(words, add_special_tokens=False).input_ids
    return encoder.get_input_embeddings().weight[ids].detach().clone()


def test_a_learned_word_says_what_its_vectors_say(pair, tokenizer, encoder, second):
    vectors = (table_of(encoder, tokenizer, "white paper"), table_of(second[1], tokenizer, "white paper"))

    pair.add_embedding("zork", vectors)

    assert torch.allclose(pair("a (zork:1.3) fish"), pair("a (white paper:1.3) fish"), atol=1e-5)
    assert torch.allclose(pair.pooled("a Zork fish"), pair.pooled("a white paper fish"), atol=1e-5)
    assert torch.allclose(
        pair("zork " * 40, clip_skip=3), pair("white paper " * 37 + "BREAK " + "white paper " * 3, clip_skip=3), atol=1e-5
    )
    assert pair.chunks("zork " * 40) == 2
    assert list(pair.embeddings) == ["zork"]


def test_a_word_is_unlearned_and_learned_anew(texts, tokenizer, encoder):
    before = texts("a zork")
    red, white = table_of(encoder, tokenizer, "red"), table_of(encoder, tokenizer, "white")

    texts.add_embedding("zork", (red,))
    learned = texts("a zork")
    texts.forget()
    assert torch.equal(texts("a zork"), learned)
    texts.add_embedding("zork", (white,))
    assert torch.allclose(texts("a zork"), texts("a white"), atol=1e-5)
    texts.drop_embeddings()

    assert torch.allclose(learned, texts("a red"), atol=1e-5)
    assert texts("a zork") is not before
    assert torch.equal(texts("a zork"), before)


def test_an_embedding_leaves_no_trace_on_the_encoder(texts, tokenizer, encoder):
    table = encoder.get_input_embeddings()
    weight = table.weight.detach().clone()

    texts.add_embedding("zork", (torch.randn(2, 16),))
    texts("a zork")

    assert not table._forward_hooks
    assert torch.equal(table.weight, weight)


BAD = {
    "another base": ("zork", (torch.zeros(1, 768),), WrongBaseModelError, r"'zork' has vectors of shape \[\(1, 768\)\].*widths \[16\]"),
    "no rows": ("zork", (torch.zeros(16),), WrongBaseModelError, r"'zork' has vectors of shape \[\(16,\)\]"),
    "of SDXL": ("zork", (torch.zeros(1, 16), torch.zeros(1, 24)), WrongBaseModelError, r"for this kind of base"),
    "empty": ("zork", (torch.zeros(0, 16),), SettingError, r"must have as many vectors for each encoder, and at least one, got \[0\]"),
    "damaged": ("zork", (torch.full((1, 16), torch.nan),), SettingError, r"the embedding 'zork' must be finite, got 'NaN or infinity'"),
    "nameless": (" ", (torch.zeros(1, 16),), SettingError, r"must have a name with letters or signs, got ' '"),
    "twice": ("OTHER", (torch.zeros(1, 16),), SettingError, r"must not be spelled as another one is, got \['other'\]"),
}


@pytest.mark.parametrize(("name", "vectors", "error", "sentence"), BAD.values(), ids=BAD)
def test_an_embedding_that_cannot_be_used_is_refused(texts, name, vectors, error, sentence):
    texts.add_embedding("other", (torch.zeros(1, 16),))

    with pytest.raises(error, match=sentence):
        texts.add_embedding(name, vectors)

    assert list(texts.embeddings) == ["other"]


def test_an_embedding_of_sdxl_has_as_many_vectors_for_each_encoder(pair):
    with pytest.raises(SettingError, match=r"must have as many vectors for each encoder, and at least one, got \[2, 3\]"):
        pair.add_embedding("zork", (torch.zeros(2, 16), torch.zeros(3, 24)))


def test_states_are_remembered_by_everything_they_depend_on(texts, encoder, monkeypatch):
    calls = []
    forward = type(encoder).forward
    monkeypatch.setattr(type(encoder), "forward", lambda self, *a, **k: calls.append(1) or forward(self, *a, **k))
    asked = [{}, {"clip_skip": 2}, {"emphasis": "No norm"}, {"emphasis": "Ignore"}]

    answers = [texts("a (red:1.5) fish", **settings) for settings in asked]
    again = [texts("a (red:1.5) fish", **settings) for settings in asked]
    longer = texts("a (red:1.5) fish", 3)
    texts("", 2)

    assert all(first is second for first, second in zip(answers, again, strict=True))
    assert len(calls) == len(asked) + 1, "the empty chunk is read once"
    assert torch.equal(longer[:77], answers[0])
    assert torch.equal(longer[77:154], longer[154:])
