from __future__ import annotations

import pytest
import torch
from conftest import make_photo

from synthaug import Request, Sampler
from synthaug.diffusion.slerp import slerp
from synthaug.errors import SettingError
from synthaug.generation.hires import UPSCALERS, drawn_size, second_pass
from synthaug.generation.starts import jobs_of
from synthaug.records import Hires


@pytest.fixture(scope="module")
def sampler(tiny_base):
    return Sampler(str(tiny_base))


def request(hires=None, **fields):
    return Request(**{"prompt": "a photo of a fish", "seed": 7, "steps": 3, "size": (32, 40), "hires": hires, **fields})


@pytest.mark.parametrize("upscaler", UPSCALERS)
def test_every_upscaler_gives_the_larger_size_and_keeps_the_place_of_things(sampler, upscaler):
    """A latent with a bright left half stays one."""
    asked = request(Hires(scale=1.6, upscaler=upscaler))
    half = torch.zeros(1, 4, 4, 6)
    half[..., :3] = 8.0

    (job,) = second_pass(jobs_of([asked], sampler.networks), half, sampler.networks)

    assert job.size == drawn_size(asked) == (48, 64)
    assert job.start.shape == (4, 6, 8)
    if upscaler.startswith("Latent"):
        assert float(job.start[..., :3].mean()) > 6 > 2 > float(job.start[..., 5:].mean())
    else:
        decoded = sampler.base.vae.decode(half / sampler.base.vae.config["scaling_factor"]).sample
        small, large = (sampler.base.vae.decode(z / sampler.base.vae.config["scaling_factor"]).sample for z in (half, job.start[None]))
        assert decoded.shape[-2:] == (32, 48)
        assert small.isfinite().all()
        assert large.shape[-2:] == (48, 64)


def test_pixels_are_enlarged_and_read_again(sampler, monkeypatch):
    seen = []
    encode = sampler.networks.encode
    monkeypatch.setattr(sampler.networks, "encode", lambda pixels: seen.append(pixels) or encode(pixels))
    latents = torch.randn(1, 4, 4, 5, generator=torch.Generator().manual_seed(0))

    second_pass(jobs_of([request(Hires(upscaler="Nearest"))], sampler.networks), latents, sampler.networks)

    with torch.no_grad():
        picture = sampler.base.vae.decode(latents / sampler.base.vae.config["scaling_factor"]).sample.clamp(-1, 1)
    torch.testing.assert_close(seen[0], picture.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_the_second_pass_takes_its_own_steps_at_the_end_of_its_schedule(sampler):
    steps = [
        (job.steps, job.first, job.from_noise)
        for hires in (Hires(strength=0.5), Hires(strength=0.5, steps=7), Hires(strength=1.0))
        for job in second_pass(jobs_of([request(hires)], sampler.networks), torch.zeros(1, 4, 4, 5), sampler.networks)
    ]

    assert steps == [(6, 3, False), (14, 7, False), (3, 0, True)]


def test_the_second_pass_has_noise_of_the_same_seed_in_its_own_shape(sampler):
    (job,) = second_pass(jobs_of([request(Hires())], sampler.networks), torch.zeros(1, 4, 4, 5), sampler.networks)

    assert torch.equal(job.noise, torch.randn(4, 8, 10, generator=torch.Generator().manual_seed(7)))


def test_a_variation_turns_the_noise_of_the_second_pass_too(sampler):
    asked = request(Hires(), variation_strength=0.3, variation_seed=8)

    (job,) = second_pass(jobs_of([asked], sampler.networks), torch.zeros(1, 4, 4, 5), sampler.networks)

    own, other = (torch.randn(4, 8, 10, generator=torch.Generator().manual_seed(seed)) for seed in (7, 8))
    assert torch.equal(job.noise, slerp(own, other, 0.3))


@pytest.mark.parametrize(("size", "scale", "larger"), [((128, 72), 1.5, (192, 104)), ((64, 72), 1.3, (80, 88)), ((8, 16), 1.05, (8, 16))])
def test_what_is_over_a_multiple_of_8_is_cut_as_in_a1111(size, scale, larger):
    assert drawn_size(request(Hires(scale=scale), size=size)) == larger


def test_every_setting_of_a_second_pass_shows(sampler):
    passes = [None, Hires(strength=0.6), Hires(strength=0.3), Hires(strength=0.6, upscaler="Lanczos")]
    wanted = [request(hires, **({"size": (64, 80)} if hires is None else {})) for hires in passes]

    images = sampler(wanted)

    assert images.shape == (4, 3, 64, 80)
    assert all((images[a].int() - images[b].int()).abs().max() > 3 for a in range(4) for b in range(a))
    assert max(int((sampler([one])[0].int() - image.int()).abs().max()) for one, image in zip(wanted, images, strict=True)) <= 1


def test_images_of_one_call_come_out_in_one_size(sampler):
    with pytest.raises(SettingError, match=r"images of one size, got \[\(32, 40\), \(64, 80\)\]"):
        sampler([request(), request(Hires())])


def test_what_a_second_pass_cannot_do_is_refused_before_anything_is_drawn(sampler, tmp_path, monkeypatch):
    monkeypatch.setattr(sampler, "_load", lambda: pytest.fail("networks were loaded"))
    make_photo((32, 40)).save(tmp_path / "photo.png")
    photo = str(tmp_path / "photo.png")

    with pytest.raises(SettingError, match=r"unknown upscaler 'ESRGAN'; choose one of: Lanczos, Latent, "):
        sampler([request(Hires(upscaler="ESRGAN"))])
    with pytest.raises(SettingError, match=r"redraws the whole picture, and the mask .*photo.png keeps a part of it; leave out hires"):
        sampler([request(Hires(), image=photo, mask=photo)])
    with pytest.raises(SettingError, match=r"redraws the whole picture, and a mask keeps a part of it; leave out hires, or the masks"):
        sampler([request(Hires())], torch.zeros(1, 3, 32, 40, dtype=torch.uint8), torch.ones(1, 32, 40, dtype=torch.uint8))
    with pytest.raises(SettingError, match=r"900 exact steps at strength 0.7 belong to one of 1285; take at most 700 steps"):
        sampler([request(Hires(steps=900))])
