"""A picture as bytes that are quick to read and tell when they are damaged: a .npy file with its CRC-32 behind it.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0; ``numpy.load`` reads it, too.
"""

from __future__ import annotations

import io
import zlib
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["decoded", "encoded"]

_CHECK = 4
"""Bytes of the CRC."""


def encoded(image: Tensor) -> bytes:
    """Bytes of a picture.

    Args:
        image: uint8 (3, H, W).

    Example:
        >>> np.load(io.BytesIO(encoded(torch.zeros(3, 8, 16, dtype=torch.uint8)))).shape
        (3, 8, 16)
    """
    body = _header(tuple(image.shape)) + image.contiguous().numpy().tobytes()
    return body + zlib.crc32(body).to_bytes(_CHECK, "little")


def decoded(data: bytearray) -> Tensor | None:
    """The picture, uint8 (3, H, W), which shares memory with ``data``; None if a bit of it is not as it was written.

    Example:
        >>> image = torch.arange(24, dtype=torch.uint8).view(3, 2, 4)
        >>> data = bytearray(encoded(image))
        >>> torch.equal(decoded(data), image), decoded(data[:-1]) is None
        (True, True)
    """
    if len(data) < 10 + _CHECK:
        return None
    view = memoryview(data)
    if zlib.crc32(view[:-_CHECK]) != int.from_bytes(view[-_CHECK:], "little"):
        return None
    start = 10 + int.from_bytes(view[8:10], "little")
    shape = _shape(bytes(view[:start]))
    count = len(data) - start - _CHECK
    return torch.frombuffer(data, dtype=torch.uint8, offset=start, count=count).view(shape)


@lru_cache
def _header(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return out.getvalue()


@lru_cache
def _shape(header: bytes) -> tuple[int, ...]:
    opened = io.BytesIO(header)
    np.lib.format.read_magic(opened)
    shape: tuple[int, ...] = np.lib.format.read_array_header_1_0(opened)[0]
    return shape
