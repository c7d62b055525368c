"""Starting noise of one image: the same on every machine."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["starting_noise"]


def starting_noise(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Noise from the CPU's generator, fp32 of the shape."""
    return torch.randn(shape, generator=generator)
