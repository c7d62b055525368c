"""When memory runs out in a step."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

import torch

__all__ = ["free_caches", "give_back", "is_out_of_memory"]

_MARKS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
"""What torch's allocators say on CUDA, Windows, Linux and Apple's cards, and cuBLAS, in lower case."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch failed for want of memory, on whatever device.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 12 bytes."))
        True
        >>> is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
        False
    """
    return isinstance(error, torch.OutOfMemoryError) or any(mark in str(error).lower() for mark in _MARKS)


def free_caches() -> None:
    """Give back what torch and the C library keep for later."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back()


def give_back() -> None:
    """Give back what the C library keeps for later, gaps between used pieces included; a fraction of a second's work for gigabytes."""
    with suppress(OSError, AttributeError):  # other C libraries give memory back by themselves, or never
        ctypes.CDLL("libc.so.6").malloc_trim(0)
