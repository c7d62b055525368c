from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from synthaug.pocket import FEW_STEPS, WEIGHTS
from synthaug.pocket.networks import KIND, LATENT_CHANNELS, SCHEDULE, build_autoencoder, build_denoiser, build_schedule, build_text_encoder


def test_all_weights_together_stay_within_24_mb_in_half_precision():
    networks = (build_autoencoder(), build_denoiser(), build_text_encoder(1014, bos=0, eos=1))

    assert sum(weight.numel() for network in networks for weight in network.parameters()) * 2 <= 24.0e6


def test_the_shipped_weights_are_fp16_safetensors_within_24_mb():
    files = [path for path in WEIGHTS.rglob("*") if path.suffix in (".safetensors", ".bin", ".ckpt", ".pt")]

    assert {path.suffix for path in files} == {".safetensors"}
    assert sum(path.stat().st_size for path in files if path != FEW_STEPS) <= 24.0e6
    assert FEW_STEPS.stat().st_size <= 2.5e6, "the few-step LoRA is no part of the base, docs/decisions/0015"
    for path in files:
        with safe_open(path, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118  # not a dict
                kinds = {"torch.float32"} if key.endswith(".alpha") else {"torch.float16", "torch.int64"}
                assert str(opened.get_tensor(key).dtype) in kinds


def test_the_shipped_weights_are_of_these_networks():
    pipe = StableDiffusionPipeline.from_pretrained(WEIGHTS, safety_checker=None)
    ours = (build_autoencoder(), build_denoiser(), build_text_encoder(len(pipe.tokenizer), bos=0, eos=1))

    for theirs, network in zip((pipe.vae, pipe.unet, pipe.text_encoder), ours, strict=True):
        shapes = {name: weight.shape for name, weight in network.named_parameters()}
        assert {name: weight.shape for name, weight in theirs.named_parameters()} == shapes
        assert all(torch.isfinite(weight).all() for weight in theirs.parameters())
    assert pipe.scheduler.config["prediction_type"] == KIND
    assert pipe.scheduler.config["rescale_betas_zero_snr"]


def test_the_schedule_is_that_of_sd_1_stretched_to_end_in_noise_alone():
    config = build_schedule().config

    assert torch.allclose(build_schedule().alphas_cumprod.sqrt(), SCHEDULE.scales()[0], atol=1e-5)

    assert (config["beta_start"], config["beta_end"], config["beta_schedule"]) == (0.00085, 0.012, "scaled_linear")
    assert config["num_train_timesteps"] == 1000


@pytest.mark.parametrize("build", [build_autoencoder, build_denoiser])
def test_residual_blocks_start_as_their_own_shortcut(build):
    last = [weight for name, weight in build().named_parameters() if ".conv2." in name]

    assert last
    assert not any(weight.any() for weight in last)


def test_denoiser_and_decoder_take_any_multiple_of_their_step():
    z = torch.randn(1, LATENT_CHANNELS, 8, 12)

    with torch.inference_mode():
        eps = build_denoiser()(z, torch.tensor([5]), torch.randn(1, 77, 128)).sample
        picture = build_autoencoder().decode(z).sample

    assert eps.shape == z.shape
    assert picture.shape == (1, 3, 64, 96)
