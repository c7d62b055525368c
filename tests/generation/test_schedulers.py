from __future__ import annotations

import math

import diffusers
import pytest
import torch

from synthaug.errors import SettingError
from synthaug.generation.sampler_names import SCHEDULES
from synthaug.generation.schedulers import SAMPLERS, make_scheduler, takes_generator

SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
NOISY = {**SD15, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
TWICE = ["Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ SDE"]


def answer(z, t, *, predicts="epsilon", kept):
    """A network that guesses latents by a smooth rule and answers what it was taught to; z keeps its variance."""
    at = float(t)
    share = math.exp(math.log(float(kept[int(at)])) * (1 - at % 1) + math.log(float(kept[min(999, int(at) + 1)])) * (at % 1))
    alpha, sigma = math.sqrt(share), math.sqrt(1 - share)
    clean = torch.tanh(z * alpha) * 0.8 + 0.3
    eps = (z - alpha * clean) / sigma
    return eps if predicts == "epsilon" else alpha * eps - sigma * clean


def generators(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def run(scheduler, x, sources, *, begin=0, end=None):
    predicts = scheduler.config.get("prediction_type", "epsilon")
    for t in scheduler.timesteps[begin:end]:
        given = answer(scheduler.scale_model_input(x, t), t, predicts=predicts, kept=scheduler.alphas_cumprod)
        x = scheduler.step(given, t, x, generator=sources, return_dict=False)[0]
    return x


def noise(seeds, shape=(4, 3, 5)):
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("zero_snr", [False, True], ids=["stock", "noise alone"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_that_knows_the_picture_arrives_at_it(name, zero_snr, prediction):
    """With the truth for an answer, every sampler must end at the clean latent, mean included."""
    torch.manual_seed(0)
    clean = torch.randn(1, 4, 5, 7) + 0.8
    scheduler = make_scheduler(name, {**SD15, "prediction_type": prediction, "rescale_betas_zero_snr": zero_snr})
    scheduler.set_timesteps(20)
    x = torch.randn_like(clean) * scheduler.init_noise_sigma

    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas.tolist(), strict=False):
        shown, alpha = scheduler.scale_model_input(x, t), 1 / math.hypot(1, sigma)
        eps = (shown - alpha * clean) / (alpha * sigma)
        given = eps if prediction == "epsilon" else alpha * eps - alpha * sigma * clean
        x = scheduler.step(given, t, x, generator=generators([1]), return_dict=False)[0]

    assert (x - clean).abs().max() < 0.2
    assert (x - clean).mean().abs() < 0.02


@pytest.mark.parametrize("base", [SD15, NOISY], ids=["stock", "noise alone"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_stays_finite_on_every_schedule(name, base):
    for schedule in SCHEDULES:
        for steps in (1, 2, 11):
            scheduler = make_scheduler(name, base, schedule=schedule)
            scheduler.set_timesteps(steps)

            x = run(scheduler, noise([1, 2], (1, 2, 3)) * scheduler.init_noise_sigma, generators([1, 2]))

            assert torch.isfinite(x).all(), (schedule, steps)
            assert len(scheduler.timesteps) in (steps, 2 * steps - 1, 2 * steps)
            assert (scheduler.sigmas[:: scheduler.order].diff() <= 0).all()


@pytest.mark.parametrize("base", [SD15, NOISY], ids=["stock", "noise alone"])
@pytest.mark.parametrize("begin", [0, 5])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_row_does_not_depend_on_its_batch(name, begin, base):
    def draw(seeds):
        scheduler = make_scheduler(name, base)
        scheduler.set_timesteps(9)
        fresh, at = noise(seeds), begin * scheduler.order
        scheduler.set_begin_index(at)
        x = scheduler.add_noise(noise([s + 50 for s in seeds]), fresh, scheduler.timesteps[at].expand(len(seeds)))
        return run(scheduler, x if begin else fresh * scheduler.init_noise_sigma, generators(seeds), begin=at)

    together = draw([3, 4, 5, 6])

    for row, seed in enumerate([3, 4, 5, 6]):
        assert torch.allclose(draw([seed])[0], together[row], atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.01


@pytest.mark.parametrize("name", [*TWICE, "Euler", "Euler a", "LCM", "TCD", "DDPM"])
@pytest.mark.parametrize("step", [1, 4])
def test_a_run_may_be_taken_up_at_any_step(name, step):
    """Samplers that remember nothing from step to step go on as if they had never been interrupted."""

    def start():
        scheduler = make_scheduler(name, SD15)
        scheduler.set_timesteps(6)
        return scheduler

    whole, first, second, sources = start(), start(), start(), generators([1])
    x = noise([1]) * whole.init_noise_sigma
    wanted = run(whole, x, generators([1]))

    begin = step * first.order
    half = run(first, x, sources, end=begin)
    second.set_begin_index(begin)
    got = run(second, half, sources, begin=begin)

    assert first.order == (2 if name in TWICE else 1)
    assert torch.equal(got, wanted)


def test_heun_is_started_in_the_middle_as_diffusers_does_it():
    ours, theirs = make_scheduler("Heun", SD15), diffusers.HeunDiscreteScheduler(**SD15)
    x = noise([1])

    ends = []
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(28)  # 999 / 27 is whole
        timesteps = scheduler.timesteps[11 * scheduler.order :]
        scheduler.set_begin_index(11 * scheduler.order)
        z = scheduler.add_noise(x, noise([2]), timesteps[:1])
        for t in timesteps:
            z = scheduler.step(answer(scheduler.scale_model_input(z, t), t, kept=ours.alphas_cumprod), t, z, return_dict=False)[0]
        ends.append(z)

    assert torch.allclose(*ends, atol=1e-3)
    assert torch.allclose(ours.timesteps, theirs.timesteps, atol=0.01)


def test_a_run_does_not_start_within_a_step():
    scheduler = make_scheduler("Heun", SD15)
    scheduler.set_timesteps(5)

    with pytest.raises(SettingError, match="a multiple of 2 below 9, got 3"):
        scheduler.set_begin_index(3)


def test_latents_that_are_changed_between_two_calls_are_gone_on_from():
    ends = []
    for shift in (0.0, 0.5):
        scheduler = make_scheduler("DPM++ 2M", SD15)
        scheduler.set_timesteps(4)
        x = run(scheduler, noise([1]) * scheduler.init_noise_sigma, None, end=2)
        ends.append(run(scheduler, x + shift, None, begin=2))

    assert (ends[1] - ends[0]).abs().max() > 0.05


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_scheduler_says_whether_it_draws_noise(name):
    scheduler, (source,) = make_scheduler(name, SD15), generators([1])
    scheduler.set_timesteps(3)
    before = source.get_state()

    run(scheduler, noise([1]), [source])

    assert takes_generator(scheduler) == (not torch.equal(source.get_state(), before))


def test_eta_is_the_share_of_fresh_noise():
    def draw(name, seed, **settings):
        scheduler = make_scheduler(name, SD15, schedule="Uniform", **settings)
        scheduler.set_timesteps(6)
        return run(scheduler, noise([1]) * 14.6, generators([seed]))

    assert torch.equal(draw("Euler a", 1, eta=0.0), draw("Euler", 2))
    assert torch.equal(draw("Euler a", 1), draw("Euler a", 1, eta=1.0))
    apart = [(draw("DDIM", 1, eta=eta) - draw("DDIM", 2, eta=eta)).abs().mean() for eta in (0.0, 0.3, 1.0)]
    assert apart[0] == 0 < apart[1] < apart[2]


def test_eta_for_a_sampler_that_has_none_is_refused_with_those_that_have():
    with pytest.raises(SettingError, match=r"DPM\+\+ 2M has no share of fresh noise to choose, got eta=0.5; .*choose one of: DDIM, DPM"):
        make_scheduler("DPM++ 2M Karras", SD15, eta=0.5)


def test_the_betas_and_the_prediction_come_from_the_base():
    scheduler = make_scheduler("Euler", {**SD15, "beta_end": 0.02, "prediction_type": "v_prediction", "clip_sample": True})
    listed = make_scheduler("Euler", {"trained_betas": [0.01, 0.02, 0.4], "num_train_timesteps": 3})

    assert scheduler.config["beta_end"] == 0.02
    assert scheduler.config.prediction_type == "v_prediction"
    assert listed.alphas_cumprod.tolist() == pytest.approx([0.99, 0.99 * 0.98, 0.99 * 0.98 * 0.6])


def test_an_unknown_prediction_is_refused():
    with pytest.raises(SettingError, match="unknown prediction type of a base 'flow'; choose one of: epsilon, sample, v_prediction"):
        make_scheduler("Euler", {**SD15, "prediction_type": "flow"})


@pytest.mark.parametrize("name", ["DPM++ 2M", "DPM++ 3M SDE", "UniPC", "LMS", "Heun"])
def test_a_scheduler_remembers_nothing_of_another_run(name):
    def start():
        scheduler = make_scheduler(name, SD15)
        scheduler.set_timesteps(5)
        return scheduler

    x, used = noise([1]), start()
    fresh = run(start(), x, generators([1]))
    assert torch.equal(run(used, x, generators([1])), fresh)

    used.set_timesteps(5)

    assert torch.equal(run(used, x, generators([1])), fresh)


def test_noise_is_added_by_the_time_step_alone():
    scheduler = make_scheduler("DPM2", SD15)
    scheduler.set_timesteps(6)
    clean, fresh = torch.zeros(3, 1, 1, 1), torch.ones(3, 1, 1, 1)

    noisy = scheduler.add_noise(clean, fresh, torch.stack([scheduler.timesteps[4], scheduler.timesteps[1], torch.tensor(999.0)]))
    elsewhere = scheduler.add_noise(clean[:1], fresh[:1], torch.tensor([500.5]))

    assert noisy.flatten().tolist() == pytest.approx([float(scheduler.sigmas[4]), float(scheduler.sigmas[1]), 14.6146], rel=1e-5)
    level = (1 / scheduler.alphas_cumprod - 1).sqrt()
    assert level[500] < elsewhere < level[501]


def test_a_missing_generator_is_refused():
    scheduler = make_scheduler("Euler a", SD15)
    scheduler.set_timesteps(2)

    with pytest.raises(SettingError, match="one generator for each row, got 1 for 2 rows"):
        run(scheduler, noise([1, 2]), generators([1]))


def test_a_step_answers_in_the_type_it_was_given_and_as_diffusers_would():
    scheduler = make_scheduler("Euler a", SD15)
    scheduler.set_timesteps(3)
    x = noise([1]).half()

    first = scheduler.step(x, scheduler.timesteps[0], x, generator=torch.Generator().manual_seed(1))
    second, estimate = scheduler.step(x, scheduler.timesteps[1], first.prev_sample, return_dict=False)

    assert (first.prev_sample.dtype, second.dtype) == (torch.float16, torch.float16)
    assert torch.allclose(estimate, first.prev_sample.float() - float(scheduler.sigmas[1]) * x.float())
