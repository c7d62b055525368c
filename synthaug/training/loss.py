"""How a LoRA's error is measured: which noise, which steps, how much each counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from synthaug.diffusion.objective import Target, debiased_weight, min_snr_weight, multires_noise, offset_noise, perturbed, pseudo_huber
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

    spread: Literal["even", "logit_normal"] = "even"
    """How often each of them is trained: all alike, or those in the middle more often than both ends (Esser et al. 2024,
    https://arxiv.org/abs/2403.03206)."""

    logit_mean: float = 0.0
    """Where the middle of ``logit_normal`` lies, -3 to 3; above 0 it is noisier."""

    logit_std: float = 1.0
    """How wide ``logit_normal`` is, 0.1 to 3."""

    huber: float = 0.0
    """Size above which a difference counts by its size instead of its square, so that odd places matter less; 0.1 is usual,
    0 turns it off."""

    prior: Literal["images", "base"] = "images"
    """What regularisation images should stay: as they were drawn, or as the base without the LoRA would denoise them."""

    prior_weight: float = 1.0
    """How much a regularisation image counts against a photo."""

    def __post_init__(self) -> None:
        first, last = self.steps
        require({
            "snr_gamma must be 0 or above; 5 is usual, 0 turns it off": (0 <= self.snr_gamma < math.inf, self.snr_gamma),
            "noise_offset must be from 0 to 1; 0.05 is usual": (0 <= self.noise_offset <= 1, self.noise_offset),
            "multires_noise must be from 0 to 1; 0.3 is usual": (0 <= self.multires_noise <= 1, self.multires_noise),
            "input_perturbation must be from 0 to 1; 0.1 is usual": (0 <= self.input_perturbation <= 1, self.input_perturbation),
            "steps must be two shares of the schedule, the first below the second": (0 <= first < last <= 1, self.steps),
            "logit_mean must be from -3 to 3; 0 is usual": (-3 <= self.logit_mean <= 3, self.logit_mean),
            "logit_std must be from 0.1 to 3; 1 is usual": (0.1 <= self.logit_std <= 3, self.logit_std),
            "huber must be 0 or above; 0.1 is usual, 0 turns it off": (0 <= self.huber < math.inf, self.huber),
            "prior_weight must be 0 or above; 1 counts them like photos": (0 <= self.prior_weight < math.inf, self.prior_weight),
        })  # fmt: skip

    def noise(self, like: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise to ask for and noise to add, each shaped as ``like``."""
        eps = torch.randn(like.shape, generator=generator)
        eps = multires_noise(eps, self.multires_noise, generator)
        eps = offset_noise(eps, self.noise_offset, generator)
        return eps.to(like), perturbed(eps, self.input_perturbation, generator).to(like)

    def times(self, count: int, total: int, generator: torch.Generator) -> Tensor:
        """Time steps of a batch, int64 (B,), in rising order: one from each of B equal shares of those that are trained."""
        first, last = self.steps
        share = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        if self.spread == "logit_normal":
            normal = torch.special.ndtri(share.double().clamp(1e-6, 1 - 1e-6))
            share = torch.sigmoid(self.logit_mean + self.logit_std * normal).float()
        return ((first + share * (last - first)) * total).long().clamp(max=total - 1)

    def error(self, difference: Tensor) -> Tensor:
        """What a difference between answer and target costs, place by place; of the difference's shape."""
        return pseudo_huber(difference, self.huber)

    def weight(self, snr: Tensor, kind: Target) -> Tensor:
        """How much each sample counts, (B,)."""
        if self.debiased:
            return debiased_weight(snr, kind)
        return min_snr_weight(snr, kind, gamma=self.snr_gamma) if self.snr_gamma > 0 else torch.ones_like(snr)

    def share(self, regular: Tensor | None) -> Tensor | float:
        """How much each sample counts besides, (B,) or 1 for all; ``regular`` (B,) marks regularisation images."""
        return 1.0 if regular is None else torch.where(regular, self.prior_weight, 1.0)
