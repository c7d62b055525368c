"""Few long steps that lead where many short ones do.

Code name       Paper          Meaning
answer          -              what the network says of z, (B, C, h, w)
x               x_0            the picture that an answer means, (B, C, h, w)
here, there     t, s           (alpha, sigma) of the level that a step begins at, and of the one it ends at, each (B,)

A step of DDIM goes along the straight path that one answer points: Song et al. 2020, equation 12, https://arxiv.org/abs/2010.02502. A
student that has to say, once, the x that leads to the end of several short steps: Salimans & Ho 2022, algorithm 2,
https://arxiv.org/abs/2202.00512; with the teacher's guidance in it: Meng et al. 2023, https://arxiv.org/abs/2210.03142; as a LoRA: Luo et
al. 2023, https://arxiv.org/abs/2311.05556; each phase of the run by itself: Wang et al. 2024, https://arxiv.org/abs/2405.18407.
"""

from __future__ import annotations

from torch import Tensor

from synthaug.diffusion.objective import Target

__all__ = ["Scales", "clean_of", "clean_towards", "ddim_step"]

Scales = tuple[Tensor, Tensor]
"""Signal and noise scale, alpha and sigma, each (B,)."""


def clean_of(kind: Target, answer: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The picture x that an answer means; an answer in epsilon means none where alpha is 0.

    Example:
        >>> import torch
        >>> alpha, sigma, z = torch.zeros(1), torch.ones(1), torch.full((1, 1, 1, 1), 3.0)
        >>> clean_of("v_prediction", torch.full((1, 1, 1, 1), -2.0), z, alpha, sigma).item()  # noise alone: z says nothing
        2.0
    """
    if kind == "sample":
        return answer
    if kind == "epsilon":
        return (z - _wide(sigma) * answer) / _wide(alpha)
    return _wide(alpha) * z - _wide(sigma) * answer


def ddim_step(kind: Target, answer: Tensor, z: Tensor, here: Scales, there: Scales) -> Tensor:
    """z at another noise level, along the path that the answer points.

    Args:
        kind: What the answer means.
        answer: Of the network at z.
        z: Noised latents, (B, C, h, w).
        here: alpha and sigma of z, each (B,).
        there: alpha and sigma to go to, each (B,).
    """
    x = clean_of(kind, answer, z, *here)
    if kind == "epsilon":
        eps = answer
    elif kind == "v_prediction":
        eps = _wide(here[0]) * answer + _wide(here[1]) * z
    else:
        eps = (z - _wide(here[0]) * x) / _wide(here[1])
    return _wide(there[0]) * x + _wide(there[1]) * eps


def clean_towards(z: Tensor, aim: Tensor, here: Scales, there: Scales) -> Tensor:
    """The x with which one step of DDIM leads from z to ``aim``, (B, C, h, w).

    Example:
        >>> import torch
        >>> z, aim = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
        >>> here, there = (torch.tensor([0.0]), torch.tensor([1.0])), (torch.tensor([0.6]), torch.tensor([0.8]))
        >>> x = clean_towards(z, aim, here, there)
        >>> torch.allclose(ddim_step("v_prediction", -x, z, here, there), aim, atol=1e-5)  # v of noise alone is -x
        True
    """
    ratio = there[1] / here[1]
    return (aim - _wide(ratio) * z) / _wide(there[0] - ratio * here[0])


def _wide(scale: Tensor) -> Tensor:
    return scale.reshape(-1, 1, 1, 1)
