"""One placeholder language of captions and prompts: ``{trigger}``, ``{a|b}`` for a choice, ``__colours__`` for a line of a file.

One small language for both, so that a caption template works as a prompt. Choices and wildcards are written as in Dynamic Prompts
(https://github.com/adieyal/sd-dynamic-prompts/blob/main/docs/SYNTAX.md).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

from synthaug.errors import SettingError, UnusableFileError, require

__all__ = ["choose_words", "fill", "grid_of", "read_wildcards"]

LARGEST = 10_000
"""Texts of a grid."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_WILDCARD = re.compile(r"__([^\W_](?:[\w\-./]*?[^\W_])?)__")
_MANY = re.compile(r"\s*(?:(\d+)|(\d*)-(\d*))\$\$(?:([^|{}]*?)\$\$)?")
_WEIGHT = re.compile(r"\s*(\d+\.?\d*|\.\d+)::")
_SIGNS = {"{": "\ue000", "}": "\ue001", "|": "\ue002", ":": "\ue003", "$": "\ue004"}
"""What stands in for signs that mean themselves while choices are made: letters that no text uses."""
_HIDE = str.maketrans(_SIGNS)
_SHOW = str.maketrans({letter: sign for sign, letter in _SIGNS.items()})


def fill(template: str, values: Mapping[str, str], *, seed: int = 0, wildcards: Mapping[str, Sequence[str]] | None = None) -> str:
    """Fill in a template.

    Args:
        template: Text with ``{name}`` for a value, ``{this|that}`` for one of several, ``{3::this|that}`` for one that comes three times as
            often, ``{2$$a|b|c}`` or ``{1-2$$ and $$a|b|c}`` for several in any order, and ``__name__`` for a line of a wildcard file.
        values: What the names stand for; braces in them are nothing but braces.
        seed: Decides the choices; equal seeds give equal texts.
        wildcards: As :func:`read_wildcards` reads them; lines may hold all of the above.

    Returns:
        The text, spaces tidied.

    Raises:
        SettingError: If a name has no value, there is no such wildcard, or a choice cannot be made; the message lists the names there are.

    Example:
        >>> fill("a photo of {trigger}", {"trigger": "iriko"})
        'a photo of iriko'
        >>> fill("a {big|small} fish", {}, seed=1) in {"a big fish", "a small fish"}
        True
        >>> fill("{2$$ and $$cod|tuna} on __paper__", {}, wildcards={"paper": ["white paper"]}) in {
        ...     "cod and tuna on white paper", "tuna and cod on white paper"}
        True
    """
    rng = random.Random(seed)  # noqa: S311  # choices of words, not secrets
    language = _Language(template, values, wildcards or {})

    def filled(text: str, within: tuple[str, ...]) -> str:
        def line(match: re.Match[str]) -> str:
            return filled(rng.choice(language.lines(match[1], within)), (*within, match[1])).translate(_HIDE)

        return _from_inside(_WILDCARD.sub(line, text), replace)

    def replace(match: re.Match[str]) -> str:
        choice = _choice_of(match[1], template)
        return language.value(match[1]).translate(_HIDE) if choice is None else choice.made(rng)

    return _tidy(filled(template, ()).translate(_SHOW))


def grid_of(template: str, values: Mapping[str, str] | None = None, *, wildcards: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """Every text that a template can become, once each: Dynamic Prompts' combinatorial mode.

    Args:
        template: As for :func:`fill`; the last choice changes fastest. What has the weight 0 is left out.
        values: What names stand for.
        wildcards: As :func:`read_wildcards` reads them.

    Returns:
        At most 10,000 texts.

    Raises:
        SettingError: As for :func:`fill`, and if there are more.

    Example:
        >>> grid_of("a {red|blue} {fish|screw} on __paper__", wildcards={"paper": ["wood"]})
        ['a red fish on wood', 'a red screw on wood', 'a blue fish on wood', 'a blue screw on wood']
    """
    language = _Language(template, values or {}, wildcards or {})
    return list(dict.fromkeys(map(_tidy, language.all_of(template, ()))))


def choose_words(text: str, *, seed: int) -> str:
    """Choose one of each ``{this|that}`` in a caption; ``{{`` and ``}}`` are the braces themselves.

    Args:
        text: A caption; a single thing in braces stays without them.
        seed: Decides the choices; equal seeds give equal texts.

    Example:
        >>> choose_words("a {big|big} fish, {{ironic}}", seed=3)
        'a big fish, {ironic}'

    Wildcards as kohya-ss/sd-scripts has them: https://github.com/kohya-ss/sd-scripts/blob/main/docs/config_README-en.md.
    """
    rng = random.Random(seed)  # noqa: S311  # choices of words, not secrets
    marked = text.replace("{{", _SIGNS["{"]).replace("}}", _SIGNS["}"])
    return _from_inside(marked, lambda match: rng.choice(match.group(1).split("|"))).translate(_SHOW)


def read_wildcards(folder: Path | str) -> dict[str, tuple[str, ...]]:
    """Read a folder of wildcards: ``animals/fish.txt`` is called ``__animals/fish__``.

    Args:
        folder: Text files at any depth; each line is a choice, empty ones and those that begin with ``#`` are left out.

    Returns:
        Name -> lines, in the order of names: plain data, to be kept with whatever was made from it.

    Raises:
        UnusableFileError: If there is no such folder, it has no text file, or a file cannot be read as UTF-8 or has no line.
    """
    place = Path(folder)
    files = sorted(place.rglob("*.txt"))
    if not files:
        what = "has no .txt file" if place.is_dir() else "is not there"
        raise UnusableFileError(f"a folder of wildcards has text files such as colours.txt, {place} {what}; check the path")
    return {file.relative_to(place).with_suffix("").as_posix(): _lines_of(file) for file in files}


def _lines_of(file: Path) -> tuple[str, ...]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFileError(f"the wildcards {file} cannot be read ({error}); save the file as UTF-8 text") from error
    if not (kept := tuple(line for line in lines if line and not line.startswith("#"))):
        raise UnusableFileError(f"the wildcards {file} have no line to choose; write one choice per line")
    return kept


@dataclass(frozen=True)
class _Choice:
    """``{low-high$$between$$option|weight::option}``."""

    options: tuple[str, ...]
    weights: tuple[float, ...]
    low: int
    high: int
    between: str

    def made(self, rng: random.Random) -> str:
        """Options that chance takes, without those that weigh nothing."""
        count = self.low if self.low == self.high else rng.randint(self.low, self.high)
        if set(self.weights) == {1.0}:
            taken = [rng.choice(self.options)] if count == 1 else rng.sample(self.options, count)
            return self.between.join(taken)
        left, taken = list(range(len(self.options))), []
        for _ in range(count):
            [number] = rng.choices(left, [self.weights[each] for each in left])
            left.remove(number)
            taken.append(self.options[number])
        return self.between.join(taken)


def _choice_of(inner: str, template: str) -> _Choice | None:
    """What stands in braces, as a choice; None if it is a name."""
    many = _MANY.match(inner)
    if "|" not in inner and not many:
        return None
    given = [(option, _WEIGHT.match(option)) for option in _options(inner[many.end() :] if many else inner)]
    options = tuple(option[weight.end() :] if weight else option for option, weight in given)
    weights = tuple(float(weight[1]) if weight else 1.0 for _, weight in given)
    low = high = 1
    if many and many[1]:
        low = high = int(many[1])
    elif many:
        low, high = int(many[2] or 0), int(many[3] or len(options))
    possible = sum(weight > 0 for weight in weights)
    require({
        f"a choice in {template!r} must have an option of a weight above 0": (possible > 0, f"{{{inner}}}"),
        f"a choice in {template!r} must take at most the {possible} that it has": (low <= high <= possible, f"{low} to {high}"),
    })  # fmt: skip
    return _Choice(options, weights, low, high, ", " if many is None or many[4] is None else many[4])


def _options(inner: str) -> list[str]:
    """What stands between the bars that are in no braces of their own."""
    found, depth = [""], 0
    for letter in inner:
        depth += (letter == "{") - (letter == "}")
        if letter == "|" and depth <= 0:
            found.append("")
        else:
            found[-1] += letter
    return found


@dataclass(frozen=True)
class _Language:
    """What names and wildcards stand for in a template."""

    template: str
    values: Mapping[str, str]
    wildcards: Mapping[str, Sequence[str]]

    def value(self, name: str) -> str:
        if name not in self.values:
            known = ", ".join(f"{{{each}}}" for each in sorted(self.values)) or "none"
            raise SettingError(f"unknown placeholder {{{name}}} in {self.template!r}; choose from: {known}, or write {{this|that}}")
        return self.values[name]

    def lines(self, name: str, within: tuple[str, ...]) -> Sequence[str]:
        """Lines of a wildcard that is met within others."""
        if name not in self.wildcards:
            known = ", ".join(f"__{each}__" for each in sorted(self.wildcards)) or "none; give a folder of wildcards"
            raise SettingError(f"unknown wildcard __{name}__ in {self.template!r}; choose from: {known}")
        if name in within:
            way = " -> ".join(f"__{each}__" for each in (*within, name))
            raise SettingError(f"a wildcard must not call itself, got {way} in {self.template!r}; take one of them out of its file")
        if not self.wildcards[name]:
            raise SettingError(f"a wildcard must have a line to choose, __{name}__ in {self.template!r} has none; write one into its file")
        return self.wildcards[name]

    def all_of(self, text: str, within: tuple[str, ...]) -> list[str]:
        """Every text that a piece can become."""
        parts: list[list[str]] = []
        at = 0
        for begin, end in _spans(text):
            name = _WILDCARD.fullmatch(text, begin, end)
            found = self._all_lines(name[1], within) if name else self._all_in_braces(text[begin + 1 : end - 1], within)
            parts += [[text[at:begin]], found]
            at = end
        return self._joined([*parts, [text[at:]]], "")

    def _all_lines(self, name: str, within: tuple[str, ...]) -> list[str]:
        found: list[str] = []
        for line in self.lines(name, within):
            found += self.all_of(line, (*within, name))
            self._check(len(found))
        return found

    def _all_in_braces(self, inner: str, within: tuple[str, ...]) -> list[str]:
        choice = _choice_of(inner, self.template)
        if choice is None:
            return [self.value(name) for name in self.all_of(inner, within)]
        options = [self.all_of(option, within) for option, weight in zip(choice.options, choice.weights, strict=True) if weight > 0]
        found: list[str] = []
        for count in range(choice.low, choice.high + 1):
            for taken in permutations(options, count):
                found += self._joined(taken, choice.between)
                self._check(len(found))
        return found

    def _joined(self, parts: Sequence[list[str]], between: str) -> list[str]:
        self._check(math.prod(map(len, parts)))
        return [between.join(taken) for taken in product(*parts)]

    def _check(self, count: int) -> None:
        if count > LARGEST:
            raise SettingError(f"a grid has at most {LARGEST} texts, {self.template!r:.200} has {count} or more; take out a choice")


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where each wildcard and each outermost pair of braces begins and ends."""
    at = 0
    while at < len(text):
        match = _WILDCARD.match(text, at)
        end = match.end() if match else _closed(text, at)
        if end:
            yield at, end
        at = end or at + 1


def _closed(text: str, begin: int) -> int:
    """Where the braces that open at a place have closed; 0 if none do."""
    depth = 0
    for at in range(begin, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth <= 0:
            return at + 1 if at > begin else 0
    return 0


def _from_inside(text: str, replace: Callable[[re.Match[str]], str]) -> str:
    """Replace braces, those inside others first."""
    while _BRACES.search(text):
        text = _BRACES.sub(replace, text)
    return text


def _tidy(text: str) -> str:
    return " ".join(text.split())
