"""Each solver against diffusers' class of the same name, and all of them against a distribution whose way is known."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import diffusers
import pytest
import torch

from synthaug.diffusion import solvers
from synthaug.diffusion.schedule import NoiseSchedule
from synthaug.diffusion.sigmas import Levels, levels_of_run
from synthaug.generation.borrowed_solvers import uni_pc

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LEVELS = Levels.of(*NoiseSchedule().scales())
SHAPE = (2, 4, 3, 5)
STEPS = 28  # 999 / 27 is whole, so that every time step is

dpm = partial(diffusers.DPMSolverMultistepScheduler, final_sigmas_type="zero", timestep_spacing="linspace")
CASES = {
    "Euler": (solvers.euler, 0.0, diffusers.EulerDiscreteScheduler),
    "Euler a": (solvers.euler, 1.0, diffusers.EulerAncestralDiscreteScheduler),
    "DDPM": (solvers.euler, 1.0, partial(diffusers.DDPMScheduler, clip_sample=False, timestep_spacing="linspace")),
    "Heun": (solvers.heun, 0.0, diffusers.HeunDiscreteScheduler),
    "DPM2": (solvers.dpm2, 0.0, diffusers.KDPM2DiscreteScheduler),
    "DPM2 a": (solvers.dpm2, 1.0, diffusers.KDPM2AncestralDiscreteScheduler),
    "DPM++ 2M": (solvers.dpm_2m, 0.0, dpm),
    "DPM++ 2M SDE": (solvers.dpm_2m_sde, 1.0, partial(dpm, algorithm_type="sde-dpmsolver++")),
    "DPM++ 2M SDE Heun": (partial(solvers.dpm_2m_sde, heun=True), 1.0, partial(dpm, algorithm_type="sde-dpmsolver++", solver_type="heun")),
    "DPM++ 3M SDE": (solvers.dpm_3m_sde, 0.0, partial(dpm, solver_type="heun", solver_order=3)),  # its SDE has a sign wrong
    "DEIS": (solvers.deis, 0.0, partial(diffusers.DEISMultistepScheduler, solver_order=3)),
    "LCM": (solvers.lcm, 0.0, partial(diffusers.LCMScheduler, timestep_scaling=1e9)),
    "TCD": (None, 0.3, diffusers.TCDScheduler),
}


def estimate(x, sigma):
    """Latents without noise, as a network might guess them."""
    return torch.tanh(x / (1 + sigma**2)) * 0.9 + 0.1


def draws(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator)


def drive(run, levels, second, x):
    """Run a solver, telling it the estimate wherever it looks."""
    next(run)
    for s, to in pairwise(levels):
        within = second(s, to) if second and to else 0
        for look in (s, within) if within else (s,):
            x = run.send((x, estimate(x, look)))
    return x


def seconds(name, eta):
    if name == "Heun":
        return lambda _, to: to
    if name.startswith(("DPM2", "DPM++ 2S")):
        return lambda s, to: solvers.middle(s, solvers.ancestral(s, to, eta)[0])
    return solvers.middle if name == "DPM++ SDE" else None


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")  # diffusers' DEIS with numpy 2
@pytest.mark.parametrize("name", CASES)
def test_a_solver_goes_where_diffusers_goes(name):
    solver, eta, kind = CASES[name]
    theirs = kind(**BETAS)
    theirs.set_timesteps(STEPS)
    takes_noise = eta or name == "LCM"
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    loud = float(LEVELS.at(theirs.timesteps[:1]))
    keeps_variance = not name.startswith(("Euler", "Heun", "DPM2"))
    z = x * (loud / math.hypot(1, loud) if keeps_variance else loud)
    generator = torch.Generator().manual_seed(2)
    for t in theirs.timesteps:
        sigma = float(LEVELS.at(t))
        shown = theirs.scale_model_input(z, t) * math.hypot(1, sigma)
        extra = {"generator": generator} if takes_noise else {}
        z = theirs.step((shown - estimate(shown, sigma)) / sigma, t, z, **extra, return_dict=False)[0]

    steps = LEVELS.at(theirs.timesteps[:: theirs.order]).tolist()
    end = LEVELS.lowest if name in ("TCD", "DEIS") else 0.0
    second = seconds(name, eta)
    if name == "TCD":
        quieter = lambda level, share: float(LEVELS.at((LEVELS.time_of(torch.tensor(level)) * (1 - share)).floor()))  # noqa: E731
        solver = partial(solvers.tcd, quieter=quieter)
    run = solver([*steps, end], draws(2), eta)
    ours = drive(run, [*steps, end], second, x * loud) / (math.hypot(1, end) if keeps_variance else 1)

    assert len(steps) == STEPS
    assert torch.allclose(ours, z, atol=3e-4), float((ours - z).abs().max())


WAYS = {
    "Euler": (solvers.euler, 1, 0.06), "Heun": (solvers.heun, 2, 4e-3), "DPM2": (solvers.dpm2, 2, 2e-3),
    "DPM++ 2S": (solvers.dpm_2s, 2, 2e-3), "DPM++ SDE": (solvers.dpm_sde, 2, 2e-3), "DPM++ 2M": (solvers.dpm_2m, 2, 2e-3),
    "DPM++ 2M SDE": (solvers.dpm_2m_sde, 2, 2e-3), "DPM++ 3M SDE": (solvers.dpm_3m_sde, 1.7, 1e-4), "LMS": (solvers.lms, 2.5, 2e-3),
    "UniPC": (uni_pc, 1.7, 3e-5), "DEIS": (solvers.deis, 2, 6e-4), "PLMS": (solvers.plms, 2, 1e-4),
    "TCD": (partial(solvers.tcd, quieter=lambda level, _: level), 1, 0.06),
}  # fmt: skip
"""Name -> solver, order that two runs show, error of the coarser one; a first step of low order sets the pace of the higher ones."""


@pytest.mark.parametrize("name", WAYS)
def test_without_fresh_noise_a_solver_is_of_its_order(name):
    """The best estimate of latents that are a Gaussian N(0, 4) leads along x * sqrt(4 + s**2)."""
    solver, order, allowed = WAYS[name]
    uneven = name != "PLMS"  # its weights are those of even steps
    errors = []
    for n in (40, 80):
        levels = torch.logspace(1, -1, n + 1, dtype=torch.float64).tolist() if uneven else torch.linspace(4, 1, n + 1).tolist()
        run = solver(levels, torch.randn_like, 0.0)
        next(run)
        x = torch.full((1, 1, 1, 1), math.sqrt(4 + levels[0] ** 2), dtype=torch.float64)
        second = seconds(name if name != "DPM++ 2S" else "DPM++ 2S a", 0.0)
        for s, to in pairwise(levels):
            for look in (s, second(s, to)) if second else (s,):
                x = run.send((x, x * 4 / (4 + look**2)))
        errors.append(abs(float(x) - math.sqrt(4 + levels[-1] ** 2)))

    assert errors[0] < allowed
    assert math.log2(errors[0] / errors[1]) > order - 0.2


NOISY = {
    "Euler a": solvers.euler, "DPM2 a": solvers.dpm2, "DPM++ 2S a": solvers.dpm_2s, "DPM++ SDE": solvers.dpm_sde,
    "DPM++ 2M SDE": solvers.dpm_2m_sde, "DPM++ 2M SDE Heun": partial(solvers.dpm_2m_sde, heun=True), "DPM++ 3M SDE": solvers.dpm_3m_sde,
}  # fmt: skip


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("name", NOISY)
def test_fresh_noise_keeps_the_spread_of_the_latents(name, eta):
    """Latents that are a Gaussian N(0, 4) have to come out with a standard deviation of 2, however much noise comes in on the way."""
    levels = [*levels_of_run("Karras", LEVELS, 120 if name == "Euler a" else 60).tolist(), 0.0]
    torch.manual_seed(0)
    x = torch.randn(20_000, 1, 1, 1) * math.hypot(2, levels[0])
    run, second = NOISY[name](levels, torch.randn_like, eta), seconds(name, eta)
    next(run)
    for s, to in pairwise(levels):
        within = second(s, to) if second and to else 0
        for look in (s, within) if within else (s,):
            x = run.send((x, x * 4 / (4 + look**2)))

    assert float(x.std()) == pytest.approx(2, rel=0.03)
    assert abs(float(x.mean())) < 0.06
