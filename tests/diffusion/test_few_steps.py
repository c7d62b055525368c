from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from synthaug.diffusion.few_steps import clean_of, clean_towards, ddim_step
from synthaug.diffusion.objective import noised, target_of
from synthaug.diffusion.schedule import NoiseSchedule

KINDS = ["epsilon", "v_prediction", "sample"]


def some(count=3):
    generator = torch.Generator().manual_seed(0)
    x, eps = (torch.randn(count, 4, 3, 5, generator=generator) for _ in range(2))
    alpha, sigma = (scale[torch.tensor([100, 500, 900])[:count]] for scale in NoiseSchedule().scales())
    return x, eps, alpha, sigma


@pytest.mark.parametrize("kind", KINDS)
def test_a_true_answer_means_the_picture_and_leads_along_the_true_path(kind):
    x, eps, alpha, sigma = some()
    z = noised(x, eps, alpha, sigma)
    answer = target_of(kind, x, eps, alpha, sigma)
    there = tuple(scale[torch.tensor([20, 300, 800])] for scale in NoiseSchedule().scales())

    assert torch.allclose(clean_of(kind, answer, z, alpha, sigma), x, atol=1e-4)
    assert torch.allclose(ddim_step(kind, answer, z, (alpha, sigma), there), noised(x, eps, *there), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_that_of_diffusers(kind):
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, prediction_type=kind,
        timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(4)
    scales = NoiseSchedule().scales()
    z, answer, _, _ = some(1)

    ours = ddim_step(kind, answer, z, *(tuple(scale[at : at + 1] for scale in scales) for at in (749, 499)))

    assert torch.allclose(ours, scheduler.step(answer, 749, z).prev_sample, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_with_the_picture_that_leads_there_arrives(kind):
    z, aim, alpha, sigma = some()
    here, there = (alpha, sigma), tuple(scale[torch.tensor([0, 300, 800])] for scale in NoiseSchedule().scales())

    x = clean_towards(z, aim, here, there)
    eps = (z - alpha.reshape(-1, 1, 1, 1) * x) / sigma.reshape(-1, 1, 1, 1)

    assert torch.allclose(ddim_step(kind, target_of(kind, x, eps, *here), z, here, there), aim, atol=1e-3)
