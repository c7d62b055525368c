"""Who draws what: the part of a process, and the number of a pass that all workers of a loader agree on.

A DataLoader makes new copies of a data set for every pass when it has workers, so a counter inside the
data set would say 0 for ever. The numbers therefore stand in shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.utils.data import get_worker_info

from synthaug.seeds import seed_for

__all__ = ["Passes", "Share", "Ticket", "next_number", "shared"]

_SLOTS = 1024
_NUMBER_BITS = 24


class Share:
    """The share of this process: part k of n, over all ranks and all workers of each.

    Spawned workers do not know the rank of the process that made them, so it travels with the pickle.

    Example:
        >>> Share().part()
        (0, 1)
    """

    def __init__(self) -> None:
        self._carried = (0, 1)

    def __getstate__(self) -> dict[str, Any]:
        return {"_carried": self.rank_and_world()}

    def rank_and_world(self) -> tuple[int, int]:
        """Rank and number of processes, ``(0, 1)`` without ``torch.distributed``."""
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return self._carried

    def part(self) -> tuple[int, int]:
        """Number of this process's part, and of how many; rank r has the parts r, r + world, and so on."""
        rank, world = self.rank_and_world()
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        return rank + world * worker, world * workers


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """Says which pass of a loader an iterator belongs to."""

    slot: int
    """The entry that this worker writes, and no other one does."""

    mark: int
    """The same for all workers of a pass; 0 in the main process, where every iterator is a pass of its own."""


class Passes:
    """Numbers the passes over a data set: 0, 1, 2 …, the same number in every worker of one pass.

    It may be forked, pickled and sent to spawned workers; all of a loader's copies share one table.

    Example:
        >>> passes = Passes()
        >>> passes.number(passes.ticket()), passes.number(passes.ticket())
        (0, 1)
    """

    def __init__(self) -> None:
        self._table = shared(torch.zeros(_SLOTS + 1, dtype=torch.int64))
        self._begun = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"_table": self._table, "_begun": self._begun}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        shared(self._table)  # a copy made by pickle or deepcopy would otherwise be private

    def ticket(self) -> Ticket:
        """Ticket of the pass that begins now."""
        self._begun += 1
        return self._ticket(self._begun)

    def coming(self, ticket: Ticket | None = None) -> int:
        """Number that a ticket would get now, without taking it; None stands for the next ticket."""
        entries = [_unpacked(entry) for entry in self._table.tolist()]
        return next_number(entries, self._ticket(self._begun + 1) if ticket is None else ticket) - 1

    def number(self, ticket: Ticket) -> int:
        """Number of the ticket's pass; taken when the first item is wanted, so that an unused iterator takes none."""
        number = self.coming(ticket)
        # one 64-bit word per entry, written by one worker: readers see the old or the new one, so no lock is needed
        self._table[ticket.slot] = ticket.mark << _NUMBER_BITS | (number + 1)
        return number

    def _ticket(self, begun: int) -> Ticket:
        info = get_worker_info()
        if info is None:
            return Ticket(slot=0, mark=0)
        mark = seed_for(info.seed - info.id, "pass", begun) >> _NUMBER_BITS | 1  # a loader's workers share seed - id
        return Ticket(slot=info.id % _SLOTS, mark=mark)

    def restart(self, number: int) -> None:
        """Let the next pass be this one."""
        self._table.zero_()
        self._table[_SLOTS] = number


def next_number(entries: list[tuple[int, int]], ticket: Ticket) -> int:
    """Number of a pass, from 1, given (mark, number) of every worker's last pass.

    Another worker may have numbered the pass already: then an entry has the ticket's mark and a number
    above this worker's own. (Marks come back when the user seeds torch alike before each pass.)

    Example:
        >>> next_number([(5, 1), (5, 1), (0, 0)], Ticket(slot=0, mark=7))
        2
        >>> next_number([(7, 2), (5, 1), (0, 0)], Ticket(slot=1, mark=7))
        2
        >>> next_number([(7, 2), (7, 2), (0, 0)], Ticket(slot=1, mark=7))
        3
    """
    own_mark, own_number = entries[ticket.slot]
    after = own_number if own_mark == ticket.mark else 0
    known = [number for mark, number in entries if mark == ticket.mark != 0 and number > after]
    return max(known) if known else max(number for _, number in entries) + 1


def shared(table: Tensor) -> Tensor:
    """The same tensor, in memory that forked and spawned workers share."""
    moved: Tensor = table.share_memory_()  # type: ignore[no-untyped-call]  # torch has no type for it
    return moved


def _unpacked(entry: int) -> tuple[int, int]:
    return entry >> _NUMBER_BITS, entry & ((1 << _NUMBER_BITS) - 1)
