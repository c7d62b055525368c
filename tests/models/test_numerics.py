from __future__ import annotations

import pytest
import torch

from synthaug.errors import NumericsError, SettingError
from synthaug.models.load import load_base
from synthaug.models.numerics import choose_precision, decode_latents


@pytest.fixture
def vae(tiny_base):
    return load_base(str(tiny_base), parts=("vae",)).vae


def nan_in_half_precision(vae, monkeypatch, *, rows):
    """Stands for a GTX 16 card: some pictures of a batch are NaN unless the decoder runs in fp32."""
    decode = type(vae).decode

    def faulty(self, latents, *args, **kwargs):
        out = decode(self, latents, *args, **kwargs)
        if latents.dtype != torch.float32:
            out.sample[rows] = float("nan")
        return out

    monkeypatch.setattr(type(vae), "decode", faulty)


def some_latents(count=3):
    torch.manual_seed(0)
    return torch.randn(count, 4, 2, 3)


def test_pictures_have_eight_pixels_per_latent(vae):
    assert decode_latents(vae, some_latents()).shape == (3, 3, 16, 24)


def test_a_picture_that_is_nan_in_half_precision_is_decoded_again_in_fp32(vae, monkeypatch):
    sound = decode_latents(vae, some_latents())
    vae.to(torch.float16)
    half = decode_latents(vae, some_latents())
    nan_in_half_precision(vae, monkeypatch, rows=[1])

    repairs = [[], [], []]

    repaired = decode_latents(vae, some_latents(), repairs=repairs)

    assert repairs == [[], ["VAE in fp32"], []]
    assert torch.isfinite(repaired).all()
    assert repaired.dtype == torch.float32
    assert torch.allclose(repaired[1], sound[1], atol=0.02)
    assert torch.equal(repaired[[0, 2]], half[[0, 2]])
    assert vae.dtype == torch.float16


def test_a_decoder_that_answers_nan_in_fp32_too_is_said_to_be_damaged(vae):
    vae.post_quant_conv.weight.fill_(float("nan"))

    with pytest.raises(NumericsError, match="NaN for picture 0 even in fp32; the VAE file is damaged"):
        decode_latents(vae, some_latents())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_latents_that_are_not_numbers_are_refused_with_their_rows(vae, bad):
    latents = some_latents()
    latents[1, 0, 0, 0] = bad

    with pytest.raises(NumericsError, match=r"1 of 3 are NaN or infinite \(rows \[1\]\); draw with --precision fp32"):
        decode_latents(vae, latents)


@pytest.mark.parametrize(
    ("capability", "storage", "autocast"),
    [
        ((6, 1), torch.float16, torch.float32),
        ((7, 0), torch.float16, torch.float16),
        ((7, 5), torch.float16, torch.float16),
        ((8, 0), torch.bfloat16, torch.bfloat16),
        ((9, 0), torch.bfloat16, torch.bfloat16),
    ],
)
def test_the_precision_suits_the_card(capability, storage, autocast):
    found = choose_precision("auto", "cuda", capability=capability)

    assert (found.storage, found.autocast) == (storage, autocast)


@pytest.mark.parametrize(("card", "autocast"), [("NVIDIA GeForce GTX 1660 Ti", torch.float32), ("Tesla T4", torch.float16)])
def test_a_gtx_16_is_told_from_other_cards_of_its_generation(monkeypatch, card, autocast):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: card)

    assert choose_precision("auto", "cuda").autocast == autocast


def test_a_precision_that_is_asked_for_is_taken_at_its_word():
    assert choose_precision("fp16", "cpu").storage == torch.float16
    assert choose_precision("auto", "cpu").storage == torch.float32


def test_an_unknown_precision_is_refused_with_the_choices():
    with pytest.raises(SettingError, match="unknown precision 'fp8'; choose one of: bf16, fp16, fp32"):
        choose_precision("fp8", "cpu")
