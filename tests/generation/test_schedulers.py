from __future__ import annotations

import pytest
import torch

from synthaug.errors import SettingError
from synthaug.generation.schedulers import SAMPLERS, make_scheduler

SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "DDIM"])
def test_samplers_begin_at_the_noise_level_of_a1111(name):
    scheduler = make_scheduler(name, SD15)

    scheduler.set_timesteps(20)

    assert float(scheduler.sigmas[0]) == pytest.approx(14.6146, abs=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_that_knows_the_noise_arrives_at_the_picture(name):
    """With the true noise for an answer, every sampler must end at the clean latent."""
    torch.manual_seed(0)
    clean, scheduler = torch.randn(1, 4, 5, 7), make_scheduler(name, SD15)
    kept = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    levels = ((1 - kept) / kept).sqrt()
    scheduler.set_timesteps(20)
    z = clean + torch.randn_like(clean) * float(levels[-1])  # k-diffusion's scale
    z = z if name.startswith(("Euler", "Heun")) else z * float(kept[-1].sqrt())

    for t in scheduler.timesteps:
        shown = scheduler.scale_model_input(z, t)
        at = float(torch.as_tensor(t).float())
        sigma = float(torch.lerp(levels[int(at)], levels[min(999, int(at) + 1)], at - int(at)))
        in_k = z if name.startswith(("Euler", "Heun")) else shown * (1 + sigma**2) ** 0.5
        z = scheduler.step((in_k - clean) / sigma, t, z, return_dict=False)[0]

    assert (z - clean).abs().max() < 0.35


def test_the_betas_and_the_prediction_come_from_the_base():
    scheduler = make_scheduler("Euler", {**SD15, "beta_end": 0.02, "prediction_type": "v_prediction", "clip_sample": True})

    assert scheduler.config["beta_end"] == 0.02
    assert scheduler.config["prediction_type"] == "v_prediction"


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_base_that_was_trained_to_start_from_noise_alone_is_drawn_from_it(name):
    scheduler = make_scheduler(name, {**SD15, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True})

    scheduler.set_timesteps(20)

    signal = float(scheduler.alphas_cumprod[-1] ** 0.5)
    assert signal == pytest.approx(1 / 250, rel=1e-3)
    assert float(scheduler.timesteps[0]) >= 998
    middle, stock = (
        float(make_scheduler("DDIM", schedule).alphas_cumprod[500]) for schedule in ({**SD15, "rescale_betas_zero_snr": True}, SD15)
    )
    assert stock * 0.8 < middle < stock, "only the end is stretched"


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_that_knows_v_arrives_at_the_picture_from_noise_alone(name):
    """With the true v for an answer, every sampler must end at the clean latent, mean included."""
    torch.manual_seed(0)
    clean = torch.randn(1, 4, 5, 7) + 0.8
    scheduler = make_scheduler(name, {**SD15, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True})
    scheduler.set_timesteps(20)
    z = torch.randn_like(clean) * float(scheduler.init_noise_sigma)
    kept = scheduler.alphas_cumprod.double()
    levels = ((1 - kept) / kept).sqrt()

    for t in scheduler.timesteps:
        at = float(torch.as_tensor(t).float())
        sigma = float(torch.lerp(levels[int(at)], levels[min(999, int(at) + 1)], at - int(at)))
        alpha = 1 / (1 + sigma**2) ** 0.5
        shown = scheduler.scale_model_input(z, t)
        eps = (shown - alpha * clean) / (alpha * sigma)
        z = scheduler.step(alpha * eps - alpha * sigma * clean, t, z, return_dict=False)[0]

    assert (z - clean).abs().max() < 0.35
    assert (z - clean).mean().abs() < 0.05


def test_an_unknown_sampler_is_refused_with_those_there_are():
    with pytest.raises(SettingError, match=r"unknown sampler 'DDPM'; choose one of: DDIM, DPM\+\+ 2M"):
        make_scheduler("DDPM", SD15)
