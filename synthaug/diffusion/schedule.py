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

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NoiseSchedule"]


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """Schedule of Stable Diffusion 1.x and 2.x: the square root of beta grows linearly.

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

    def scales(self) -> tuple[Tensor, Tensor]:
        """Signal and noise scale of every step: two float32 tensors (steps,)."""
        root = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float64)
        kept = torch.cumprod(1 - root**2, 0)
        if self.last is not None:
            alpha = kept.sqrt()
            kept = (self.last + (alpha - alpha[-1]) * (alpha[0] - self.last) / (alpha[0] - alpha[-1])) ** 2
        return kept.sqrt().float(), (1 - kept).sqrt().float()
