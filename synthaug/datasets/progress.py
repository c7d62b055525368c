"""How far an iterator has come, so that another one can go on from there."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from synthaug.datasets.passes import Passes, Share, Ticket
from synthaug.errors import SettingError

__all__ = ["Progress", "mark_of"]

_NUMBERS = ("pass", "yielded", "part", "parts")


def mark_of(settings: Any) -> str:
    """Eight hex digits that tell what is handed out, plain data, from anything else.

    Example:
        >>> mark_of({"steps": 1}) == mark_of({"steps": 2})
        False
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


class Progress:
    """Counts what this part of a data set has handed out in a pass.

    A state belongs to one part: in a loader with workers, each worker's copy saves and loads its own, as torchdata's
    ``StatefulDataLoader`` does, https://meta-pytorch.org/data/main/torchdata.stateful_dataloader.html.

    Example:
        >>> progress = Progress()
        >>> progress.begin(progress.ticket())
        (0, 0)
        >>> progress.handed_out(0, 1)
        >>> progress.state_dict(plan="c0ffee00")
        {'pass': 0, 'yielded': 1, 'part': 0, 'parts': 1, 'plan': 'c0ffee00'}
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

    def state_dict(self, *, plan: str) -> dict[str, Any]:
        """Plain data: pass, items handed out, part, and the mark of what is handed out, as :func:`mark_of` makes it."""
        part, parts = self.share.part()
        state = self._state
        if state is None or self._waiting is not None:  # a pass that has handed out nothing yet has no number either
            number = self._passes.coming(self._waiting)
            state = number, self._already_yielded(number)
        return {"pass": state[0], "yielded": state[1], "part": part, "parts": parts, "plan": plan}

    def load_state_dict(self, state: dict[str, Any], *, plan: str) -> None:
        """Let the next pass be the rest of the one that a state was taken in.

        Raises:
            SettingError: If it is no state, or one of another plan.

        Example:
            >>> Progress().load_state_dict({"x": 1}, plan="c0ffee00")
            Traceback (most recent call last):
            ...
            synthaug.errors.SettingError: a state must be what state_dict gave, with pass, yielded, part, parts and plan, got {'x': 1}; ...
        """
        if not (isinstance(state, dict) and "plan" in state and all(_is_count(state.get(name)) for name in _NUMBERS)):
            raise SettingError(
                f"a state must be what state_dict gave, with pass, yielded, part, parts and plan, got {state!r:.200}; hand over that of "
                "this data set alone"
            )
        if state["plan"] != plan:
            raise SettingError(
                f"a stream must be resumed with the plan and settings it was saved with: the state is of plan {state['plan']}, this is "
                f"plan {plan}; give the data set the arguments it had, or leave the state out to begin anew"
            )
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


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0
