"""How a LoRA's error is measured: which noise, which steps, how much each counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.diffusion.objective import Target, debiased_weight, min_snr_weight, multires_noise, offset_noise, perturbed
from synthaug.errors import require

__all__ = ["Loss"]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Settings of the loss; the defaults suit twenty photos on SD 1.x."""

    snr_gamma: float = 5.0
    """Where the min-SNR weight is cut, in units of SNR; 0 turns the weight off."""

    debiased: bool = False
    """Weight errors by 1 / sqrt(SNR) instead of min-SNR."""

    noise_offset: float = 0.0
    """Strength of a constant part of the noise; 0.05 helps dark and bright photos."""

    multires_noise: float = 0.0
    """Strength of coarse noise, halved resolution by halved resolution, 0 to 1; 0.3 is usual, 0 turns it off."""

    input_perturbation: float = 0.0
    """Noise that is added but not asked for, as a share of the noise; 0.1 is usual, 0 turns it off."""

    steps: tuple[float, float] = (0.0, 1.0)
    """First and last time step that are trained, as shares of the schedule: 0 is the cleanest. (0, 0.5) learns textures,
    (0.5, 1) layouts."""

    def __post_init__(self) -> None:
        first, last = self.steps
        require({
            "snr_gamma must be 0 or above; 5 is usual, 0 turns it off": (0 <= self.snr_gamma < math.inf, self.snr_gamma),
            "noise_offset must be from 0 to 1; 0.05 is usual": (0 <= self.noise_offset <= 1, self.noise_offset),
            "multires_noise must be from 0 to 1; 0.3 is usual": (0 <= self.multires_noise <= 1, self.multires_noise),
            "input_perturbation must be from 0 to 1; 0.1 is usual": (0 <= self.input_perturbation <= 1, self.input_perturbation),
            "steps must be two shares of the schedule, the first below the second": (0 <= first < last <= 1, self.steps),
        })  # fmt: skip

    def noise(self, like: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise to ask for and noise to add, each shaped as ``like``."""
        eps = torch.randn(like.shape, generator=generator)
        eps = multires_noise(eps, self.multires_noise, generator)
        eps = offset_noise(eps, self.noise_offset, generator)
        return eps.to(like), perturbed(eps, self.input_perturbation, generator).to(like)

    def times(self, count: int, total: int, generator: torch.Generator) -> Tensor:
        """Time steps of a batch, int64 (B,), spread evenly over those that are trained."""
        first, last = self.steps
        share = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        return ((first + share * (last - first)) * total).long().clamp(max=total - 1)

    def weight(self, snr: Tensor, kind: Target) -> Tensor:
        """How much each sample counts, (B,)."""
        if self.debiased:
            return debiased_weight(snr, kind)
        return min_snr_weight(snr, kind, gamma=self.snr_gamma) if self.snr_gamma > 0 else torch.ones_like(snr)
