from __future__ import annotations

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from synthaug import Request, Sampler
from synthaug.diffusion.philox import normals
from synthaug.diffusion.slerp import slerp
from synthaug.errors import SettingError
from synthaug.generation.noise import PhiloxGenerator, drawing_from, drawn, generator_of, starting_noise

CPU = torch.device("cpu")


def request(**fields):
    return Request(**{"prompt": "a photo of a fish", "seed": 7, "steps": 3, "size": (32, 40), **fields})


def test_noise_of_the_cpu_is_what_torch_draws_from_the_seed():
    noise, generator = starting_noise(request(), (4, 4, 5), CPU)

    expected = torch.Generator().manual_seed(7)
    assert torch.equal(noise, torch.randn(4, 4, 5, generator=expected))
    assert torch.equal(drawn((6,), generator), torch.randn(6, generator=expected))


def test_noise_of_an_nvidia_card_goes_on_call_by_call_and_leaves_other_generators_alone():
    generators = [PhiloxGenerator(3), torch.Generator().manual_seed(3)]

    with drawing_from(generators):
        mine = [randn_tensor((1, 2, 3), generator=[generators[0]], device=CPU) for _ in range(2)]
        other = torch.randn(2, 3, generator=generators[1])

    assert torch.equal(torch.cat(mine), torch.stack([normals(3, call, 6).reshape(2, 3) for call in (0, 1)]))
    assert torch.equal(other, torch.randn(2, 3, generator=torch.Generator().manual_seed(3)))


def test_a_variation_turns_the_noise_towards_that_of_the_other_seed():
    found, generator = starting_noise(request(variation_strength=0.3, variation_seed=8), (4, 4, 5), CPU)

    own, later = starting_noise(request(), (4, 4, 5), CPU)
    other, _ = starting_noise(request(seed=8), (4, 4, 5), CPU)
    assert torch.equal(found, slerp(own, other, 0.3))
    assert torch.equal(drawn((3,), generator), drawn((3,), later)), "noise during the run is the seed's own"


def test_a_variation_of_an_nvidia_cards_noise_turns_towards_such_noise():
    found, _ = starting_noise(request(noise="NV", variation_strength=0.3, variation_seed=8), (4, 4, 5), CPU)

    own, other = (normals(seed, 0, 80).reshape(4, 4, 5) for seed in (7, 8))
    assert torch.equal(found, slerp(own, other, 0.3))


def test_noise_of_a_gpu_is_refused_where_there_is_none():
    with pytest.raises(SettingError, match=r"noise GPU is drawn by a GPU, and images are drawn on cpu; take noise NV, .* or CPU"):
        generator_of(1, "GPU", CPU)


@pytest.mark.parametrize("name", ["DDIM", "Euler a"])
def test_pictures_follow_the_source_of_noise_and_the_variation_by_any_company(tiny_base, name):
    sampler = Sampler(str(tiny_base))
    wanted = [
        request(sampler=name),
        request(sampler=name, noise="NV"),
        request(sampler=name, noise="NV", variation_strength=0.4, variation_seed=1),
        request(sampler=name, variation_strength=0.4, variation_seed=1),
        request(sampler=name, seed=1),
        request(sampler=name, noise="NV", seed=8),
    ]

    together = sampler(wanted)
    alone = torch.cat([sampler([asked]) for asked in wanted])

    assert (together.int() - alone.int()).abs().max() <= 1
    assert all((alone[a].int() - alone[b].int()).abs().max() > 3 for a in range(len(wanted)) for b in range(a))


def test_the_whole_way_of_a_variation_is_the_other_seed(tiny_base):
    images = Sampler(str(tiny_base), device="cpu")(
        [request(sampler="DDIM", variation_strength=1.0, variation_seed=5), request(sampler="DDIM", seed=5)]
    )

    assert (images[0].int() - images[1].int()).abs().max() <= 1


def test_what_is_drawn_during_a_run_comes_from_the_source_too(tiny_base, monkeypatch):
    calls = []
    monkeypatch.setattr("synthaug.generation.noise.normals", lambda seed, call, count: calls.append(call) or normals(seed, call, count))

    Sampler(str(tiny_base))([request(sampler="Euler a", noise="NV")])

    assert calls[:3] == [0, 1, 2]


@pytest.mark.gpu
def test_computed_noise_is_that_of_the_card():
    cuda = torch.device("cuda")
    sources = [generator_of(2**40 + 7, source, cuda) for source in ("GPU", "NV")]

    for _ in range(2):
        torch.testing.assert_close(*[drawn((4, 64, 64), source) for source in sources], rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_images_with_noise_of_every_source_come_out_of_one_call_on_a_card(tiny_base):
    sampler = Sampler(str(tiny_base), device="cuda", precision="fp32")
    wanted = [request(sampler="Euler a", noise=source) for source in ("CPU", "GPU", "NV")]

    together = sampler(wanted)

    assert max(int((sampler([one])[0].int() - image.int()).abs().max()) for one, image in zip(wanted, together, strict=True)) <= 1
