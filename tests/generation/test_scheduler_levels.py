from __future__ import annotations

import diffusers
import pytest
import torch

from synthaug.generation.schedulers import SAMPLERS, make_scheduler

SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
NOISY = {**SD15, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ("DDIM", "PLMS")])
def test_samplers_begin_at_the_noise_level_of_a1111_whatever_spacing_the_base_states(name):
    scheduler = make_scheduler(name, {**SD15, "timestep_spacing": "leading", "steps_offset": 1, "clip_sample": False})

    scheduler.set_timesteps(20)

    assert float(scheduler.sigmas[0]) == pytest.approx(14.6146, abs=1e-3)
    assert float(scheduler.init_noise_sigma) == pytest.approx(14.6146, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("DPM++ 2M Karras", "DPMSolverMultistepScheduler", {"timestep_spacing": "linspace", "use_karras_sigmas": True}),
        ("DPM++ 2M SDE", "DPMSolverMultistepScheduler", {"timestep_spacing": "linspace", "use_exponential_sigmas": True}),
        ("Euler", "EulerDiscreteScheduler", {"timestep_spacing": "linspace"}),
        ("Euler Simple", "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
        ("Euler a DDIM", "EulerAncestralDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    ],
)
@pytest.mark.parametrize("steps", [10, 20, 40])  # 1000 / 40 is whole: else diffusers rounds where A1111 cuts
def test_levels_are_those_of_diffusers_with_every_setting_spelled_out(name, kind, settings, steps):
    ours, theirs = make_scheduler(name, SD15), getattr(diffusers, kind)(**SD15, **settings)

    for scheduler in (ours, theirs):
        scheduler.set_timesteps(steps)

    assert ours.sigmas.tolist() == pytest.approx(theirs.sigmas.tolist(), rel=1e-3)
    assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist(), abs=1.01)  # theirs are rounded to whole steps


@pytest.mark.parametrize("steps", [10, 20, 30])
def test_ddim_visits_the_time_steps_of_a1111_and_ends_at_the_first_of_training(steps):
    scheduler = make_scheduler("DDIM", SD15)

    scheduler.set_timesteps(steps)

    assert scheduler.timesteps.tolist() == [1 + 1000 // steps * i for i in reversed(range(steps))]
    assert float(scheduler.sigmas[-1]) == pytest.approx(0.0292, abs=1e-4)


@pytest.mark.parametrize("name", ["DPM2", "DPM2 a", "DPM++ 3M SDE"])
def test_some_samplers_leave_out_the_last_level_above_zero_as_in_a1111(name):
    scheduler, longer = make_scheduler(name, SD15), make_scheduler(f"Euler {'Exponential' if '3M' in name else 'Karras'}", SD15)

    scheduler.set_timesteps(7)
    longer.set_timesteps(8)

    assert scheduler.sigmas[:: scheduler.order].tolist()[:7] == longer.sigmas.tolist()[:7]
    assert float(scheduler.sigmas[-1]) == 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_base_that_was_trained_to_start_from_noise_alone_is_drawn_from_it(name):
    scheduler = make_scheduler(name, NOISY)

    scheduler.set_timesteps(20)

    assert float(scheduler.alphas_cumprod[-1] ** 0.5) == pytest.approx(1 / 250, rel=1e-3)
    assert float(scheduler.timesteps[0]) >= 998
    assert float(scheduler.sigmas[0]) == pytest.approx(250, rel=1e-3)
    middle, stock = (float(make_scheduler(name, base).alphas_cumprod[500]) for base in (NOISY, SD15))
    assert stock * 0.8 < middle < stock, "only the end is stretched"


def test_the_sampler_of_pocket_keeps_the_levels_that_its_figures_were_measured_on():
    ours = make_scheduler("DPM++ 2M", NOISY)
    theirs = diffusers.DPMSolverMultistepScheduler(trained_betas=betas_of(ours.alphas_cumprod), timestep_spacing="linspace")

    for scheduler in (ours, theirs):
        scheduler.set_timesteps(20)

    assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist(), abs=0.51)  # theirs are rounded to whole steps


def betas_of(kept):
    return (1 - kept / torch.cat([torch.ones(1), kept[:-1]])).tolist()
