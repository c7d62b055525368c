"""Pictures as tensors, for tests."""

from __future__ import annotations

import numpy as np
import torch
from conftest import make_photo
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

__all__ = ["as_tensor", "many_photos", "scenes", "strangers"]


def as_tensor(picture: Image.Image) -> Tensor:
    """uint8 (3, H, W)."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def many_photos(count: int, *, first: int = 0, size: tuple[int, int] = (40, 56)) -> Tensor:
    """Photos of one kind, uint8 (N, 3, H, W)."""
    return torch.stack([as_tensor(make_photo(size, seed=first + i)) for i in range(count)])


def strangers(count: int, *, seed: int = 0) -> Tensor:
    """Nothing like the photos: squares of any colour, uint8 (N, 3, 40, 56)."""
    squares = torch.randint(0, 256, (count, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return squares.repeat_interleave(8, 2).repeat_interleave(8, 3)


def scenes(count: int = 8, *, side: int = 80, seed: int = 0) -> Tensor:
    """Smooth random pictures, no two alike."""
    coarse = torch.rand(count, 3, 10, 10, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)
