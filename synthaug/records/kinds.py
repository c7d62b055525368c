"""Whether the fields of a record hold what their annotations say, in a sentence of the user's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from synthaug.errors import SettingError, choose

__all__ = ["check_kinds"]


def check_kinds(record: Any, *, of: str = "", place: str = "") -> None:
    """Check every field of a dataclass against its annotation; a whole number counts as a number, true and false do not.

    Args:
        record: An instance of a dataclass.
        of: What a field belongs to, for the sentence, as in `` of a hires pass``.
        place: Where it was met, for the end of the sentence.

    Raises:
        SettingError: At the first field that holds something else, or a word that is none of those there are.

    Example:
        >>> from synthaug.records import LoraUse
        >>> LoraUse(path="iriko.safetensors", weight="strong")
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: weight of a LoRA must be a number, got 'strong'
    """
    for name, hint in _hints(record.__class__).items():
        value = getattr(record, name)
        if _fits(value, hint):
            continue
        if get_origin(hint) is Literal and isinstance(value, str):
            choose(f"{name}{of}", value, dict.fromkeys(get_args(hint)))
        raise SettingError(f"{name}{of} must be {_words(hint)}, got {value!r}{place}")


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in args)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(each, args[0]) for each in value)  # how many there are is for the rules
    if origin is dict:
        return isinstance(value, Mapping) and all(_fits(key, args[0]) and _fits(each, args[1]) for key, each in value.items())
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any, *, several: bool = False) -> str:
    """What a value of this kind is called."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(each, several=several) for each in args)
    if origin is Literal:
        return f"one of: {', '.join(args)}"
    if origin is tuple:
        how_many = "" if args[-1] is Ellipsis else f"{_NUMERALS.get(len(args), len(args))} "
        return f"{'tuples' if several else 'a tuple'} of {how_many}{_words(args[0], several=True)}"
    if origin is dict:
        return f"a mapping of names to {_words(args[1], several=True)}"
    if isinstance(hint, type) and is_dataclass(hint):
        return f"{hint.__name__} records" if several else f"a {hint.__name__} record"
    return _PLAIN.get(hint, (repr(hint), repr(hint)))[several]


_NUMERALS = {2: "two"}
_PLAIN: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "truths"), int: ("a whole number", "whole numbers"), float: ("a number", "numbers"),
    str: ("text", "texts"), NoneType: ("left out", "nothing"), Any: ("anything", "values"),
}  # fmt: skip
"""Kind -> what one and what several of it are called."""
