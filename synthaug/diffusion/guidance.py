"""Classifier-free guidance.

Code name    Paper          Meaning
cond         eps(z, c)      answer with the prompt, (B, C, h, w)
uncond       eps(z)         answer with the negative prompt
scale        1 + w          1 is the prompt alone

share        phi            how much of the overshoot is taken back

Guidance: Ho & Salimans 2022, https://arxiv.org/abs/2207.12598.
Rescaling: Lin et al. 2023, section 3.4, https://arxiv.org/abs/2305.08891.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["guided", "rescaled"]


def guided(cond: Tensor, uncond: Tensor, scale: Tensor) -> Tensor:
    """uncond + scale (cond - uncond), with one scale per sample, (B,).

    Example:
        >>> import torch
        >>> guided(torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), torch.tensor([1.0, 3.0])).flatten()
        tensor([1., 3.])
    """
    return uncond + scale.reshape(-1, 1, 1, 1) * (cond - uncond)


def rescaled(answer: Tensor, cond: Tensor, share: Tensor) -> Tensor:
    """Take back what guidance added to the spread of the answer, as a share of it per sample, (B,), 0 to 1.

    Where a run begins in noise alone, guidance makes bright pictures too bright and dark ones too dark.

    Example:
        >>> import torch
        >>> cond = torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2)
        >>> rescaled(3 * cond, cond, torch.tensor([0.5])).flatten()
        tensor([-2.,  2.])
    """
    spread = [x.flatten(1).std(1).reshape(-1, 1, 1, 1) for x in (cond, answer)]
    calm = answer * (spread[0] / spread[1].clamp_min(1e-12))
    return answer + share.reshape(-1, 1, 1, 1) * (calm - answer)
