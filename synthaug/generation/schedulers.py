"""Samplers by the names people type, each a diffusers scheduler with every setting spelled out.

The noise levels are those that A1111 uses: the stock SD 1.5 configuration starts Euler at 11.0 instead
of 14.6, so the spacing is always given.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import diffusers
import torch
from torch import Tensor

from synthaug.diffusion.schedule import NoiseSchedule
from synthaug.errors import choose

__all__ = ["SAMPLERS", "Scheduler", "make_scheduler", "takes_generator"]

_DPM = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "final_sigmas_type": "zero"}
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {**_DPM, "timestep_spacing": "linspace"}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {**_DPM, "timestep_spacing": "linspace", "use_karras_sigmas": True}),
    "Euler": ("EulerDiscreteScheduler", {"timestep_spacing": "linspace"}),
    "Euler Karras": ("EulerDiscreteScheduler", {"timestep_spacing": "linspace", "use_karras_sigmas": True}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "linspace"}),
    "Heun": ("HeunDiscreteScheduler", {"timestep_spacing": "linspace"}),
    "DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False, "timestep_spacing": "leading", "steps_offset": 1}),
    "UniPC": (
        "UniPCMultistepScheduler",  # bh1 divides by the last noise level: down to zero it answers NaN
        {"solver_order": 3, "solver_type": "bh1", "timestep_spacing": "linspace", "final_sigmas_type": "sigma_min"},
    ),
}
"""Name -> diffusers class and settings; the betas come from the base."""

_FROM_BASE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")


LOUDEST = 250.0
"""Noise over signal where a base with zero terminal SNR begins. Infinity is what it was trained with, but Karras' levels
would then all lie where nothing can be seen, and Heun has no way to start there."""


class Scheduler(Protocol):
    """What the denoise loop needs of a diffusers scheduler."""

    timesteps: Tensor
    init_noise_sigma: Any
    order: int

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

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **settings: Any) -> Any:
        """Go one noise level down."""


def takes_generator(scheduler: Scheduler) -> bool:
    """Whether its steps add fresh noise."""
    return "generator" in inspect.signature(scheduler.step).parameters


def make_scheduler(
    name: str, config: Mapping[str, Any], *, schedule: str = "Automatic", eta: float | None = None, family: str = "sd1"
) -> Scheduler:
    """Build a fresh scheduler.

    Args:
        name: One of :data:`SAMPLERS`.
        config: The base's own schedule; betas, zero terminal SNR and prediction type are taken from it.

    Raises:
        SettingError: If the name is unknown.

    Example:
        >>> scheduler = make_scheduler("Euler", {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})
        >>> scheduler.set_timesteps(20)
        >>> round(float(scheduler.sigmas[0]), 2)
        14.61
    """
    kind, settings = choose("sampler", name, SAMPLERS)
    betas = {key: config[key] for key in _FROM_BASE if key in config}
    if config.get("rescale_betas_zero_snr"):
        betas["trained_betas"] = _ending_in_noise(config)
        settings = {**settings, "timestep_spacing": "trailing"} if settings["timestep_spacing"] == "leading" else settings
    scheduler: Scheduler = getattr(diffusers, kind)(**betas, **settings)
    return scheduler


def _ending_in_noise(schedule: Mapping[str, Any]) -> list[float]:
    """Betas of a schedule with zero terminal SNR, stopped at :data:`LOUDEST`."""
    signal, _ = NoiseSchedule(
        steps=schedule["num_train_timesteps"], beta_start=schedule["beta_start"], beta_end=schedule["beta_end"], last=1 / LOUDEST
    ).scales()
    kept = signal.double() ** 2
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    return (1 - kept / before).tolist()
