"""Crops, sizes and scales of pictures that are already tensors."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["digest", "framed", "framed_mask", "to_float", "to_uint8"]


def framed(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop the middle to the wanted shape and resize, uint8 (3, H, W) to uint8 (3, *size).

    Example:
        >>> framed(torch.zeros(3, 60, 100, dtype=torch.uint8), (32, 16)).shape
        torch.Size([3, 32, 16])
    """
    picture = Image.fromarray(_middle(image, size).permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def framed_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop and resize a mask as :func:`framed` does its picture, uint8 (H, W) to uint8 (*size), still 0 and 1.

    Example:
        >>> framed_mask(torch.ones(60, 100, dtype=torch.uint8), (32, 16)).unique().tolist()
        [1]
    """
    picture = Image.fromarray(_middle(mask, size).numpy()).resize(size[::-1], Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(picture))


def _middle(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest part (..., h, w) in the middle that has the shape of ``size``."""
    height, width = size
    h, w = image.shape[-2:]
    scale = max(height / h, width / w)
    crop_h, crop_w = max(1, min(h, round(height / scale))), max(1, min(w, round(width / scale)))
    top, left = (h - crop_h) // 2, (w - crop_w) // 2
    return image[..., top : top + crop_h, left : left + crop_w].contiguous()


def to_float(images: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) to float32 in [-1, 1].

    Example:
        >>> to_float(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float in [-1, 1] to uint8, rounded; values outside are cut.

    Example:
        >>> to_uint8(torch.tensor([-1.5, 0.0, 1.0]))
        tensor([  0, 128, 255], dtype=torch.uint8)
    """
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def digest(image: Tensor) -> str:
    """SHA-256 of a picture's pixels and shape, uint8 (3, H, W)."""
    head = "x".join(map(str, image.shape)).encode()
    return hashlib.sha256(head + image.contiguous().numpy().tobytes()).hexdigest()
