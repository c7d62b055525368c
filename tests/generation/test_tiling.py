from __future__ import annotations

import pytest
import torch
from checkpoints import make_tiny_decoder

from synthaug import Request, Sampler
from synthaug.generation.networks import Told
from synthaug.generation.tiling import tiled


@pytest.fixture(scope="module")
def sampler(tiny_base):
    return Sampler(str(tiny_base))


@pytest.mark.parametrize("dim", [-1, -2])
def test_networks_see_a_picture_that_is_pushed_around_the_edge_as_the_same_picture(sampler, dim):
    networks = sampler.networks
    generator = torch.Generator().manual_seed(0)
    z, told = torch.randn(1, 4, 6, 8, generator=generator), Told(states=torch.randn(1, 77, 16, generator=generator))
    t = torch.tensor([400])

    def off(on):
        with torch.inference_mode(), tiled([networks.unet, networks.vae], on=on):
            answers = [networks.predict(z.roll(2, dim), t, told) - networks.predict(z, t, told).roll(2, dim)]
            answers.append(networks.vae.decode(z.roll(2, dim)).sample - networks.vae.decode(z).sample.roll(16, dim))
        return [float(answer.abs().max()) for answer in answers]

    assert max(off(on=True)) < 1e-4
    assert min(off(on=False)) > 1e-3


def test_edges_of_a_tiling_picture_go_on_at_the_opposite_ones():
    asked = [
        Request(prompt="a photo of wood", seed=seed, steps=6, size=(64, 64), tiling=tiling) for tiling in (True, False) for seed in range(2)
    ]

    images = Sampler("pocket")(asked).float()

    def seam(pictures):
        """Steps across the edges over those within."""
        across = (pictures[..., 0] - pictures[..., -1]).abs().mean() + (pictures[..., 0, :] - pictures[..., -1, :]).abs().mean()
        return float(across / (pictures.diff(dim=-1).abs().mean() + pictures.diff(dim=-2).abs().mean()))

    assert seam(images[:2]) < 1.5
    assert seam(images[2:]) > 3


def test_pictures_that_tile_and_pictures_that_do_not_come_out_of_one_call(sampler):
    asked = [Request(prompt="a fish", seed=1, steps=3, size=(32, 40), tiling=tiling) for tiling in (False, True, False)]

    images = sampler(asked)

    assert torch.equal(images[0], images[2])
    assert torch.equal(images[1], sampler(asked[1:2])[0])
    assert (images[0].int() - images[1].int()).abs().max() > 3


@pytest.mark.parametrize("decoder", ["full", "tiny"])
def test_pictures_that_tile_are_decoded_without_a_seam_by_either_decoder_at_once_and_later(tiny_base, tmp_path, decoder):
    sampler = Sampler(str(tiny_base), tiny_decoder=make_tiny_decoder(tmp_path))
    asked = [Request(prompt="a fish", seed=1, steps=2, size=(32, 48), tiling=True, decoder=decoder)]

    drawn = sampler.draw(asked)
    pushed = sampler.decode(drawn.latents.roll(2, -1), decoder=decoder, tiling=True)

    assert torch.equal(drawn.images, sampler.decode(drawn.latents, decoder=decoder, tiling=True))
    assert (pushed.roll(-16, -1).int() - drawn.images.int()).abs().max() <= 1
    assert (sampler.decode(drawn.latents, decoder=decoder).int() - drawn.images.int()).abs().max() > 1


def test_networks_are_left_as_they_were_after_an_error(sampler):
    with pytest.raises(RuntimeError, match="stop"), tiled([sampler.networks.unet]):
        raise RuntimeError("stop")

    assert {layer.padding_mode for layer in sampler.networks.unet.modules() if isinstance(layer, torch.nn.Conv2d)} == {"zeros"}
