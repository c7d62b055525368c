"""How far a run of drawing is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Tell", "telling"]

Tell = Callable[[int, int], None]
"""Is told how many images are drawn, of how many."""


@contextmanager
def telling() -> Iterator[Tell]:
    """Something to call after each batch.

    Example:
        >>> with telling() as tell:
        ...     tell(16, 40)
        drawn 16 of 40
    """
    if not sys.stdout.isatty():
        yield lambda done, of: print(f"drawn {done} of {of}", flush=True)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("drawn"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("drawn", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
