from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.training_utils import compute_snr

from synthaug.diffusion.objective import min_snr_weight, noised, offset_noise, target_of, v_target
from synthaug.diffusion.schedule import NoiseSchedule

THEIRS = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
STEPS = torch.tensor([0, 321, 999])


def some_batch():
    torch.manual_seed(0)
    alpha, sigma = (scale[STEPS] for scale in NoiseSchedule().scales())
    return torch.randn(3, 4, 5, 7), torch.randn(3, 4, 5, 7), alpha, sigma


def test_noised_latents_equal_those_of_diffusers():
    x, eps, alpha, sigma = some_batch()

    assert torch.allclose(noised(x, eps, alpha, sigma), THEIRS.add_noise(x, eps, STEPS), atol=1e-5)


def test_the_v_target_equals_the_velocity_of_diffusers():
    x, eps, alpha, sigma = some_batch()

    assert torch.allclose(v_target(x, eps, alpha, sigma), THEIRS.get_velocity(x, eps, STEPS), atol=1e-5)


def test_picture_and_noise_can_be_computed_back_from_v():
    x, eps, alpha, sigma = some_batch()
    z, v = noised(x, eps, alpha, sigma), v_target(x, eps, alpha, sigma)
    a, s = alpha.reshape(3, 1, 1, 1), sigma.reshape(3, 1, 1, 1)

    assert torch.allclose(a * z - s * v, x, atol=1e-5)
    assert torch.allclose(s * z + a * v, eps, atol=1e-5)


def test_the_target_is_what_the_base_was_trained_to_answer():
    x, eps, alpha, sigma = some_batch()

    assert target_of("epsilon", x, eps, alpha, sigma) is eps
    assert target_of("sample", x, eps, alpha, sigma) is x
    assert torch.equal(target_of("v_prediction", x, eps, alpha, sigma), v_target(x, eps, alpha, sigma))


@pytest.mark.parametrize(
    ("kind", "from_snr"),
    [
        ("epsilon", lambda snr: snr.clamp(max=5) / snr),
        ("v_prediction", lambda snr: snr.clamp(max=5) / (snr + 1)),
        ("sample", lambda snr: snr.clamp(max=5)),
    ],
)
def test_min_snr_weights_are_those_of_the_paper_at_diffusers_snr(kind, from_snr):
    _, _, alpha, sigma = some_batch()
    snr = compute_snr(THEIRS, STEPS)

    assert torch.allclose(min_snr_weight((alpha / sigma) ** 2, kind, gamma=5.0), from_snr(snr), rtol=1e-3)


def test_a_weighted_error_means_the_same_whatever_is_predicted():
    """An error of the picture counts alike, seen as an error of epsilon, of v or of the picture itself."""
    _, _, alpha, sigma = some_batch()
    snr = (alpha / sigma) ** 2
    error = {"sample": torch.ones(3), "epsilon": snr, "v_prediction": 1 + snr}  # squared, for an error of 1 in x

    weighted = [min_snr_weight(snr, kind) * squared for kind, squared in error.items()]

    assert torch.allclose(weighted[0], weighted[1])
    assert torch.allclose(weighted[0], weighted[2])


def test_offset_noise_adds_one_constant_per_sample_and_channel():
    eps = torch.randn(2, 4, 5, 7)

    shift = offset_noise(eps, 0.3, torch.Generator().manual_seed(1)) - eps

    assert torch.allclose(shift, shift[:, :, :1, :1].expand_as(shift), atol=1e-6)
    assert shift[:, :, 0, 0].unique().numel() == 8
    assert offset_noise(eps, 0) is eps
