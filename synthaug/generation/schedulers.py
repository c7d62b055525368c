"""Schedulers: a sampler on the noise levels of a run, with the methods that diffusers' schedulers have.

All of them work on latents whose signal keeps its scale, as k-diffusion does, so that noise levels and results are those of A1111:
the stock SD 1.5 configuration of diffusers starts Euler at 11.0 instead of 14.6. Nothing is read from the configuration of a base
but its betas, its prediction type and whether it ends in noise alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, Protocol

import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from synthaug.diffusion.schedule import NoiseSchedule, schedule_of
from synthaug.diffusion.sigmas import Levels, levels_of_run
from synthaug.diffusion.solvers import Run
from synthaug.errors import SettingError, choose
from synthaug.generation.sampler_names import AUTOMATIC, SAMPLERS, SamplerKind, automatic_schedule, split_sampler

__all__ = ["SAMPLERS", "LevelScheduler", "Scheduler", "make_scheduler", "takes_generator"]

LOUDEST = 250.0
"""Noise over signal where a base with zero terminal SNR begins. Infinity is what it was trained with, but Karras' levels
would then all lie where nothing can be seen, and Heun has no way to start there."""


class Scheduler(Protocol):
    """What the denoise loop needs of a scheduler, by diffusers' names."""

    timesteps: Tensor
    order: int

    @property
    def init_noise_sigma(self) -> Any:
        """Scale of the noise that a run starts from."""

    def set_timesteps(self, num_inference_steps: int) -> None:
        """Choose the noise levels of a run."""

    def set_begin_index(self, begin_index: int) -> None:
        """Start in the middle of a run."""

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        """What the UNet is shown, (B, C, h, w)."""
        ...

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents at the noise level of a time step, (B, C, h, w)."""
        ...

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *, generator: Any = None, return_dict: bool = True) -> Any:
        """Go one noise level down."""


class LevelScheduler:
    """Runs a sampler down the noise levels of a run, one answer of the network at a time.

    A sampler with ``order`` 2 looks twice within a step, except in the one that ends in no noise: ``timesteps`` has up to 2 n - 1
    entries, an even one at the start of each step and an odd one within it. To start at step k of n, take ``timesteps[k * order:]``
    and call ``set_begin_index(k * order)``, as diffusers' pipelines do. Latents may be changed from outside between two calls.

    A row of a batch depends on the others in nothing: noise is drawn for each row from a generator of its own.

    Args:
        kind: The sampler.
        course: Name of its schedule, never Automatic.
        base: Noise schedule of the base.
        prediction: What the network answers: ``epsilon``, ``v_prediction`` or ``sample``.
        eta: Share of fresh noise.
        family: Of the base.
        config: Shown as ``config``, for diffusers' pipelines.
    """

    timesteps: Tensor
    """Time step of every call of the network, float32."""

    sigmas: Tensor
    """Noise level of every call, and the one where the run ends, float32."""

    def __init__(
        self, kind: SamplerKind, course: str, base: NoiseSchedule, *, prediction: str, eta: float, family: str, config: Mapping[str, Any]
    ) -> None:
        self.order = 2 if kind.second else 1
        self.config = FrozenDict(config)
        self.alphas_cumprod = _levels(base).kept
        self._kind, self._course, self._base, self._eta, self._family = kind, course, base, eta, family
        self._denoised = choose("prediction type of a base", prediction, _DENOISED)
        self.timesteps, self.sigmas = torch.empty(0), torch.empty(0)
        self._steps: list[float] = []
        self._looks: list[float] = []
        self._begin: int | None = None
        self._at: int | None = None
        self._run: Run | None = None
        self._generator: Any = None

    @property
    def random(self) -> bool:
        """Whether a run draws noise."""
        return self._kind.random or self._eta > 0

    @property
    def init_noise_sigma(self) -> float:
        """Scale of the noise that a run starts from."""
        return math.hypot(1, self._looks[0]) if self._kind.as_trained else self._looks[0]

    @property
    def begin_index(self) -> int | None:
        """Where the run starts, None until somebody says so: at the beginning."""
        return self._begin

    @property
    def step_index(self) -> int | None:
        """Number of the next call, None before the first."""
        return self._at

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Choose the noise levels of a run, and be ready to start it.

        Raises:
            SettingError: If the schedule has no such number of levels.
        """
        kind = self._kind
        self._steps = list(_steps(self._course, self._base, num_inference_steps, self._family, kind))
        self._looks = []
        for s, to in pairwise(self._steps):
            within = kind.second(s, to, self._eta) if kind.second and to else 0
            self._looks += [s, within] if within else [s]
        looks = torch.tensor(self._looks, dtype=torch.float64)
        self.sigmas = torch.tensor([*self._looks, self._steps[-1]])
        self.timesteps = _levels(self._base).time_of(looks).to(device, torch.float32)
        self._begin, self._at, self._run = None, None, None

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at another call than the first one.

        Raises:
            SettingError: If it is within a step, or past the last one.
        """
        if begin_index % self.order or not 0 <= begin_index < len(self._looks):
            raise SettingError(
                f"a run starts at a call that begins a step: a multiple of {self.order} below {len(self._looks)}, got {begin_index}"
            )
        self._begin, self._at, self._run = begin_index, None, None

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:  # noqa: ARG002  # diffusers' signature
        """What the UNet is shown, (B, C, h, w): latents whose variance is that of training."""
        return sample / math.hypot(1, self._level())

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents at the noise level of each row's time step, (B, C, h, w); a function of its arguments alone."""
        given = torch.as_tensor(timesteps).to(self.timesteps.device, self.timesteps.dtype).reshape(-1)
        known = (given[:, None] == self.timesteps).float()
        own = self.sigmas.to(given.device)[known.argmax(1)]
        sigma = torch.where(known.amax(1) > 0, own, _levels(self._base).at(given.cpu()).float().to(given.device))
        return original_samples + noise * sigma.to(original_samples.device, original_samples.dtype).view(-1, 1, 1, 1)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,  # noqa: ARG002  # diffusers' signature; calls are counted
        sample: Tensor,
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Go on by one answer of the network.

        Args:
            model_output: The answer, (B, C, h, w).
            timestep: Not looked at: calls come in their order.
            sample: Latents, (B, C, h, w), as the last call handed them back.
            generator: One for each row, or one for all; None takes the global one. Only samplers with noise draw from it.
            return_dict: Whether to answer as diffusers' pipelines may ask.

        Returns:
            Latents of the next call, and the network's estimate of the latents without noise.
        """
        s, x = self._level(), sample.float()
        if self._run is None:
            begin = (self._begin or 0) // self.order
            run = partial(self._kind.run, quieter=self._quieter) if self._kind.asks_for_levels else self._kind.run
            self._run, self._at = run(self._steps[begin:], self._noise, self._eta), self._begin or 0
            next(self._run)
        assert self._at is not None
        self._generator = generator
        x0 = self._denoised(x, model_output.float(), s)
        latents = self._run.send((x, x0)).to(sample.dtype)
        self._at += 1
        return SchedulerOutput(prev_sample=latents) if return_dict else (latents, x0)

    def _level(self) -> float:
        return self._looks[(self._begin or 0) if self._at is None else self._at]

    def _noise(self, x: Tensor) -> Tensor:
        return _drawn(x, self._generator)

    def _quieter(self, level: float, eta: float) -> float:
        """Level at the whole time step that is the share eta below a level's own, never above the level."""
        levels = _levels(self._base)
        t = float(levels.time_of(torch.tensor(level)))
        return min(level, float(levels.at(torch.tensor((1 - eta) * t).floor())))


def make_scheduler(
    name: str, config: Mapping[str, Any], *, schedule: str = AUTOMATIC, eta: float | None = None, family: str = "sd1"
) -> LevelScheduler:
    """Build a fresh scheduler.

    Args:
        name: A sampler, as people type it; a schedule may follow.
        config: The base's own schedule; betas, zero terminal SNR and prediction type are taken from it.
        schedule: A noise schedule; Automatic is the one that goes with the sampler.
        eta: Share of fresh noise, 0 to 1; None is the sampler's own.
        family: Of the base, as in :attr:`synthaug.models.base.Base.family`.

    Raises:
        SettingError: If a name is unknown, or the sampler has no share of noise that could be chosen.

    Example:
        >>> scheduler = make_scheduler("Euler", {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})
        >>> scheduler.set_timesteps(20)
        >>> round(float(scheduler.sigmas[0]), 2)
        14.61
    """
    sampler, course = split_sampler(name, schedule)
    kind = SAMPLERS[sampler]
    if eta is not None and not kind.takes_eta:
        takers = ", ".join(sorted(other for other, its in SAMPLERS.items() if its.takes_eta))
        raise SettingError(f"{sampler} has no share of fresh noise to choose, got eta={eta}; leave it out, or choose one of: {takers}")
    base = schedule_of({"num_train_timesteps": 1000, **config})
    return LevelScheduler(
        kind,
        automatic_schedule(sampler, config) if course == AUTOMATIC else course,
        base if base.last is None else replace(base, last=1 / LOUDEST),
        prediction=str(config.get("prediction_type", "epsilon")),
        eta=kind.eta if eta is None else eta,
        family=family,
        config=config,
    )


def takes_generator(scheduler: Scheduler) -> bool:
    """Whether a run draws noise, and wants a generator for each row.

    Example:
        >>> betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        >>> [takes_generator(make_scheduler("DDIM", betas, eta=eta)) for eta in (None, 0.5)]
        [False, True]
    """
    return bool(getattr(scheduler, "random", False))


_DENOISED: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "epsilon": lambda x, answer, s: x - answer * s,
    "v_prediction": lambda x, answer, s: x / (1 + s * s) - answer * (s / math.hypot(1, s)),
    "sample": lambda _x, answer, _s: answer,
}
"""What the network answers -> the latents without noise, of (latents, answer, noise level)."""


def _drawn(x: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
    """Noise of the shape of some latents, row by row if there is a generator for each."""
    if generator is None:
        return torch.randn_like(x)
    if isinstance(generator, torch.Generator):
        return torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)
    rows = [torch.randn(x.shape[1:], generator=own, device=own.device) for own in generator]
    if len(rows) != len(x):
        raise SettingError(f"there must be one generator for each row, got {len(rows)} for {len(x)} rows")
    return torch.stack(rows).to(x.device)


@lru_cache(maxsize=16)
def _levels(base: NoiseSchedule) -> Levels:
    return Levels.of(*base.scales())


@lru_cache(maxsize=256)
def _steps(course: str, base: NoiseSchedule, n: int, family: str, kind: SamplerKind) -> tuple[float, ...]:
    """The n + 1 levels between which a sampler steps."""
    levels = _levels(base)
    found = levels_of_run(course, levels, n + kind.drops_a_level, family=family)[:n].tolist()
    lowest = levels.lowest
    if kind.ends_above_zero:
        return (*found, min(lowest, found[-1]))
    return (*found, lowest if kind.as_trained and found[-1] > lowest * 1.01 else 0.0)
