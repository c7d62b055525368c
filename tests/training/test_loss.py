from __future__ import annotations

import pytest
import torch

from synthaug.diffusion.objective import debiased_weight, min_snr_weight, multires_noise, perturbed, weighted_mean
from synthaug.training.loss import Loss


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_debiased_weight_means_the_same_whatever_is_predicted():
    snr = torch.tensor([0.01, 0.5, 3.0, 80.0])
    error = {"sample": torch.ones(4), "epsilon": snr, "v_prediction": 1 + snr}  # squared, for an error of 1 in x

    weighted = [debiased_weight(snr, kind) * squared for kind, squared in error.items()]

    assert torch.allclose(weighted[0], weighted[1])
    assert torch.allclose(weighted[0], weighted[2])
    assert torch.allclose(debiased_weight(torch.tensor([1e6]), "epsilon"), torch.tensor([1000.0]).rsqrt())


def test_a_step_of_noise_alone_has_a_finite_weight():
    nothing = torch.zeros(1)

    assert torch.isfinite(min_snr_weight(nothing, "v_prediction")).all()
    assert torch.isfinite(debiased_weight(nothing, "v_prediction")).all()


def test_multires_noise_has_variance_one_and_more_of_it_in_coarse_patches():
    eps = torch.randn(64, 4, 16, 16, generator=seeded())

    coarse = multires_noise(eps, 0.5, seeded(1))

    assert float(coarse.var()) == pytest.approx(1, abs=0.05)
    patches = [torch.nn.functional.avg_pool2d(noise, 8).var() for noise in (eps, coarse)]
    assert patches[1] > 2.5 * patches[0]
    assert multires_noise(eps, 0.0) is eps


def test_perturbed_noise_is_added_and_the_plain_noise_asked_for():
    eps = torch.randn(200, 4, 8, 8, generator=seeded())

    asked, added = Loss(input_perturbation=0.1).noise(eps, seeded(3))

    assert float((added - asked).std()) == pytest.approx(0.1, rel=0.05)
    assert perturbed(eps, 0.0) is eps
    plain = Loss().noise(eps, seeded(3))
    assert torch.equal(plain[0], plain[1])
    assert torch.equal(plain[0], asked)


def test_steps_outside_of_the_range_are_never_trained():
    low = torch.cat([Loss(steps=(0.0, 0.3)).times(8, 1000, seeded(seed)) for seed in range(50)])
    high = torch.cat([Loss(steps=(0.7, 1.0)).times(8, 1000, seeded(seed)) for seed in range(50)])

    assert 0 <= int(low.min()) < 10
    assert 290 < int(low.max()) < 300
    assert 700 <= int(high.min()) < 710
    assert 990 < int(high.max()) < 1000


def test_weights_are_those_of_the_settings():
    snr = torch.tensor([0.5, 50.0])

    assert torch.equal(Loss(snr_gamma=0.0).weight(snr, "epsilon"), torch.ones(2))
    assert torch.equal(Loss(snr_gamma=2.0).weight(snr, "epsilon"), min_snr_weight(snr, "epsilon", gamma=2.0))
    assert torch.equal(Loss(debiased=True).weight(snr, "v_prediction"), debiased_weight(snr, "v_prediction"))


def test_a_small_masked_area_counts_as_much_as_a_large_one():
    error = torch.rand(2, 4, 8, 8, generator=seeded())
    small, large = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    small[:, 2, 3], large[:, :6] = 1, 1

    means = weighted_mean(error, torch.stack([small, large]))

    assert float(means[0]) == pytest.approx(float(error[0, :, 2, 3].mean()))
    assert float(means[1]) == pytest.approx(float(error[1, :, :6].mean()))
    assert torch.allclose(weighted_mean(error, torch.ones(2, 1, 8, 8)), weighted_mean(error, None))
