"""How much of the picture is left at each time step.

Code name      Paper      Meaning
beta           beta_t     noise added at step t, as a variance, (T,)
alpha, sigma   a_t, s_t   signal and noise scale, (T,), alpha**2 + sigma**2 = 1
snr            SNR(t)     alpha**2 / sigma**2

Ho et al. 2020, https://arxiv.org/abs/2006.11239; the "scaled linear" form is that of Rombach et al.
2022, https://arxiv.org/abs/2112.10752. Zero terminal SNR: Lin et al. 2023, algorithm 1,
https://arxiv.org/abs/2305.08891.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from synthaug.errors import SettingError, choose

__all__ = ["NoiseSchedule", "schedule_of"]

Form = Literal["scaled_linear", "linear"]
"""What grows linearly: the square root of beta, or beta itself."""


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """How noise grows over the steps; the defaults are those of Stable Diffusion 1.x, 2.x and XL.

    Example:
        >>> alpha, sigma = NoiseSchedule().scales()
        >>> alpha.shape, round(float(alpha[-1] / sigma[-1]), 4)
        (torch.Size([1000]), 0.0684)
    """

    steps: int = 1000
    """Number of time steps T."""

    beta_start: float = 0.00085
    """Noise added at the first step, as a variance."""

    beta_end: float = 0.012
    """Noise added at the last step, as a variance."""

    last: float | None = None
    """Signal scale that the last step is stretched to; 0 is noise alone (the network must then predict v), None leaves it
    where the betas end."""

    form: Form = "scaled_linear"
    """What grows linearly: the square root of beta (``scaled_linear``), or beta itself (``linear``)."""

    betas: tuple[float, ...] | None = None
    """Every beta by itself, each above 0 and below 1; ``steps``, ``beta_start``, ``beta_end`` and ``form`` then do not matter."""

    def scales(self) -> tuple[Tensor, Tensor]:
        """Signal and noise scale of every step: two float32 tensors (steps,)."""
        kept = torch.cumprod(1 - self._variances(), 0)
        if self.last is not None:
            alpha = kept.sqrt()
            kept = (self.last + (alpha - alpha[-1]) * (alpha[0] - self.last) / (alpha[0] - alpha[-1])) ** 2
        return kept.sqrt().float(), (1 - kept).sqrt().float()

    def _variances(self) -> Tensor:
        """Every beta, float64 (steps,)."""
        if self.betas is not None:
            return torch.tensor(self.betas, dtype=torch.float64)
        power = 0.5 if self.form == "scaled_linear" else 1.0
        return torch.linspace(self.beta_start**power, self.beta_end**power, self.steps, dtype=torch.float64) ** (1 / power)


def schedule_of(config: Mapping[str, Any]) -> NoiseSchedule:
    """The schedule that a configuration of diffusers' schedulers describes.

    Args:
        config: As in ``scheduler_config.json``; ``trained_betas``, where there are some, go before the rest.

    Raises:
        SettingError: If betas grow in a way that is not known here, or are no variances.

    Example:
        >>> schedule_of({"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "num_train_timesteps": 500}).form
        'linear'
    """
    last = 0.0 if config.get("rescale_betas_zero_snr") else None
    given = config.get("trained_betas")
    if given is not None:
        return NoiseSchedule(betas=_checked(tuple(float(beta) for beta in given)), steps=len(given), last=last)
    form = choose("noise schedule of a base", str(config.get("beta_schedule")), {known: known for known in get_args(Form)})
    ends = _checked((float(config["beta_start"]), float(config["beta_end"])))
    return NoiseSchedule(steps=int(config["num_train_timesteps"]), beta_start=ends[0], beta_end=ends[1], last=last, form=form)


def _checked(betas: tuple[float, ...]) -> tuple[float, ...]:
    for step, beta in enumerate(betas):
        if not 0 < beta < 1:
            raise SettingError(f"every beta of a base's schedule must be above 0 and below 1, number {step} is {beta}; copy the base again")
    if len(betas) < 2:
        raise SettingError(f"a base's schedule must have at least 2 betas, it has {len(betas)}; copy the base again")
    return betas
