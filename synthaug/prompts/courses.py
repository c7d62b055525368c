"""What a prompt says at each step: ``AND``, ``[from:to:when]`` and ``[a|b]``.

The language is that of the AUTOMATIC1111 WebUI
(https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features, prompt editing, alternating words and composable diffusion; the last
after Liu et al. 2022, https://arxiv.org/abs/2206.01714).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from synthaug.errors import SettingError

__all__ = ["Course", "Part", "course_of"]

DEEPEST = 100
"""Brackets within brackets."""

_AND = re.compile(r"\bAND\b")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")
_PLAIN = re.compile(r"(?:[^\\\[\]():|]|\\.)+")
_WHEN = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\]")


@dataclass(frozen=True)
class Part:
    """One of the texts that are followed at a step."""

    text: str
    """With brackets, weights and BREAK still in it."""

    weight: float = 1.0
    """Of its answer: guidance goes by weight times (what this part says - what the negative prompt says), summed over parts."""


@dataclass(frozen=True)
class Course:
    """What a prompt says at each step."""

    changes: tuple[tuple[int, tuple[Part, ...]], ...]
    """First step -> parts from there on, in order; it begins with step 0, and neighbours differ."""

    def at(self, step: int) -> tuple[Part, ...]:
        """The parts of a step, counted from 0; the very same tuple as long as nothing changes.

        Example:
            >>> [part.text for step in range(5) for part in course_of("a [red|blue] fish", 5).at(step)]
            ['a red fish', 'a red fish', 'a blue fish', 'a red fish', 'a blue fish']
        """
        found = self.changes[0][1]
        for first, parts in self.changes:
            if first > step:
                break
            found = parts
        return found

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that is ever said, once each, in order."""
        return tuple(dict.fromkeys(part.text for _, parts in self.changes for part in parts))


@dataclass(frozen=True)
class _Scheduled:
    """``[before:after:when]``."""

    before: _Pieces
    after: _Pieces
    when: str


@dataclass(frozen=True)
class _Alternating:
    """``[a|b|c]``."""

    choices: tuple[_Pieces, ...]


_Pieces: TypeAlias = tuple["str | _Scheduled | _Alternating", ...]


def course_of(prompt: str, steps: int, *, hires: bool = False, first_steps: int | None = None, composes: bool = True) -> Course:
    """Find out what a prompt says at each step.

    ``[a:b:8]`` is ``a`` up to step 8 and ``b`` from then on, ``[b:8]`` nothing and then ``b``, ``[a::8]`` ``a`` and then nothing; a
    number with a point, as in ``[a:b:0.4]``, is a share of the steps. ``[a|b]`` alternates. Both may be nested, and parts may be empty.
    ``AND`` divides a prompt into parts that are followed together, each with a weight if it ends in ``:0.7``; so does a prompt of one part.

    Steps are counted as the WebUI counts them, so that the same prompt draws the same image: its counter is 0 at the first step and
    1 at the second, and both are "step 1". So ``[a:b:8]`` says ``a`` nine times, and ``[a|b]`` says ``a``, ``a``, ``b``, ``a``, ``b``.
    A schedule that cannot be read, as one with a bracket that is never closed or a ``|`` out of place, is text.

    Args:
        prompt: The text, without tags.
        steps: Of the whole run, whatever share of it is done: denoising steps, and for samplers that ask the network twice a step, such
            as Heun, twice as many.
        hires: Whether this is the second pass: shares from 1.0 to 2.0 are then of its steps, and whole numbers go on from ``first_steps``.
        first_steps: Of the first pass; None is as many as ``steps``.
        composes: Whether ``AND`` and a weight at the end mean something; in a negative prompt they are text.

    Returns:
        The course; of a prompt without any of this, one part of weight 1 in all steps.

    Raises:
        SettingError: If brackets are nested more than 100 deep.

    Example:
        >>> course = course_of("a [red:blue:0.5] fish AND on paper :0.7", 20)
        >>> course.at(10)
        (Part(text='a red fish', weight=1.0), Part(text=' on paper', weight=0.7))
        >>> course.at(11)[0].text, course.texts
        ('a blue fish', ('a red fish', ' on paper', 'a blue fish'))
    """
    begin = (steps if first_steps is None else first_steps, 1.0) if hires else (0, 0.0)
    parts = [(_Reader(text).prompt(), weight) for text, weight in (_parts(prompt) if composes else [(prompt, 1.0)])]
    changes: list[tuple[int, tuple[Part, ...]]] = []
    for step in [1] if all(_is_plain(pieces) for pieces, _ in parts) else range(1, max(2, steps + 1)):
        said = tuple(Part("".join(_said(pieces, step, steps, begin)), weight) for pieces, weight in parts)
        if not changes or changes[-1][1] != said:
            changes.append((step if step > 1 else 0, said))
    return Course(tuple(changes))


def _parts(prompt: str) -> Iterator[tuple[str, float]]:
    """What stands between the ANDs, and its weight."""
    for part in _AND.split(prompt):
        text, colon, number = part.rpartition(":")
        if colon and _NUMBER.fullmatch(number.strip()):
            yield text.rstrip(), float(number)
        else:
            yield part.rstrip(), 1.0


def _is_plain(pieces: _Pieces) -> bool:
    return all(isinstance(piece, str) for piece in pieces)


def _said(pieces: Iterable[str | _Scheduled | _Alternating], step: int, steps: int, begin: tuple[int, float]) -> Iterator[str]:
    """Words of a step, counted from 1; ``begin`` says what whole numbers and shares are counted from."""
    for piece in pieces:
        if isinstance(piece, str):
            yield piece
        elif isinstance(piece, _Alternating):
            yield from _said(piece.choices[(step - 1) % len(piece.choices)], step, steps, begin)
        else:
            share = (float(piece.when) - begin[1]) * steps if "." in piece.when else float(piece.when) - begin[0]
            yield from _said(piece.before if step <= min(steps, int(share)) else piece.after, step, steps, begin)


class _Reader:
    """Reads nested brackets; what cannot be read as a schedule or an alternation stays text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._known: dict[int, tuple[_Pieces, int] | None] = {}

    def prompt(self) -> _Pieces:
        """The whole text. A ``|`` or a last backslash that belongs to nothing makes all of it text, as in the WebUI."""
        pieces: list[str | _Scheduled | _Alternating] = []
        at = 0
        while at < len(self._text):
            more, at = self._inside(at, 0)
            pieces += more
            if at < len(self._text):
                if self._text[at] in "|\\":
                    return (self._text,)
                pieces.append(self._text[at])
                at += 1
        return tuple(pieces)

    def _inside(self, at: int, depth: int) -> tuple[_Pieces, int]:
        """Pieces from a place on, and the place of the sign that none of them begins with."""
        pieces: list[str | _Scheduled | _Alternating] = []
        while at < len(self._text):
            if plain := _PLAIN.match(self._text, at):
                pieces.append(plain[0])
                at = plain.end()
                continue
            found = self._bracket(at, depth) if self._text[at] in "([" else None
            if found is None:
                break
            pieces += found[0]
            at = found[1]
        return tuple(pieces), at

    def _bracket(self, at: int, depth: int) -> tuple[_Pieces, int] | None:
        """What a pair of brackets says and where it ends; None if it is no pair."""
        if depth >= DEEPEST:
            raise SettingError(
                f"brackets may be nested {DEEPEST} deep, these of {self._text!r:.60} are deeper; write (word:1.3) for a weight"
            )
        if at not in self._known:
            self._known[at] = self._round(at, depth) if self._text[at] == "(" else self._square(at, depth)
        return self._known[at]

    def _round(self, at: int, depth: int) -> tuple[_Pieces, int] | None:
        inner, end = self._inside(at + 1, depth + 1)
        pieces: _Pieces = ("(", *inner)
        if self._sign(end) == ":":
            more, end = self._inside(end + 1, depth + 1)
            pieces = (*pieces, ":", *more)
        return ((*pieces, ")"), end + 1) if self._sign(end) == ")" else None

    def _square(self, at: int, depth: int) -> tuple[_Pieces, int] | None:
        inner, end = self._inside(at + 1, depth + 1)
        match self._sign(end):
            case "]":
                return ("[", *inner, "]"), end + 1
            case "|":
                return self._alternating(inner, end, depth)
            case ":":
                return self._scheduled(inner, end, depth)
        return None

    def _alternating(self, first: _Pieces, at: int, depth: int) -> tuple[_Pieces, int] | None:
        choices = [first]
        while self._sign(at) == "|":
            more, at = self._inside(at + 1, depth + 1)
            choices.append(more)
        return ((_Alternating(tuple(choices)),), at + 1) if self._sign(at) == "]" else None

    def _scheduled(self, first: _Pieces, at: int, depth: int) -> tuple[_Pieces, int] | None:
        if when := _WHEN.match(self._text, at + 1):
            return (_Scheduled((), first, when[1]),), when.end()
        after, end = self._inside(at + 1, depth + 1)
        when = _WHEN.match(self._text, end + 1) if self._sign(end) == ":" else None
        return ((_Scheduled(first, after, when[1]),), when.end()) if when else None

    def _sign(self, at: int) -> str:
        return self._text[at : at + 1]
