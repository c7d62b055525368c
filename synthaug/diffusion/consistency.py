"""A network that goes from any noise level straight to the picture, learned from one that goes step by step.

Code name       Paper          Meaning
answer          -              what the network says of z, (B, C, h, w)
x               x_0            the picture that an answer means, (B, C, h, w)
alpha, sigma    a_t, s_t       signal and noise scale, (B,), alpha**2 + sigma**2 = 1
c_skip, c_out   c_skip, c_out  how much of z, and of x, the consistency function hands on, (B,)

Consistency models: Song et al. 2023, https://arxiv.org/abs/2303.01469. In the latents of Stable Diffusion, with guidance in the teacher's
step: Luo et al. 2023, https://arxiv.org/abs/2310.04378; as a LoRA: Luo et al. 2023, https://arxiv.org/abs/2311.05556.
"""

from __future__ import annotations

from torch import Tensor

from synthaug.diffusion.objective import Target

__all__ = ["boundary_scales", "clean_of", "ddim_step"]


def boundary_scales(t: Tensor, *, sigma_data: float = 0.5, scaling: float = 10.0) -> tuple[Tensor, Tensor]:
    """c_skip and c_out at time steps t, each (B,): at step 0 the function is the identity, soon after it is x alone.

    Example:
        >>> import torch
        >>> [scale.round(decimals=4).tolist() for scale in boundary_scales(torch.tensor([0.0, 1.0, 999.0]))]
        [[1.0, 0.0025, 0.0], [0.0, 0.9988, 1.0]]
    """
    scaled = scaling * t
    c_skip = sigma_data**2 / (scaled**2 + sigma_data**2)
    return c_skip, scaled / (scaled**2 + sigma_data**2).sqrt()


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


def ddim_step(kind: Target, answer: Tensor, z: Tensor, here: tuple[Tensor, Tensor], there: tuple[Tensor, Tensor]) -> Tensor:
    """z at another noise level, along the path that the answer points: Song et al. 2020, equation 12, https://arxiv.org/abs/2010.02502.

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


def _wide(scale: Tensor) -> Tensor:
    return scale.reshape(-1, 1, 1, 1)
