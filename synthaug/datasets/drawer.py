"""One caller at a time: a sampler that several iterators of a process share."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from synthaug.errors import SettingError
from synthaug.generation import Sampler
from synthaug.records import Request

__all__ = ["Draw", "Drawer", "refuse_forked_gpu"]

Draw = Callable[[Sequence[Request]], Tensor]
"""Requests in, uint8 (N, 3, H, W) out, in their order."""


class Drawer:
    """Draws requests with a sampler, which only one thread may use at a time; on a GPU, on a stream of its own.

    Copies made by pickle or fork have a lock of their own. A fork in the middle of a drawing leaves the copy
    with half a set of LoRAs on its networks, so it loads them anew.

    Args:
        sampler: Draws.

    Raises:
        SettingError: When called, in a worker that was forked from a process that uses its GPU.

    Example:
        >>> Drawer(Sampler("pocket")).sampler.base_name
        'pocket'
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._stream: torch.cuda.Stream | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"sampler": self.sampler}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __call__(self, requests: Sequence[Request]) -> Tensor:
        """Draw, uint8 (N, 3, H, W), once whoever draws now has finished."""
        refuse_forked_gpu(self.sampler.device)
        if os.getpid() != self._process:
            if self._lock.locked():
                self.sampler = copy.copy(self.sampler)  # leaves its networks behind
            self._begin()
        with self._lock, self._own_stream():
            return self.sampler(requests)

    def _own_stream(self) -> AbstractContextManager[Any]:
        """A CUDA stream beside that of the training loop, so that neither waits for the other."""
        if self.sampler.device.type != "cuda":
            return nullcontext()
        if self._stream is None:  # one for all passes: memory freed on a stream is used again on that stream alone
            self._stream = torch.cuda.Stream(self.sampler.device)  # type: ignore[no-untyped-call]  # torch has no type for it
        return torch.cuda.stream(self._stream)


def refuse_forked_gpu(device: torch.device) -> None:
    """Say what to do instead, before CUDA says that it cannot.

    Raises:
        SettingError: In a worker that was forked from a process that uses its GPU.
    """
    if device.type == "cuda" and get_worker_info() is not None and torch.cuda._is_in_bad_fork():
        raise SettingError(
            "a GPU that is in use cannot be used again by a forked DataLoader worker; use num_workers=0 (one process draws fastest), "
            "or multiprocessing_context='spawn'"
        )
