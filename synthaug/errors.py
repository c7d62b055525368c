"""What can go wrong.

SynthaugError
    SettingError          (also ValueError)   a value cannot be used
    UnusableFileError     (also ValueError)   a file is there, but not what it should be
        WrongBaseModelError                   a LoRA made for another base model
    PhotoFolderError      (also ValueError)   a folder of photos cannot be used
    NumericsError         (also ArithmeticError) a network answered NaN or nothing at all
    OutputError           (also OSError)      something could not be written
    MissingExtraError     (also ImportError)  an optional dependency is not installed

A message says the rule, the value, the place and the way out, in this order, in one sentence or two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

__all__ = [
    "MissingExtraError",
    "NumericsError",
    "OutputError",
    "PhotoFolderError",
    "SettingError",
    "SynthaugError",
    "UnusableFileError",
    "WrongBaseModelError",
    "choose",
    "require",
]

T = TypeVar("T")


class SynthaugError(Exception):
    """Anything that the user can put right; the command line prints it without a traceback."""


class SettingError(SynthaugError, ValueError):
    """A value cannot be used."""


class UnusableFileError(SynthaugError, ValueError):
    """A file is there, but not what it should be."""


class WrongBaseModelError(UnusableFileError):
    """A LoRA was made for another base model."""


class PhotoFolderError(SynthaugError, ValueError):
    """A folder of photos cannot be used."""


class NumericsError(SynthaugError, ArithmeticError):
    """A network answered NaN or nothing at all."""


class OutputError(SynthaugError, OSError):
    """Something could not be written."""


class MissingExtraError(SynthaugError, ImportError):
    """An optional dependency is not installed."""


def choose(what: str, name: str, table: Mapping[str, T]) -> T:
    """Look up ``name``; the message lists the very table that was searched.

    Raises:
        SettingError: If the table has no such name.

    Example:
        >>> choose("fish", "eel", {"cod": 1, "tuna": 2})
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: unknown fish 'eel'; choose one of: cod, tuna
    """
    if name not in table:
        raise SettingError(f"unknown {what} {name!r}; choose one of: {', '.join(sorted(table))}")
    return table[name]


def require(rules: Mapping[str, tuple[bool, object]]) -> None:
    """Check values against rules, in order.

    Args:
        rules: Rule in words -> whether it holds, and the value it speaks of.

    Raises:
        SettingError: At the first rule that does not hold.

    Example:
        >>> require({"rank must be at least 1": (False, 0)})
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: rank must be at least 1, got 0
    """
    for rule, (holds, value) in rules.items():
        if not holds:
            raise SettingError(f"{rule}, got {value!r}")
