"""What stands beside an image: its label, or a dict that says what it is."""

from __future__ import annotations

from typing import Any, Literal

from synthaug.errors import choose
from synthaug.records import Request

__all__ = ["Target", "check_target", "target_of"]

Target = Literal["label", "dict"]


def check_target(target: str) -> None:
    """Refuse a kind of target that there is not.

    Raises:
        SettingError: If it is unknown.
    """
    choose("target", target, _KINDS)


def target_of(request: Request, kind: Target) -> Any:
    """Target of an image.

    Args:
        request: What was drawn.
        kind: ``label``, or ``dict`` for label, index, seed and prompt.

    Example:
        >>> target_of(Request(prompt="iriko", seed=7, label="sound"), "dict")
        {'label': 'sound', 'index': 0, 'seed': 7, 'prompt': 'iriko'}
    """
    return _KINDS[kind](request)


def _label(request: Request) -> int | str:
    return request.label


def _described(request: Request) -> dict[str, int | str]:
    return {"label": request.label, "index": request.index, "seed": request.seed, "prompt": request.prompt}


_KINDS = {"label": _label, "dict": _described}
