"""The next items are made in a thread while the last ones are used."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

import torch

__all__ = ["prefetched"]

T = TypeVar("T")


def prefetched(source: Iterator[T], depth: int) -> Generator[T]:
    """Items of an iterator, up to ``depth`` of them made ahead in a thread.

    The thread begins with the first item that is asked for. It ends with the source, when this iterator is closed or
    forgotten, and when Python exits; what it is making then is finished first. What the source raises is raised here,
    after the items before it.

    Args:
        source: Used by the thread alone.
        depth: Items made ahead; 0 makes each when it is asked for, without a thread.

    Example:
        >>> list(prefetched(iter("abc"), depth=2))
        ['a', 'b', 'c']
    """
    if depth == 0:
        yield from source
        return
    filler = _Filler(source, depth)
    filler.thread.start()
    try:
        while (made := filler.made.get()) is not None:
            if isinstance(made, _Failure):
                raise made.error
            filler.room.release()
            yield made.item
    finally:
        filler.stop()


class _Item(Generic[T]):
    def __init__(self, item: T) -> None:
        self.item = item


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Filler(Generic[T]):
    """The thread; nothing that it holds leads back to the iterator, so that forgetting that one is noticed."""

    def __init__(self, source: Iterator[T], depth: int) -> None:
        self.made: SimpleQueue[_Item[T] | _Failure | None] = SimpleQueue()
        self.room = threading.Semaphore(depth)
        self.thread = threading.Thread(target=self._fill, args=(source, _current_gpu()), name="synthaug-prefetch", daemon=True)
        self._stopped = False
        self._process = os.getpid()
        _RUNNING.add(self)

    def _fill(self, source: Iterator[T], gpu: int | None) -> None:
        try:
            if gpu is not None:
                torch.cuda.set_device(gpu)  # each thread has its own current GPU, and begins with the first one
            while not self._stopped:
                self.room.acquire()
                if self._stopped:
                    return
                try:
                    item = next(source)
                except StopIteration:
                    return
                self.made.put(_Item(item))
        except BaseException as error:  # noqa: BLE001  # raised again where the items are used
            self.made.put(_Failure(error))
        finally:
            self.made.put(None)
            _RUNNING.discard(self)

    def stop(self) -> None:
        """Let the thread end after what it is making."""
        if os.getpid() == self._process:  # a forked copy has no thread, and its locks may be held by nobody
            self._stopped = True
            self.room.release()


_RUNNING: set[_Filler] = set()  # type: ignore[type-arg]  # of any kind of items


def _stop_all() -> None:
    """A thread inside PyTorch while Python takes itself apart would crash the process."""
    for filler in list(_RUNNING):
        filler.stop()
        if filler.thread.is_alive():
            filler.thread.join()


atexit.register(_stop_all)


def _current_gpu() -> int | None:
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # False in a forked copy, too
    return torch.cuda.current_device() if in_use else None
