from __future__ import annotations

import pytest
import torch

from synthaug.diffusion.objective import debiased_weight, min_snr_weight, multires_noise, perturbed, weighted_mean
from synthaug.diffusion.schedule import NoiseSchedule
from synthaug.errors import SettingError
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


@pytest.mark.parametrize(("kind", "min_snr", "debiased"), [("epsilon", 1.0, 1000.0**0.5), ("v_prediction", 0.0, 0.0), ("sample", 0.0, 0.0)])
def test_weights_at_the_last_step_of_a_schedule_that_ends_in_noise_alone_are_their_limits(kind, min_snr, debiased):
    alpha, sigma = NoiseSchedule(last=0.0).scales()
    snr = (alpha / sigma) ** 2
    assert float(snr[-1]) == 0

    weights = [min_snr_weight(snr, kind), debiased_weight(snr, kind)]

    assert all(torch.isfinite(weight).all() for weight in weights)
    assert [float(weight[-1]) for weight in weights] == pytest.approx([min_snr, debiased])
    assert abs(float(weights[0][-1] - weights[0][-2])) < 1e-3


def test_weights_after_the_stretch_are_those_of_the_stretched_schedule():
    plain, stretched = ((alpha / sigma) ** 2 for alpha, sigma in (NoiseSchedule().scales(), NoiseSchedule(last=0.0).scales()))

    weight = Loss(snr_gamma=5.0).weight(stretched, "v_prediction")

    assert torch.allclose(weight, stretched.clamp(max=5) / (stretched + 1))
    assert float(Loss(snr_gamma=5.0).weight(plain, "v_prediction")[-1]) > 1e-3


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


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.0, 0.5)])
def test_logit_normal_steps_are_normal_in_their_logits(mean, std):
    loss = Loss(spread="logit_normal", logit_mean=mean, logit_std=std)

    times = torch.cat([loss.times(16, 100_000, seeded(seed)) for seed in range(100)])

    logits = torch.logit((times.double() + 0.5) / 100_000)
    assert float(logits.mean()) == pytest.approx(mean, abs=0.02)
    assert float(logits.std()) == pytest.approx(std, rel=0.02)
    assert int(times.min()) >= 0
    assert int(times.max()) < 100_000


def test_logit_normal_steps_stay_in_the_range_that_is_trained():
    times = torch.cat([Loss(spread="logit_normal", logit_std=3.0, steps=(0.2, 0.4)).times(8, 1000, seeded(seed)) for seed in range(50)])

    assert 200 <= int(times.min()) < 215
    assert 385 < int(times.max()) < 400


def test_large_differences_count_by_their_size_and_small_ones_by_their_square():
    difference = torch.tensor([-0.001, 0.0, 0.001, 50.0, 100.0])

    error = Loss(huber=0.1).error(difference)

    assert torch.allclose(error[:3], difference[:3] ** 2, rtol=1e-3)
    assert float(error[4] - error[3]) == pytest.approx(2 * 0.1 * 50, rel=1e-3)
    assert torch.equal(Loss().error(difference), difference**2)


def test_regularisation_images_count_as_much_as_asked_for():
    regular = torch.tensor([False, True])

    assert torch.equal(torch.as_tensor(Loss(prior_weight=0.25).share(regular)), torch.tensor([1.0, 0.25]))
    assert Loss(prior_weight=0.25).share(None) == 1.0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"logit_std": 0.0}, "logit_std must be from 0.1 to 3; 1 is usual, got 0.0"),
        ({"logit_mean": float("nan")}, "logit_mean must be from -3 to 3; 0 is usual, got nan"),
        ({"huber": -1.0}, "huber must be 0 or above; 0.1 is usual, 0 turns it off, got -1.0"),
        ({"prior_weight": -0.5}, "prior_weight must be 0 or above; 1 counts them like photos, got -0.5"),
    ],
)
def test_settings_outside_of_their_ranges_are_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        Loss(**settings)


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


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6, 1.0])
def test_the_gradient_has_the_same_scale_whatever_share_of_the_photo_is_masked(share):
    """The same error everywhere, moved by one weight: its expected gradient must not depend on the mask."""
    norms = []
    for seed in range(40):
        generator = seeded(seed)
        mask = torch.zeros(160)
        mask[torch.randperm(160, generator=generator)[: int(share * 160)]] = 1
        weight = torch.tensor(0.0, requires_grad=True)
        answer, target = weight * torch.ones(1, 4, 10, 16), 1 + 0.5 * torch.randn(1, 4, 10, 16, generator=generator)
        weighted_mean((answer - target).square(), mask.reshape(1, 1, 10, 16)).sum().backward()
        norms.append(weight.grad)

    assert float(torch.stack(norms).mean()) == pytest.approx(-2, rel=0.03)
