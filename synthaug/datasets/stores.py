"""Where drawn images are kept, and how what is not there is drawn in full batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

from torch import Tensor
from torch.utils.data import get_worker_info

from synthaug.datasets.drawer import Draw
from synthaug.errors import SettingError
from synthaug.records import Request

__all__ = ["MemoryStore", "NoStore", "Store", "looked_ahead"]

_BATCHES_AHEAD = 8


class Store(Protocol):
    """Images by the request they were drawn for."""

    looks_ahead: bool
    """Whether it is worth while to look for what is missing further on."""

    def key(self, request: Request) -> str:
        """Name of a request's image."""

    def has(self, key: str) -> bool:
        """Whether it is likely there."""

    def read(self, key: str) -> Tensor | None:
        """The image, uint8 (3, H, W), which the caller may change; None if it is not there."""

    def write(self, key: str, image: Tensor) -> None:
        """Keep an image."""

    def discard(self, key: str) -> None:
        """Keep it no longer."""


class NoStore:
    """Keeps nothing."""

    looks_ahead = False

    def key(self, request: Request) -> str:
        """See :class:`Store`."""
        return str(request.index)

    def has(self, key: str) -> bool:  # noqa: ARG002  # the same question to every store
        """See :class:`Store`."""
        return False

    def read(self, key: str) -> Tensor | None:  # noqa: ARG002
        """See :class:`Store`."""
        return None

    def write(self, key: str, image: Tensor) -> None:
        """See :class:`Store`."""

    def discard(self, key: str) -> None:
        """See :class:`Store`."""


class MemoryStore:
    """Keeps images in the memory of this process.

    Raises:
        SettingError: When used in a worker of a DataLoader, which may end with the pass.

    Example:
        >>> import torch
        >>> store = MemoryStore()
        >>> store.write("a", torch.zeros(3, 8, 8, dtype=torch.uint8))
        >>> store.has("a"), store.read("b") is None
        (True, True)
    """

    looks_ahead = True

    def __init__(self) -> None:
        self._images: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, object]:
        return {"_images": {}}  # a copy draws its own again

    def __len__(self) -> int:
        return len(self._images)

    def key(self, request: Request) -> str:
        """See :class:`Store`."""
        if get_worker_info() is not None:
            raise SettingError(
                "a pool in memory belongs to one process, and a worker's ends with its pass; give cache=FOLDER, or use num_workers=0"
            )
        return request.digest

    def has(self, key: str) -> bool:
        """See :class:`Store`."""
        return key in self._images

    def read(self, key: str) -> Tensor | None:
        """See :class:`Store`."""
        found = self._images.get(key)
        return None if found is None else found.clone()

    def write(self, key: str, image: Tensor) -> None:
        """See :class:`Store`."""
        self._images[key] = image.clone()

    def discard(self, key: str) -> None:
        """See :class:`Store`."""
        self._images.pop(key, None)


def looked_ahead(wanted: Iterable[Request], draw: Draw, store: Store, *, draw_batch: int) -> Iterator[tuple[Tensor, Request]]:
    """Images of requests in their order, from the store or drawn.

    When one is missing, it is drawn together with the next ones that are missing, so that the network gets full batches
    although most images may be there.

    Args:
        wanted: What to hand out.
        draw: Draws what is missing.
        store: Is asked first, and keeps what is drawn.
        draw_batch: Requests per call of ``draw``.

    Yields:
        Pairs of image, uint8 (3, H, W), and its request.
    """
    coming = iter(wanted)
    window = draw_batch * (_BATCHES_AHEAD if store.looks_ahead else 1)
    ahead: deque[tuple[str, Request]] = deque()
    missing: deque[tuple[str, Request]] = deque()
    drawn: dict[str, Tensor] = {}
    while True:
        for request in islice(coming, window - len(ahead)):
            ahead.append((store.key(request), request))
            if not store.has(ahead[-1][0]):
                missing.append(ahead[-1])
        if not ahead:
            return
        key, request = ahead.popleft()
        image = drawn.pop(key, None)
        if image is None:
            if missing and missing[0][0] == key:
                missing.popleft()
            image = store.read(key)  # another process may have drawn it by now
        if image is None:
            batch = [(key, request), *(missing.popleft() for _ in range(min(draw_batch - 1, len(missing))))]
            for (name, _), picture in zip(batch, draw([one for _, one in batch]), strict=True):
                drawn[name] = picture.clone()  # a view would keep the whole batch in memory
                store.write(name, drawn[name])
            image = drawn.pop(key)
        yield image, request
