"""Between two noises, on the sphere that noise lies on.

Code name    Paper          Meaning
share        t              how far the way is gone, 0 to 1
angle        Omega          between the two

Shoemake 1985, Animating rotation with quaternion curves, https://doi.org/10.1145/325334.325242.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["slerp"]

NEARLY_THE_SAME = 0.9995
"""Mean cosine from which the way is taken straight."""


def slerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """sin((1 - t) Omega) / sin(Omega) start + sin(t Omega) / sin(Omega) end, column by column of (C, h, w), in fp32.

    The angle is that of columns, as in A1111, and not of the whole, so that its variation seeds give its pictures.

    Example:
        >>> one, other = torch.tensor([1.0, 0.0]).reshape(1, 2, 1), torch.tensor([0.0, 1.0]).reshape(1, 2, 1)
        >>> slerp(one, other, 0.5).flatten()
        tensor([0.7071, 0.7071])
    """
    a, b = start.double(), end.double()  # so that every machine rounds to the same
    cosine = (a * b).sum(1, keepdim=True) / (a.norm(dim=1, keepdim=True) * b.norm(dim=1, keepdim=True)).clamp_min(1e-12)
    straight = torch.lerp(a, b, share)
    if cosine.mean() > NEARLY_THE_SAME:
        return straight.float()
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    turned = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / sine.clamp_min(1e-6)
    return torch.where(sine > 1e-6, turned, straight).float()  # columns of one place have no angle
