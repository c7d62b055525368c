from __future__ import annotations

import pytest
import torch

from synthaug import Request, Sampler
from synthaug.errors import NumericsError, SettingError
from synthaug.generation.guard import SATURATED, Room, looks, repairs_said, unsound


def request(**fields):
    return Request(**{"prompt": "a photo of a fish", "seed": 7, "steps": 2, "size": (32, 40), **fields})


def nan_in_half_precision(sampler, monkeypatch, *, rows):
    """Stands for a card whose UNet overflows in half precision, for some rows of a batch."""
    unet = sampler.networks.unet
    forward = unet.forward

    def faulty(sample, *args, **kwargs):
        out = forward(sample, *args, **kwargs)
        if sample.dtype != torch.float32:
            out[0][rows if len(sample) > max(rows) else 0] = float("nan")
        return out

    monkeypatch.setattr(unet, "forward", faulty)


def test_an_image_that_is_nan_in_half_precision_is_drawn_again_by_itself_in_fp32(tiny_base, monkeypatch):
    sampler, exact = Sampler(str(tiny_base), precision="bf16"), Sampler(str(tiny_base))
    wanted = [request(seed=seed, guidance=1.0) for seed in (1, 2, 3)]
    sound = sampler(wanted)
    weights = {name: weight.clone() for name, weight in sampler.base.unet.state_dict().items()}
    nan_in_half_precision(sampler, monkeypatch, rows=[1])

    drawn = sampler.draw(wanted)

    assert torch.equal(drawn.images[[0, 2]], sound[[0, 2]])
    assert (drawn.images[1].int() - exact([wanted[1]])[0].int()).abs().max() <= 8  # its VAE is in bf16 still
    assert drawn.repairs == ((), ("UNet in fp32",), ())
    assert sampler.repairs == {"UNet in fp32": 1}
    assert all(torch.equal(weight, weights[name]) for name, weight in sampler.base.unet.state_dict().items())


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_nan_in_fp32_too_is_refused_with_the_module_where_it_comes_up(tiny_base, part):
    sampler = Sampler(str(tiny_base))
    if part == "unet":
        sampler.base.unet.up_blocks[0].resnets[0].conv1.weight.fill_(float("nan"))
    else:
        sampler.base.text_encoder.final_layer_norm.weight.fill_(float("nan"))

    told = {
        "unet": r"its up_blocks.0.resnets.0.conv1 is the first to answer NaN; take the LoRA off or weaken it",
        "text_encoder": r"is given is NaN already, so the text encoder or a LoRA on it is damaged",
    }
    with pytest.raises(NumericsError, match=told[part]):
        sampler([request()])


def test_a_picture_of_one_colour_is_told_and_not_repaired(tiny_base, monkeypatch):
    sampler = Sampler(str(tiny_base))
    monkeypatch.setattr("synthaug.generation.finishing.decode_latents", lambda _, z, **__: torch.full((len(z), 3, 32, 40), 2.0))

    drawn = sampler.draw([request()])

    assert drawn.repairs == (("blank", "saturated"),)
    assert int(drawn.images.min()) == 255


def test_half_a_picture_of_pure_white_is_not_saturated_and_more_is():
    images = torch.full((2, 3, 10, 10), 200, dtype=torch.uint8)
    images[0, :, :5] = 255
    images[1, :, :6] = 255

    assert SATURATED == 0.5
    assert looks(images) == [(), ("saturated",)]


def test_a_pure_colour_is_neither_black_nor_white():
    image = torch.randint(1, 255, (1, 3, 10, 10), dtype=torch.uint8)
    image[:, 0] = 255

    assert looks(image) == [()]


def test_out_of_memory_halves_the_batch_goes_on_and_is_remembered(tiny_base, monkeypatch):
    sampler = Sampler(str(tiny_base))
    wanted = [request(seed=seed) for seed in range(5)]
    whole, latents, seen = sampler(wanted), sampler._latents, []

    def short_of_memory(requests, *given, chunks):
        seen.append(len(requests))
        if len(requests) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return latents(requests, *given, chunks=chunks)

    monkeypatch.setattr(sampler, "_latents", short_of_memory)

    first, again = sampler(wanted), sampler(wanted[:4])

    assert seen == [5, 2, 2, 1, 2, 2]
    assert (first.int() - whole.int()).abs().max() <= 1
    assert torch.equal(first[:4], again)
    assert sampler.repairs["smaller batch"] == 1


def test_one_image_that_does_not_fit_is_refused_with_what_to_try():
    def never(rows):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    with pytest.raises(SettingError, match=r"one of 512 x 768 does not; draw a smaller size, take --precision fp16"):
        Room().draw([0, 1], (512, 768), never)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def wrong(rows):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Room().draw([0, 1], (8, 8), wrong)


def test_infinite_latents_are_unsound():
    assert unsound(torch.tensor([1.0, float("inf"), float("nan")]).reshape(3, 1, 1, 1)) == [1, 2]


def test_nothing_repaired_says_nothing():
    assert repairs_said({}) == ""
