"""How often each network is asked: what does not depend on the machine, and would make everything slow if it went up unseen."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from synthaug import Request, Sampler


@dataclass
class Asked:
    """Rows of every call, by network."""

    unet: list[int] = field(default_factory=list)
    decoded: list[int] = field(default_factory=list)
    encoded: list[int] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)


@pytest.fixture
def counted(tiny_base):
    """A sampler, and what its networks are asked."""
    sampler, asked = Sampler(str(tiny_base), device="cpu"), Asked()
    base = sampler.base
    for module, rows in ((base.unet, asked.unet), (base.vae.decoder, asked.decoded), (base.vae.encoder, asked.encoded)):
        module.register_forward_pre_hook(lambda _, given, rows=rows: rows.append(len(given[0])))
    base.text_encoder.register_forward_pre_hook(lambda *_: asked.texts.append(1))
    return sampler, asked


def requests(count, **more):
    return [Request(**{"prompt": "a fish", "seed": seed, "steps": 20, "size": (32, 32), "guidance": 7.0, **more}) for seed in range(count)]


@pytest.mark.parametrize("count", [1, 4])
def test_a_batch_takes_one_unet_call_a_step_with_both_halves_of_guidance(counted, count):
    sampler, asked = counted

    sampler(requests(count))

    assert asked.unet == [2 * count] * 20


def test_without_guidance_a_call_has_a_row_an_image(counted):
    sampler, asked = counted

    sampler(requests(3, guidance=1.0))

    assert asked.unet == [3] * 20


def test_a_guidance_interval_saves_the_rows_outside_of_it(counted):
    sampler, asked = counted

    sampler(requests(2, guidance_interval=(0.25, 0.5)))

    assert asked.unet == [2] * 5 + [4] * 5 + [2] * 10


def test_images_of_different_steps_and_guidance_share_their_calls(counted):
    sampler, asked = counted

    sampler([*requests(1, steps=20), *requests(1, steps=10, guidance=1.0)])

    assert asked.unet == [3] * 10 + [2] * 10


def test_every_image_is_decoded_once_and_none_is_encoded(counted):
    sampler, asked = counted

    sampler(requests(4))

    assert sum(asked.decoded) == 4
    assert asked.encoded == []


def test_a_starting_photo_is_encoded_once(counted):
    sampler, asked = counted
    photos = torch.full((2, 3, 32, 32), 200, dtype=torch.uint8)

    sampler(requests(2, image="given.png", strength=0.5), images=photos)

    assert sum(asked.encoded) == 2


def test_a_text_is_read_once_however_many_images_and_calls_it_is_for(counted):
    sampler, asked = counted

    sampler(requests(4))
    sampler(requests(2))
    sampler(requests(1, prompt="a screw"))

    assert len(asked.texts) == 3  # the fish, the screw, and nothing
