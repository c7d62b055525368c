from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from synthaug.diffusion.schedule import NoiseSchedule, schedule_of
from synthaug.errors import SettingError


@pytest.mark.parametrize(("steps", "start", "end"), [(1000, 0.00085, 0.012), (37, 0.002, 0.03)])
def test_scales_are_the_square_roots_of_diffusers_alphas_cumprod(steps, start, end):
    theirs = DDIMScheduler(num_train_timesteps=steps, beta_start=start, beta_end=end, beta_schedule="scaled_linear").alphas_cumprod

    alpha, sigma = NoiseSchedule(steps=steps, beta_start=start, beta_end=end).scales()

    assert torch.allclose(alpha**2, theirs, atol=2e-6)
    assert torch.allclose(sigma**2, 1 - theirs, atol=2e-6)


def test_signal_falls_noise_grows_and_their_squares_add_up_to_one():
    alpha, sigma = NoiseSchedule().scales()

    assert (alpha.diff() < 0).all()
    assert (sigma.diff() > 0).all()
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(1000), atol=1e-6)


def test_a_schedule_can_be_stretched_to_end_in_noise_alone_and_begins_as_before():
    plain, stretched = NoiseSchedule().scales(), NoiseSchedule(last=0.0).scales()

    assert float(stretched[0][-1]) == 0
    assert float(stretched[1][-1]) == 1
    assert float(stretched[0][0]) == pytest.approx(float(plain[0][0]))
    assert torch.all(stretched[0].diff() < 0)
    assert torch.allclose(stretched[0] ** 2 + stretched[1] ** 2, torch.ones(1000))


def test_the_stretched_schedule_is_that_of_diffusers():
    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True)

    ours = NoiseSchedule(last=0.0).scales()[0]

    assert torch.allclose(ours, theirs.alphas_cumprod.sqrt(), atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "scaled_linear"},
        {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "num_train_timesteps": 500},
        {"beta_schedule": "linear", "rescale_betas_zero_snr": True},
        {"beta_schedule": "squaredcos_cap_v2", "trained_betas": [0.001, 0.004, 0.03, 0.4]},
        {"trained_betas": [0.001, 0.004, 0.03, 0.4], "rescale_betas_zero_snr": True},
    ],
)
def test_a_schedule_is_read_from_the_configuration_as_diffusers_reads_it(settings):
    theirs = DDIMScheduler(**settings)

    alpha, sigma = schedule_of(dict(theirs.config)).scales()

    assert alpha.dtype == torch.float32
    assert torch.allclose(alpha, theirs.alphas_cumprod.sqrt(), atol=1e-5)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(len(alpha)))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"beta_schedule": "squaredcos_cap_v2"},
            "unknown noise schedule of a base 'squaredcos_cap_v2'; choose one of: linear, scaled_linear",
        ),
        ({}, "unknown noise schedule of a base 'None'"),
        ({"beta_schedule": "linear", "beta_start": 0, "beta_end": 0.1}, "above 0 and below 1, number 0 is 0.0; copy the base again"),
        ({"trained_betas": [0.1, float("nan")]}, "above 0 and below 1, number 1 is nan"),
        ({"trained_betas": [0.1]}, "must have at least 2 betas, it has 1"),
    ],
)
def test_a_schedule_that_is_not_known_or_no_schedule_is_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        schedule_of({"num_train_timesteps": 1000, **settings})
