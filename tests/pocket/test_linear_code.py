from __future__ import annotations

import pytest
import torch

from synthaug.pocket.autoencoder import as_float, psnr
from synthaug.pocket.linear_code import fit_linear_code, linear_decode, linear_encode, start_encoder
from synthaug.pocket.networks import LATENT_CHANNELS, build_autoencoder
from synthaug.pocket.scenes import random_scene, render


@pytest.fixture(scope="module")
def pictures():
    return torch.cat([as_float(render(random_scene(seed), seed, 48).pixels[None]) for seed in range(60)])


@pytest.fixture(scope="module")
def code(pictures):
    return fit_linear_code(pictures, LATENT_CHANNELS, share=0.35)


def test_directions_are_at_right_angles_and_latents_about_one(code, pictures):
    latents = linear_encode(pictures, code)

    assert torch.allclose(code["basis"] @ code["basis"].T, torch.eye(LATENT_CHANNELS), atol=1e-4)
    assert latents.shape == (60, LATENT_CHANNELS, 6, 6)
    assert float(latents.square().mean()) == pytest.approx(1, abs=0.02)


def test_share_says_how_loud_the_channels_are(pictures):
    spread = {share: linear_encode(pictures, fit_linear_code(pictures, 8, share=share)).std((0, 2, 3)) for share in (0.0, 0.5, 1.0)}

    assert torch.allclose(spread[0.0], torch.ones(8), atol=0.05)
    assert 1 < float(spread[0.5].max() / spread[0.5].min()) < float(spread[1.0].max() / spread[1.0].min())


def test_as_many_channels_as_values_lose_nothing_and_fewer_lose_more(pictures):
    quality = [
        float(psnr(linear_decode(linear_encode(pictures, c), c), pictures).mean())
        for c in (fit_linear_code(pictures, channels, share=0.35) for channels in (4, 16, 192))
    ]

    assert quality[0] < quality[1] < quality[2]
    assert quality[2] > 45


def test_the_encoder_starts_as_the_linear_code_on_any_size_of_picture(code):
    model = build_autoencoder()
    start_encoder(model, code)
    x = torch.cat([as_float(render(random_scene(seed), seed, 64).pixels[None]) for seed in (900, 901)])[:, :, :48]

    with torch.inference_mode():
        found = model.encode(x).latent_dist

    wanted = linear_encode(x, code)
    assert float((found.mean - wanted).square().mean().sqrt()) < 0.06
    assert torch.allclose(found.std, torch.full_like(found.std, 0.05), atol=0.001)
