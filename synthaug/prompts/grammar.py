"""Weights in a prompt: ``(word)``, ``[word]``, ``(word:1.3)``, and ``BREAK``.

The language is that of the AUTOMATIC1111 WebUI, read as its users know it
(https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features#attentionemphasis).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from synthaug.errors import SettingError

__all__ = ["Run", "weighted_runs"]

STRONGER = 1.1
"""What a pair of round brackets multiplies by; a pair of square ones divides by it."""

_SPECIAL = "\\()[]:"
_WEIGHT = re.compile(r":\s*([+-]?[.\d]+)\s*\)")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


@dataclass(frozen=True)
class Run:
    """A piece of a prompt in which every word has the same weight."""

    text: str
    """Without brackets and escapes."""

    weight: float
    """1 is as it is; any number."""


def weighted_runs(prompt: str) -> tuple[tuple[Run, ...], ...]:
    r"""Read the weights of a prompt.

    ``(x)`` multiplies by 1.1, ``[x]`` divides by it, ``(x:1.3)`` multiplies by 1.3 instead; nested pairs multiply. A backslash makes
    the bracket or backslash behind it a letter, any other one is dropped. A bracket that is never closed reaches to the end, one that
    was never opened is a letter. Neighbours of equal weight are one run, so that words are spelled as if there were no brackets.

    Args:
        prompt: The text, without ``AND``, schedules and tags.

    Returns:
        What stands between the ``BREAK`` s, at least one section; each has runs that are not empty, of unequal neighbouring weights.

    Raises:
        SettingError: If what stands behind a colon as a weight is no number, or the product of weights is too large for one.

    Example:
        >>> weighted_runs("a (red:1.3) [fish]")
        ((Run(text='a ', weight=1.0), Run(text='red', weight=1.3), Run(text=' ', weight=1.0), Run(text='fish', weight=0.9090909090909091)),)
        >>> weighted_runs(r"a \(red\) fish BREAK on paper")
        ((Run(text='a (red) fish', weight=1.0),), (Run(text='on paper', weight=1.0),))
    """
    reader, at = _Reader(prompt), 0
    while at < len(prompt):
        at = reader.read(at)
    return reader.sections()


@dataclass
class _Reader:
    """Goes through a prompt from left to right; every piece is weighed when the brackets around it are closed."""

    prompt: str
    pieces: list[tuple[str | None, float]] = field(default_factory=list)
    """Text and weight so far; None is a BREAK."""
    round_opened: list[int] = field(default_factory=list)
    """Number of the piece that each open bracket begins with."""
    square_opened: list[int] = field(default_factory=list)

    def read(self, at: int) -> int:
        """Take what stands at a place and say where to go on."""
        sign = self.prompt[at]
        if sign == "\\":
            escaped = self.prompt[at + 1 : at + 2]
            if escaped and escaped in "\\()[]":
                self.pieces.append((escaped, 1.0))
                return at + 2
        elif sign == "(":
            self.round_opened.append(len(self.pieces))
        elif sign == "[":
            self.square_opened.append(len(self.pieces))
        elif sign == ":" and self.round_opened and (found := _WEIGHT.match(self.prompt, at)):
            self._weigh(self.round_opened.pop(), self._number(found[1]))
            return found.end()
        elif sign == ")" and self.round_opened:
            self._weigh(self.round_opened.pop(), STRONGER)
        elif sign == "]" and self.square_opened:
            self._weigh(self.square_opened.pop(), 1 / STRONGER)
        elif sign in _SPECIAL:
            self.pieces.append((sign, 1.0))
        else:
            return self._words(at)
        return at + 1

    def _words(self, at: int) -> int:
        """Take everything up to the next sign that may mean something."""
        end = at
        while end < len(self.prompt) and self.prompt[end] not in _SPECIAL:
            end += 1
        for number, words in enumerate(_BREAK.split(self.prompt[at:end])):
            if number:
                self.pieces.append((None, 1.0))
            if words:
                self.pieces.append((words, 1.0))
        return end

    def _weigh(self, begin: int, factor: float) -> None:
        self.pieces[begin:] = [(text, weight * factor) for text, weight in self.pieces[begin:]]

    def _number(self, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise SettingError(
                f"a weight is a number such as 1.3, got {text!r} in the prompt {self.prompt!r:.200}; write (word:1.3), or \\( for a bracket"
            ) from None

    def sections(self) -> tuple[tuple[Run, ...], ...]:
        for begin in self.round_opened:
            self._weigh(begin, STRONGER)
        for begin in self.square_opened:
            self._weigh(begin, 1 / STRONGER)
        sections: list[list[Run]] = [[]]
        for text, weight in self.pieces:
            if text is None:
                sections.append([])
                continue
            if not math.isfinite(weight):
                raise SettingError(f"weights must multiply to a finite number, got {weight} for {text!r}; write smaller weights")
            section = sections[-1]
            if section and section[-1].weight == weight:
                section[-1] = Run(section[-1].text + text, weight)
            else:
                section.append(Run(text, weight))
        return tuple(tuple(section) for section in sections)
