from __future__ import annotations

from copy import copy

import pytest
import torch
from checkpoints import shrunken
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from synthaug.errors import SettingError
from synthaug.models.load import load_base
from synthaug.prompts.encode import TextStates, read_tokens, text_states_of, token_chunks


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


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl_base):
    return load_base(str(tiny_sdxl_base), parts=("text",))


@pytest.fixture(scope="module")
def sdxl_pipeline(tiny_sdxl_base):
    return StableDiffusionXLPipeline.from_pretrained(tiny_sdxl_base)


@pytest.mark.parametrize("text", ["", "a photo of a fish on white paper", "a screw"])
def test_states_and_projection_of_sdxl_are_those_of_its_pipeline(sdxl, sdxl_pipeline, text):
    texts = text_states_of(sdxl)

    with torch.inference_mode():
        states, _, pooled, _ = sdxl_pipeline.encode_prompt(text, device="cpu", do_classifier_free_guidance=False)

    assert texts(text).shape == (77, 16 + 24)
    assert torch.allclose(texts(text), states[0], atol=1e-6)
    assert torch.allclose(texts.pooled(text), pooled[0], atol=1e-6)


def test_no_text_is_encoded_like_any_other_as_a_negative_prompt_of_the_pipeline_is(sdxl, sdxl_pipeline):
    texts = text_states_of(sdxl)

    with torch.inference_mode():
        _, negative, _, pooled = sdxl_pipeline.encode_prompt("a screw", device="cpu", negative_prompt="")

    assert torch.allclose(texts(""), negative[0], atol=1e-6)
    assert torch.allclose(texts.pooled(""), pooled[0], atol=1e-6)
    assert texts("").any()


def test_states_of_sdxl_are_what_the_last_layer_but_one_says_before_the_last_normalisation(sdxl):
    """Computed layer by layer: what transformers calls a hidden state has changed before (facts of 5.6)."""
    states = text_states_of(sdxl)("a screw")
    mask = torch.full((77, 77), float("-inf")).triu(1)[None, None]

    for tokenizer, encoder, columns in (
        (sdxl.tokenizer, sdxl.text_encoder, slice(0, 16)), (sdxl.tokenizer_2, sdxl.text_encoder_2.text_model, slice(16, 40)),
    ):  # fmt: skip
        hidden = encoder.embeddings(torch.tensor(token_chunks("a screw", tokenizer)))
        for layer in encoder.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=mask)
        assert torch.allclose(states[:, columns], hidden[0], atol=1e-5)


def test_states_of_sd_2_are_those_of_its_pipeline(tmp_path):
    base = shrunken("sd2", tmp_path)
    pipeline = StableDiffusionPipeline(
        vae=base.vae, unet=base.unet, text_encoder=base.text_encoder.eval(), tokenizer=base.tokenizer, scheduler=None, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip

    with torch.inference_mode():
        states, _ = pipeline.encode_prompt("a screw", "cpu", 1, do_classifier_free_guidance=False)

    assert torch.allclose(text_states_of(base)("a screw"), states[0], atol=1e-6)


def test_a_long_text_of_sdxl_has_the_projection_of_its_first_chunk(sdxl):
    texts = text_states_of(sdxl)
    first = words(sdxl, 75)

    assert texts(first + " a screw").shape == (154, 40)
    assert torch.allclose(texts.pooled(first + " a screw"), texts.pooled(first), atol=1e-6)
    assert not torch.allclose(texts.pooled("a screw"), texts.pooled(first), atol=1e-3)


def test_the_tokens_of_both_encoders_are_filled_up_each_in_its_way(sdxl):
    first, second = text_states_of(sdxl).tokens("a screw", 2)

    assert (first.shape, second.shape, first.dtype) == ((154,), (154,), torch.int64)
    assert torch.equal(first[:4], second[:4])
    assert set(first[4:77].tolist()) == {sdxl.tokenizer.eos_token_id}
    assert set(second[4:77].tolist()) == {0}


def test_tokens_that_are_read_in_a_batch_say_what_their_texts_say_and_pass_gradients_on(sdxl):
    texts, said = text_states_of(sdxl), ["a screw", words(sdxl, 80)]
    pairs = [texts.tokens(text, 2) for text in said]
    first, second = (torch.stack(column) for column in zip(*pairs, strict=True))
    weight = sdxl.text_encoder_2.text_projection.weight.requires_grad_()

    states, pooled = read_tokens(first, sdxl.text_encoder, (second, sdxl.text_encoder_2))
    pooled.sum().backward()

    assert torch.allclose(states, torch.stack([texts(text, 2) for text in said]), atol=1e-5)
    assert torch.allclose(pooled, torch.stack([texts.pooled(text) for text in said]), atol=1e-5)
    assert weight.grad.any()
    weight.requires_grad_(requires_grad=False).grad = None


def test_one_encoder_has_tokens_and_states_but_no_projection(base, texts):
    tokens, second = texts.tokens("a screw")

    states, pooled = read_tokens(tokens[None], base.text_encoder)

    assert (second, pooled, texts.pooled("a screw")) == (None, None, None)
    assert torch.allclose(states[0], texts("a screw"), atol=1e-6)


def test_a_base_without_its_text_encoders_is_named(tiny_base):
    with pytest.raises(
        SettingError, match=r"texts are encoded by a base's text encoders, .*tiny was loaded without them; load the part 'text'"
    ):
        text_states_of(load_base(str(tiny_base), parts=("unet",)))
