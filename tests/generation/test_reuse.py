from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_networks import POOLED, WIDTH, tiny_unet

from synthaug import Request, Sampler
from synthaug.generation.reuse import DeepCache
from synthaug.pocket.networks import build_denoiser


def request(**fields):
    return Request(**{"prompt": "a photo of a fish", "seed": 7, "steps": 6, "size": (32, 40), **fields})


def asked(family, count=3):
    """A UNet and what it is asked."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator)

    t = torch.tensor([900.0, 500.0, 20.0])[:count]
    if family == "pocket":
        torch.manual_seed(0)
        unet = build_denoiser().eval()
        for weight in unet.parameters():  # its blocks start as identities, which would hide what is left out
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.02)
        return unet, (randn(count, 16, 8, 12), t, randn(count, 77, 128)), {}
    unet = tiny_unet(family=family)
    more = {"added_cond_kwargs": {"text_embeds": randn(count, POOLED), "time_ids": randn(count, 6)}} if family == "sdxl" else {}
    return unet, (randn(count, 4, 4, 6), t, randn(count, 77, WIDTH * (2 if family == "sdxl" else 1))), more


SLOTS = [(0, 0, "a"), (0, -1, ""), (1, 0, "a")]


@pytest.mark.parametrize("family", ["sd1", "sdxl", "pocket"])
@torch.no_grad()
def test_every_step_anew_is_the_unet_itself_bit_for_bit(family):
    unet, given, more = asked(family)

    answer = DeepCache(unet, 1).ask(*given, SLOTS, [0, 1, 2], **more)

    assert torch.equal(answer, unet(*given, return_dict=False, **more)[0])


@pytest.mark.parametrize("family", ["sd1", "sdxl", "pocket"])
@torch.no_grad()
def test_the_outer_blocks_with_what_the_inner_ones_just_said_are_the_whole_unet(family):
    unet, given, more = asked(family)
    whole = unet(*given, return_dict=False, **more)[0]
    cache = DeepCache(unet, 2)
    cache.ask(*given, SLOTS, [0, 0, 0], **more)
    unet.mid_block.register_forward_pre_hook(lambda *_: pytest.fail("the inner UNet was run"))

    answer = cache.ask(*given, SLOTS, [1, 1, 1], **more)

    assert torch.allclose(answer, whole, atol=1e-5)


@torch.no_grad()
def test_a_row_whose_text_has_changed_or_that_is_new_is_run_in_full():
    unet, (z, t, states), _ = asked("sd1")
    cache, seen = DeepCache(unet, 3), []
    unet.mid_block.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    cache.ask(z[:2], t[:2], states[:2], SLOTS[:2], [0, 0])

    answer = cache.ask(z, t, states, [(0, 0, "a"), (0, -1, "b"), (1, 0, "a")], [1, 1, 1])

    assert seen == [2, 2]
    assert torch.allclose(answer, unet(z, t, states, return_dict=False)[0], atol=1e-5)


@torch.no_grad()
def test_the_inner_unet_is_run_every_third_step_of_each_row():
    unet, (z, t, states), _ = asked("sd1")
    cache, seen = DeepCache(unet, 3), []
    unet.mid_block.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))

    for step in range(5):
        cache.ask(z, t, states, SLOTS, [step, step, step + 1])

    assert seen == [3, 1, 2]  # all in the beginning, the third row at its step 3, then the two others at theirs


def test_reuse_changes_the_picture_a_little_and_depends_on_the_request_alone(tiny_base):
    sampler = Sampler(str(tiny_base))
    wanted = [
        request(reuse=2, guidance_interval=(0.0, 0.5)), request(reuse=2, seed=8, steps=3), request(reuse=3, sampler="Heun"), request(),
    ]  # fmt: skip

    together = sampler(wanted)
    alone = torch.cat([sampler([one]) for one in wanted])

    assert (together.int() - alone.int()).abs().max() <= 1
    assert not torch.equal(alone[0], sampler([replace(wanted[0], reuse=1)])[0])
