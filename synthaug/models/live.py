"""Count the memory that tensors take, on real ones or on ones that hold no numbers.

Code name    Meaning
live         bytes of the storages that somebody still holds
peak         the largest that live has been

Every storage is counted once, from the operation that made it until the last tensor on it is gone, rounded up to the 512 bytes that
CUDA's allocator hands out. On fake tensors the networks run in seconds and need no memory, which is how a card that is not there can
be planned for: PyTorch's FakeTensorMode, https://docs.pytorch.org/docs/main/torch.compiler_fake_tensor.html.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

__all__ = ["BLOCK", "LiveStorages"]

BLOCK = 512
"""Bytes that CUDA's allocator rounds up to."""


class LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it without types
    """Watches the storages that operations make while it is entered, and what is handed to :meth:`hold`.

    Example:
        >>> import torch
        >>> with LiveStorages() as watch:
        ...     a = torch.zeros(1024)
        ...     b = (a + 1).sum()
        >>> watch.live, watch.peak  # a and b; while b was made, what it was summed from
        (4608, 8704)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self.live = self.peak = 0
        self._known: dict[int, int] = {}

    def hold(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that were there before, such as weights; returns how many bytes they added."""
        before = self.live
        for tensor in tensors:
            self._count(tensor)
        return self.live - before

    def restart(self) -> None:
        """Forget the peak: it is what is live now."""
        self.peak = self.live

    @override
    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._known[key] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.live -= self._known.pop(key, 0)
