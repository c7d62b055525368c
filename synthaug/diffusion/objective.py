"""What the network is asked to predict, and how much each noise level counts.

Code name      Paper      Meaning
x              x          clean latent, (B, C, H, W)
eps            epsilon    noise that was added, (B, C, H, W), standard normal
alpha, sigma   a_t, s_t   signal and noise scale, (B,), alpha**2 + sigma**2 = 1
z              z_t        noised latent, alpha x + sigma eps
snr            SNR(t)     alpha**2 / sigma**2, (B,)

v target:        Salimans & Ho 2022, https://arxiv.org/abs/2202.00512
min-SNR weight:  Hang et al. 2023, https://arxiv.org/abs/2303.09556
debiased weight: Yu et al. 2023, https://arxiv.org/abs/2310.08442
offset noise:    Guttenberg 2023, https://www.crosslabs.org/blog/diffusion-with-offset-noise
multires noise:  Whitaker 2023, https://wandb.ai/johnowhitaker/multires_noise/reports/Multi-Resolution-Noise-for-Diffusion-Model-Training--VmlldzozNjYyOTU2
perturbed input: Ning et al. 2023, https://arxiv.org/abs/2301.11706
pseudo-Huber:    Song & Dhariwal 2023, https://arxiv.org/abs/2310.14189
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "Target",
    "debiased_weight",
    "min_snr_weight",
    "multires_noise",
    "noised",
    "offset_noise",
    "perturbed",
    "pseudo_huber",
    "target_of",
    "v_target",
    "weighted_mean",
]

Target = Literal["epsilon", "v_prediction", "sample"]
"""What the network predicts, under the names of diffusers' schedulers."""


def noised(x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """z = alpha x + sigma eps."""
    return _per_sample(alpha, x) * x + _per_sample(sigma, x) * eps


def v_target(x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """v = alpha eps - sigma x."""
    return _per_sample(alpha, x) * eps - _per_sample(sigma, x) * x


def target_of(kind: Target, x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a network of this kind should answer, (B, C, H, W)."""
    if kind == "epsilon":
        return eps
    return x if kind == "sample" else v_target(x, eps, alpha, sigma)


def min_snr_weight(snr: Tensor, kind: Target, *, gamma: float = 5.0) -> Tensor:
    """Weight per sample, (B,), that stops low-noise steps from ruling the loss; a step of noise alone has SNR 0 and its limit.

    Example:
        >>> min_snr_weight(torch.tensor([0.0, 0.5, 10.0]), "epsilon", gamma=5.0)
        tensor([1.0000, 1.0000, 0.5000])
    """
    clipped = snr.clamp(max=gamma)
    return {"sample": clipped, "epsilon": (gamma / snr).clamp(max=1), "v_prediction": clipped / (snr + 1)}[kind]


def debiased_weight(snr: Tensor, kind: Target, *, largest: float = 1000.0) -> Tensor:
    """Weight per sample, (B,), 1 / sqrt(SNR) on errors of epsilon and the same in other terms.

    SNR is cut at ``largest``. On epsilon the weight grows without end towards noise alone, so there SNR is cut at
    1 / ``largest`` too, below every step of a schedule that keeps some signal.

    Example:
        >>> debiased_weight(torch.tensor([0.25, 4.0]), "epsilon")
        tensor([2.0000, 0.5000])
    """
    cut = snr.clamp(max=largest)
    weight: Tensor = {"epsilon": cut.clamp(min=1 / largest).rsqrt(), "v_prediction": cut.sqrt() / (cut + 1), "sample": cut.sqrt()}[kind]
    return weight


def multires_noise(eps: Tensor, discount: float, generator: torch.Generator | None = None) -> Tensor:
    """Add noise of half the resolution, a quarter and so on, each times ``discount`` again; the variance stays 1.

    Low frequencies get more noise, so that a LoRA learns the light and shade of whole pictures.
    """
    if discount == 0:
        return eps
    height, width = eps.shape[-2:]
    total, variance, level = eps, 1.0, 1
    while min(height, width) >> level:
        small = torch.randn(*eps.shape[:2], height >> level, width >> level, generator=generator, dtype=eps.dtype).to(eps.device)
        share = discount**level
        total = total + share * functional.interpolate(small, (height, width), mode="nearest")
        variance, level = variance + share**2, level + 1
    return torch.div(total, variance**0.5)


def perturbed(eps: Tensor, strength: float, generator: torch.Generator | None = None) -> Tensor:
    """The noise that is added instead of ``eps``, which stays the target: the network learns to correct its own errors."""
    if strength == 0:
        return eps
    return eps + strength * torch.randn(eps.shape, generator=generator, dtype=eps.dtype).to(eps.device)


def pseudo_huber(difference: Tensor, c: float) -> Tensor:
    """2 c (sqrt(d**2 + c**2) - c): the square of small differences, 2 c times the size of large ones; c = 0 is the square itself.

    Example:
        >>> pseudo_huber(torch.tensor([0.0, 10.0]), 0.1)
        tensor([0.0000, 1.9801])
    """
    return difference.square() if c == 0 else 2 * c * difference.square() / ((difference.square() + c**2).sqrt() + c)


def weighted_mean(error: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of an error map (B, C, h, w) over each sample, (B,); with a weight (B, 1, h, w), over its area.

    A small defect counts as much as a large one: the sum is divided by the weight's own.

    Example:
        >>> error, weight = torch.ones(1, 4, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        >>> weighted_mean(error, weight)
        tensor([1.])
    """
    if weight is None:
        return error.flatten(1).mean(1)
    return (error * weight).flatten(1).sum(1) / (weight.flatten(1).sum(1) * error.shape[1]).clamp_min(1e-6)


def offset_noise(eps: Tensor, strength: float, generator: torch.Generator | None = None) -> Tensor:
    """Add one constant per sample and channel to the noise, so that overall brightness can be learned."""
    if strength == 0:
        return eps
    shift = torch.randn(*eps.shape[:2], 1, 1, generator=generator, dtype=eps.dtype).to(eps.device)
    return eps + strength * shift


def _per_sample(value: Tensor, like: Tensor) -> Tensor:
    """Shape (B,) so that it broadcasts over (B, C, H, W)."""
    return value.reshape(-1, *[1] * (like.ndim - 1))
