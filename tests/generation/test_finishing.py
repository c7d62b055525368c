from __future__ import annotations

import pytest
import torch
from checkpoints import make_tiny_decoder
from diffusers import AutoencoderTiny

from synthaug import Request, Sampler
from synthaug.errors import SettingError


def request(**fields):
    return Request(**{"prompt": "a photo of a fish", "seed": 7, "steps": 2, "size": (32, 40), **fields})


def test_latents_are_kept_and_can_be_decoded_again_in_full(tiny_base, tmp_path):
    sampler = Sampler(str(tiny_base), tiny_decoder=make_tiny_decoder(tmp_path / "tiny"))
    full = sampler([request(), request(seed=8)])

    quick = sampler.draw([request(decoder="tiny"), request(seed=8, decoder="tiny")])

    assert quick.images.shape == full.shape
    assert (quick.images.int() - full.int()).abs().max() > 3
    assert torch.equal(sampler.decode(quick.latents), full)
    assert torch.equal(sampler.decode(quick.latents, decoder="tiny"), quick.images)


def test_the_tiny_decoder_is_that_of_diffusers(tiny_base, tmp_path):
    folder = make_tiny_decoder(tmp_path / "tiny")
    drawn = Sampler(str(tiny_base), tiny_decoder=folder).draw([request(decoder="tiny")])

    with torch.no_grad():
        wanted = AutoencoderTiny.from_pretrained(folder).decode(drawn.latents).sample

    assert (drawn.images.float() - ((wanted + 1) * 127.5).clamp(0, 255).round()).abs().max() <= 1


def test_both_decoders_may_be_asked_for_in_one_call(tiny_base, tmp_path):
    sampler = Sampler(str(tiny_base), tiny_decoder=make_tiny_decoder(tmp_path / "tiny"))

    mixed = sampler([request(), request(decoder="tiny")])

    assert torch.equal(mixed[0], sampler([request()])[0])
    assert torch.equal(mixed[1], sampler([request(decoder="tiny")])[0])


def test_a_tiny_decoder_for_other_latents_is_refused(tiny_base, tmp_path):
    sampler = Sampler(str(tiny_base), tiny_decoder=make_tiny_decoder(tmp_path / "other", channels=16))

    with pytest.raises(SettingError, match=r"latents of 4 channels, .*other takes 16; give that of the base's family"):
        sampler([request(decoder="tiny")])


def test_a_tiny_decoder_that_is_not_there_is_refused_with_the_way_out(tiny_base, tmp_path):
    sampler = Sampler(str(tiny_base), tiny_decoder=tmp_path)

    with pytest.raises(SettingError, match=r"no tiny decoder .* was found here or on the hub .*; draw with decoder full"):
        sampler([request(decoder="tiny")])


def test_pocket_has_no_tiny_decoder_and_says_so():
    with pytest.raises(SettingError, match=r"there is none for the 16 channels of pocket; draw with decoder full"):
        Sampler("pocket").decode(torch.zeros(1, 16, 2, 2), decoder="tiny")
