"""What the network is asked to predict, and how much each noise level counts.

Code name      Paper      Meaning
x              x          clean latent, (B, C, H, W)
eps            epsilon    noise that was added, (B, C, H, W), standard normal
alpha, sigma   a_t, s_t   signal and noise scale, (B,), alpha**2 + sigma**2 = 1
z              z_t        noised latent, alpha x + sigma eps
snr            SNR(t)     alpha**2 / sigma**2, (B,)

v target:        Salimans & Ho 2022, https://arxiv.org/abs/2202.00512
min-SNR weight:  Hang et al. 2023, https://arxiv.org/abs/2303.09556
offset noise:    Guttenberg 2023, https://www.crosslabs.org/blog/diffusion-with-offset-noise
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Target", "min_snr_weight", "noised", "offset_noise", "target_of", "v_target"]

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
    """Weight per sample, (B,), that stops low-noise steps from ruling the loss.

    Example:
        >>> min_snr_weight(torch.tensor([0.5, 10.0]), "epsilon", gamma=5.0)
        tensor([1.0000, 0.5000])
    """
    clipped = snr.clamp(max=gamma)
    return {"sample": clipped, "epsilon": clipped / snr, "v_prediction": clipped / (snr + 1)}[kind]


def offset_noise(eps: Tensor, strength: float, generator: torch.Generator | None = None) -> Tensor:
    """Add one constant per sample and channel to the noise, so that overall brightness can be learned."""
    if strength == 0:
        return eps
    shift = torch.randn(*eps.shape[:2], 1, 1, generator=generator, dtype=eps.dtype).to(eps.device)
    return eps + strength * shift


def _per_sample(value: Tensor, like: Tensor) -> Tensor:
    """Shape (B,) so that it broadcasts over (B, C, H, W)."""
    return value.reshape(-1, *[1] * (like.ndim - 1))
