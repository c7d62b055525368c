"""How far an iterator has come, so that another one can go on from there."""

from __future__ import annotations

from typing import Any

from synthaug.datasets.passes import Passes, Share, Ticket
from synthaug.errors import SettingError

__all__ = ["Progress"]


class Progress:
    """Counts what this part of a data set has handed out in a pass.

    A state belongs to one part: in a loader with workers, each worker's copy saves and loads its own, as torchdata's
    ``StatefulDataLoader`` does, https://meta-pytorch.org/data/main/torchdata.stateful_dataloader.html.

    Example:
        >>> progress = Progress()
        >>> progress.begin(progress.ticket())
        (0, 0)
        >>> progress.handed_out(0, 1)
        >>> progress.state_dict()
        {'pass': 0, 'yielded': 1, 'part': 0, 'parts': 1}
    """

    def __init__(self) -> None:
        self.share = Share()
        self._passes = Passes()
        self._waiting: Ticket | None = None
        self._state: tuple[int, int] | None = None
        self._resumed: dict[str, Any] | None = None

    def ticket(self) -> Ticket:
        """See :meth:`Passes.ticket`."""
        self._waiting = self._passes.ticket()
        return self._waiting

    def begin(self, ticket: Ticket) -> tuple[int, int]:
        """Number of the pass, and how many of its items were handed out before the state that was loaded.

        Raises:
            SettingError: If the state is of another number of workers.
        """
        number = self._passes.number(ticket)
        yielded = self._already_yielded(number)
        self.handed_out(number, yielded)
        return number, yielded

    def handed_out(self, number: int, yielded: int) -> None:
        """So many items of this pass are out."""
        self._state, self._waiting = (number, yielded), None

    def end(self, number: int) -> None:
        """The pass is over."""
        self.handed_out(number + 1, 0)

    def state_dict(self) -> dict[str, Any]:
        """Plain data: pass, items handed out, part."""
        part, parts = self.share.part()
        state = self._state
        if state is None or self._waiting is not None:  # a pass that has handed out nothing yet has no number either
            number = self._passes.coming(self._waiting)
            state = number, self._already_yielded(number)
        return {"pass": state[0], "yielded": state[1], "part": part, "parts": parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass be the rest of the one that a state was taken in."""
        self._resumed = dict(state)
        self._passes.restart(state["pass"])
        self.handed_out(state["pass"], state["yielded"])

    def _already_yielded(self, number: int) -> int:
        resumed, here = self._resumed, self.share.part()
        if resumed is None or number != resumed["pass"] or not resumed["yielded"]:
            return 0
        if here != (resumed["part"], resumed["parts"]):
            raise SettingError(
                f"a stream must be resumed with the workers and processes it was saved with: the state is of part {resumed['part']} of "
                f"{resumed['parts']}, this is part {here[0]} of {here[1]}; use the same num_workers, or start the next pass"
            )
        return int(resumed["yielded"])
