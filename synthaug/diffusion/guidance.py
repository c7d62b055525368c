"""Classifier-free guidance.

Code name    Paper          Meaning
cond         eps(z, c)      answer with the prompt, (B, C, h, w)
uncond       eps(z)         answer with the negative prompt
scale        1 + w          1 is the prompt alone

Ho & Salimans 2022, https://arxiv.org/abs/2207.12598.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["guided"]


def guided(cond: Tensor, uncond: Tensor, scale: Tensor) -> Tensor:
    """uncond + scale (cond - uncond), with one scale per sample, (B,).

    Example:
        >>> import torch
        >>> guided(torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), torch.tensor([1.0, 3.0])).flatten()
        tensor([1., 3.])
    """
    return uncond + scale.reshape(-1, 1, 1, 1) * (cond - uncond)
