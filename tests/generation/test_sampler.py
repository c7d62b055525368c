from __future__ import annotations

import pickle
import random
from dataclasses import replace

import pytest
import torch
from conftest import make_photo, make_tiny_lora

from synthaug import Request, Sampler
from synthaug.errors import NumericsError, SettingError, UnusableFileError, WrongBaseModelError
from synthaug.generation.denoise import RESCALE
from synthaug.generation.schedulers import SAMPLERS
from synthaug.models.numerics import Precision
from synthaug.pixels import read_image, to_float
from synthaug.records import LoraUse


@pytest.fixture(scope="module")
def sampler(tiny_base):
    return Sampler(str(tiny_base))


def request(**fields):
    return Request(**{"prompt": "a photo of a fish", "seed": 7, "steps": 4, "size": (32, 40), **fields})


def apart(a, b):
    """Largest difference of two pictures in steps of 1/255."""
    return int((a.int() - b.int()).abs().max())


@pytest.fixture(scope="module")
def mixed(tiny_base, tiny_lora, tmp_path_factory):
    """Requests that differ in everything a request can differ in, and could disturb each other."""
    folder = tmp_path_factory.mktemp("mixed")
    make_tiny_lora(tiny_base, seed=4).write(folder / "second.safetensors")
    make_photo((32, 40), seed=1).save(folder / "photo.png")
    one, two = LoraUse(path=str(tiny_lora)), LoraUse(path=str(folder / "second.safetensors"), weight=0.6)
    photo = str(folder / "photo.png")
    return [
        request(seed=1),
        request(seed=2, prompt="a screw", guidance=1.0),
        request(seed=3, negative_prompt="white paper", guidance=6.5, guidance_rescale=0.6),
        request(seed=4, prompt="fish " * 90, steps=7),
        request(seed=5, sampler="Euler a", steps=3),
        request(seed=5, sampler="Euler a", steps=3, prompt="a screw"),
        request(seed=6, sampler="DDIM", guidance=0.0),
        request(seed=7, sampler="Heun"),
        request(seed=8, loras=(one,)),
        request(seed=8, loras=(one, two), sampler="UniPC"),
        request(seed=9, loras=(two,), guidance=2.0),
        request(seed=10, image=photo, strength=0.5),
        request(seed=11, image=photo, strength=0.9, sampler="Euler a"),
        request(seed=12, image=photo, strength=0.5, loras=(one,), sampler="Heun"),
    ]


@pytest.fixture(scope="module")
def alone(tiny_base, mixed):
    """The same requests, each drawn by itself."""
    sampler = Sampler(str(tiny_base))
    return [sampler([wanted])[0] for wanted in mixed]


@pytest.mark.parametrize("order", [0, 1])
def test_a_sample_depends_on_its_request_alone(sampler, mixed, alone, order):
    """The first clause of the contract: any batch, any order, any history."""
    places = list(range(len(mixed)))
    random.Random(order).shuffle(places)

    together = sampler([mixed[place] for place in places])
    rest = sampler([mixed[place] for place in places[5:9]])

    assert max(apart(image, alone[place]) for image, place in zip(together, places, strict=True)) <= 1
    assert max(apart(image, alone[place]) for image, place in zip(rest, places[5:9], strict=True)) <= 1


def test_what_makes_requests_different_shows_in_the_pictures(alone):
    """The test above would pass if nothing had any effect."""
    assert all(apart(alone[a], alone[b]) > 3 for a in range(len(alone)) for b in range(a))


@pytest.mark.parametrize(
    "field",
    [{"prompt": "a screw"}, {"negative_prompt": "a screw"}, {"guidance": 9.0}, {"steps": 5}, {"seed": 8}, {"guidance_rescale": 1.0}],
)
def test_every_setting_changes_the_picture(sampler, field):
    assert apart(*sampler([request(), request(**field)])) > 1


def test_what_is_not_drawn_from_does_not_change_the_picture(sampler):
    images = sampler([request(), request(label="other", index=5), request(guidance=1.0), request(guidance=1.0, negative_prompt="a screw")])

    assert apart(images[0], images[1]) <= 1
    assert apart(images[2], images[3]) <= 1


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_every_sampler_draws_the_same_sound_pictures_again(sampler, name, steps):
    wanted = [request(sampler=name, steps=steps), request(sampler=name, steps=steps, seed=8)]

    images = sampler(wanted)

    assert images.dtype == torch.uint8
    assert images.shape == (2, 3, 32, 40)
    assert torch.equal(images, sampler(wanted))
    assert apart(images[0], images[1]) > 3


def test_a_lora_is_taken_off_again_without_a_trace(sampler, tiny_lora):
    bare = sampler([request()])
    before = {name: weight.clone() for name, weight in sampler.base.unet.state_dict().items()}

    worn = sampler([request(loras=(LoraUse(path=str(tiny_lora)),))])
    again = sampler([request()])

    assert apart(worn[0], bare[0]) > 3
    assert torch.equal(bare, again)
    assert all(torch.equal(weight, before[name]) for name, weight in sampler.base.unet.state_dict().items())


def test_two_loras_add_up_whatever_their_order(sampler, tiny_lora, mixed):
    first, second = LoraUse(path=str(tiny_lora)), mixed[10].loras[0]

    images = [sampler([request(loras=loras)])[0] for loras in ((first, second), (second, first), (first,), (second,))]

    assert apart(images[0], images[1]) <= 1
    assert min(apart(images[0], images[2]), apart(images[0], images[3])) > 3


def test_a_lora_of_weight_zero_draws_the_bare_base(sampler, tiny_lora):
    images = [sampler([request(loras=loras)]) for loras in ((), (LoraUse(path=str(tiny_lora), weight=0.0),))]

    assert torch.equal(*images)


def test_a_lora_file_that_was_written_anew_is_read_anew(sampler, tiny_base, tmp_path):
    path = tmp_path / "interim.safetensors"
    wanted = request(loras=(LoraUse(path=str(path)),))

    images = []
    for seed in (1, 2):
        make_tiny_lora(tiny_base, seed=seed).write(path)
        images.append(sampler([wanted])[0])

    assert apart(*images) > 3


def test_a_lora_for_another_base_is_refused_and_leaves_nothing_behind(sampler, tiny_lora, other_base, tmp_path):
    make_tiny_lora(other_base).write(tmp_path / "other.safetensors")
    bare = sampler([request()])

    with pytest.raises(WrongBaseModelError, match=r"other.safetensors was made for base .*other.*pass --base .*other, or train again"):
        sampler([request(loras=(LoraUse(path=str(tiny_lora)), LoraUse(path=str(tmp_path / "other.safetensors"))))])

    assert torch.equal(sampler([request()]), bare)


def test_a_lora_that_matches_no_module_is_refused_and_leaves_nothing_behind(sampler, tiny_base, tiny_lora, tmp_path):
    lora = make_tiny_lora(tiny_base)
    renamed = {f"lora_unet_input_blocks_{row}": layer for row, layer in enumerate(lora.layers.values())}
    replace(lora, layers=renamed).write(tmp_path / "sdxl.safetensors")
    bare = sampler([request()])

    with pytest.raises(UnusableFileError, match=r"sdxl.safetensors matches 0 of 48"):
        sampler([request(loras=(LoraUse(path=str(tiny_lora)), LoraUse(path=str(tmp_path / "sdxl.safetensors"))))])

    assert torch.equal(sampler([request()]), bare)


@pytest.mark.parametrize("name", ["DPM++ 2M", "DDIM", "Heun", "Euler"])
def test_less_strength_stays_closer_to_the_photo(sampler, name):
    photo = torch.full((1, 3, 32, 40), 90, dtype=torch.uint8)
    noise_free = sampler([request(sampler=name, steps=10, strength=0.01)], photo)[0]

    distances = []
    for strength in (0.1, 0.5, 1.0):
        drawn = sampler([request(sampler=name, steps=10, strength=strength)], photo)[0]
        distances.append(float((drawn.float() - noise_free.float()).abs().mean()))

    assert distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("name", SAMPLERS)
def test_hardly_any_strength_keeps_what_tells_two_photos_apart(sampler, mixed, monkeypatch, name):
    vae, photo, denoised = sampler.base.vae, read_image(mixed[11].image), []
    photos = torch.stack([photo, 255 - photo])
    with torch.inference_mode():
        seen = vae.encode(to_float(photos)).latent_dist.mean * vae.config["scaling_factor"]
    monkeypatch.setattr("synthaug.generation.finishing.decode_latents", lambda _, z, **__: denoised.append(z) or torch.zeros(2, 3, 32, 40))

    sampler([request(sampler=name, steps=100, strength=0.005)] * 2, photos)

    kept, wanted = denoised[0][0] - denoised[0][1], seen[0] - seen[1]
    assert float((kept - wanted).norm() / wanted.norm()) < 0.3  # 1 when nothing is kept


def test_a_photo_is_read_from_the_request_or_handed_over(sampler, mixed):
    wanted = mixed[11]
    photo = read_image(wanted.image)

    assert torch.equal(sampler([wanted]), sampler([replace(wanted, image=None)], photo[None]))


def test_a_sampler_survives_pickling_without_its_networks(sampler):
    copy = pickle.loads(pickle.dumps(sampler))

    assert len(pickle.dumps(sampler)) < 2000
    assert torch.equal(copy([request()]), sampler([request()]))


def test_one_call_draws_one_size(sampler):
    with pytest.raises(SettingError, match=r"images of one size, got \[\(32, 32\), \(32, 40\)\]; draw each size by itself"):
        sampler([request(), request(size=(32, 32))])
    with pytest.raises(SettingError, match="got no request"):
        sampler([])


def test_a_network_that_answers_nan_is_told_with_a_way_out(tiny_base):
    sampler = Sampler(str(tiny_base))
    sampler.base.unet.conv_out.bias.fill_(float("nan"))

    with pytest.raises(
        NumericsError, match=r"seed 7 is NaN or infinite in fp32 too: in the UNet of .* its conv_out is the first to answer NaN"
    ):
        sampler([request()])


@pytest.mark.parametrize(("ends_in_noise", "usual"), [(True, RESCALE), (False, 0.0)])
def test_how_much_of_the_overshoot_is_taken_back_is_left_to_the_base(tiny_base, ends_in_noise, usual):
    sampler = Sampler(str(tiny_base))
    sampler.base.schedule["rescale_betas_zero_snr"] = ends_in_noise

    left, said, other = sampler([request(guidance=7.0, guidance_rescale=share) for share in (None, usual, 0.3)])

    assert torch.equal(left, said)
    assert apart(left, other) > 0


def test_halves_that_are_computed_in_fp32_draw_what_fp32_draws_with_the_same_weights(tiny_base, monkeypatch):
    wanted = [request(seed=3), request(seed=4)]
    exact = Sampler(str(tiny_base), device="cpu")
    for network in (exact.networks.unet, exact.networks.vae, exact.base.text_encoder):
        network.half().float()  # the weights, rounded as they are stored
    monkeypatch.setattr(
        "synthaug.generation.networks.choose_precision", lambda *_: Precision(storage=torch.float16, autocast=torch.float32)
    )
    pascal = Sampler(str(tiny_base), device="cpu")

    computed = set()
    pascal.networks.unet.conv_in.register_forward_hook(lambda _, __, answer: computed.add(answer.dtype))

    drawn = pascal(wanted)

    assert pascal.networks.unet.conv_in.weight.dtype == torch.float16
    assert computed == {torch.float32}
    assert apart(drawn, exact(wanted)) <= 1


@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        ({}, [6] * 20),  # prompt and negative prompt of three images, in every step at once
        ({"guidance": 1.0}, [3] * 20),
        ({"guidance_interval": (0.0, 0.5)}, [6] * 10 + [3] * 10),
        ({"sampler": "Heun"}, [6] * 39),  # the last step has no second look
        ({"reuse": 5}, [6] * 4),  # of the whole network, that is
    ],
)
def test_the_network_is_asked_once_a_step_for_all_images_of_a_batch_together(sampler, fields, calls):
    rows = []
    hook = sampler.base.unet.mid_block.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))

    sampler([request(**{"sampler": "Euler", "steps": 20, "seed": seed, **fields}) for seed in range(3)])

    hook.remove()
    assert rows == calls
