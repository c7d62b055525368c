"""A file of prompts, one image or more per line, as A1111's script *Prompts from file* has it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from synthaug.errors import SettingError, UnusableFileError
from synthaug.generation.plan import Plan
from synthaug.records import Request

__all__ = ["Line", "read_prompt_file", "requests_of"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one line asks for."""

    number: int
    """Of the line, from 1."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of the plan that it changes; ``size`` has None where a side is not told."""

    seed: int | None = None
    """Of its first image; the next ones count on from there. None leaves seeds to the plan."""

    variation_seed: int | None = None
    """The same for variations."""

    count: int = 1
    """How many images."""

    folder: str = "."
    """Where they are put, within the folder that is drawn into."""


def read_prompt_file(path: Path) -> list[Line]:
    """Read a file of prompts.

    A line that begins with ``--`` has options, such as ``--prompt "a fish" --steps 9 --width 64``; any other one is a prompt as it
    stands. Empty lines are left out. A prompt may be several words without quotes.

    Args:
        path: A text file.

    Raises:
        UnusableFileError: If the file cannot be read.
        SettingError: If there is no line, or one has an option that is unknown or a value that cannot be used; it names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFileError(f"the file of prompts {path} cannot be read ({error}); check the path, and save it as UTF-8") from error
    lines = [_line(number, line.strip(), f"{path}, line {number}") for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise SettingError(f"a file of prompts must have a line, {path} is empty; write a prompt into it")
    return lines


def requests_of(lines: list[Line], plan: Plan, *, name: str = "the file of prompts") -> list[tuple[str, Request]]:
    """Requests of a file of prompts, each with the folder that its image is put into.

    Args:
        lines: The file.
        plan: Everything that a line does not say, and the seed from which seeds come that are not told.
        name: Of the file, for messages.

    Raises:
        SettingError: If a value cannot be used; it names the line.

    Example:
        >>> lines = [Line(number=1, settings={"prompts": ("a fish",), "steps": 9}, seed=5, count=2)]
        >>> [(request.prompt, request.steps, request.seed) for _, request in requests_of(lines, Plan(prompts=("-",)))]
        [('a fish', 9, 5), ('a fish', 9, 6)]
    """
    out: list[tuple[str, Request]] = []
    for line in lines:
        try:
            settings = dict(line.settings)
            if "size" in settings:
                settings["size"] = tuple(told or usual for told, usual in zip(settings["size"], plan.size, strict=True))
            own = replace(plan, **settings)
            for number in range(line.count):
                request = own.request(len(out))
                seed = request.seed if line.seed is None else line.seed + (0 if own.variation_strength else number)
                other = request.variation_seed if line.variation_seed is None else line.variation_seed + number
                out.append((line.folder, replace(request, seed=seed, variation_seed=other)))
        except SettingError as error:
            raise SettingError(f"{name}, line {line.number}: {error}") from None
    return out


def _line(number: int, text: str, place: str) -> Line:
    if not text.startswith("--"):
        return Line(number=number, settings={"prompts": (text,)})
    options = _options(text, place)
    told = {name: _value(name, words, place) for name, words in options.items()}
    if "prompt" not in told:
        raise SettingError(f"a line of options needs a prompt, got none in {place}; write --prompt TEXT")
    settings = {field: told[name] for name, field in _FIELDS.items() if name in told}
    settings["prompts"] = (told["prompt"],)
    if "width" in told or "height" in told:
        settings["size"] = (told.get("height"), told.get("width"))
    count = told.get("n_iter", 1) * told.get("batch_size", 1)
    if count < 1:
        raise SettingError(f"batch_size and n_iter must be at least 1, got {count} images in {place}")
    seeds = {"seed": told.get("seed"), "variation_seed": told.get("subseed")}
    drawn = {name: None if value == -1 else value for name, value in seeds.items()}  # -1 is A1111's word for any seed
    return Line(number=number, settings=settings, count=count, folder=told.get("outpath_samples", "."), **drawn)


def _options(text: str, place: str) -> dict[str, list[str]]:
    """Option -> the words that follow it."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SettingError(f"quotes must come in pairs, got {text[:60]!r} ({error}) in {place}; write \\' for a single one") from None
    options: dict[str, list[str]] = {}
    at: list[str] = []
    for word in words:
        if word.startswith("--"):
            at = options.setdefault(word[2:], [])
        else:
            at.append(word)
    return options


def _value(name: str, words: list[str], place: str) -> Any:
    if name not in _KINDS:
        raise SettingError(f"unknown option --{name} in {place}; choose from: {', '.join(f'--{known}' for known in _KINDS)}")
    if len(words) != 1 and name not in ("prompt", "negative_prompt"):
        raise SettingError(f"the option --{name} takes one value, got {' '.join(words)!r} in {place}")
    try:
        return _KINDS[name](" ".join(words))
    except ValueError:
        raise SettingError(f"the option --{name} cannot be {' '.join(words)!r} in {place}; give {_RULES[_KINDS[name]]}") from None


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _inside(text: str) -> str:
    """A folder that lies in the one that is drawn into."""
    path = PurePosixPath(text.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in text:
        raise ValueError
    return str(path)


_KINDS: dict[str, Callable[[str], Any]] = {
    "prompt": str, "negative_prompt": str, "seed": int, "subseed": int, "subseed_strength": float, "steps": int, "cfg_scale": float,
    "sampler_name": str, "scheduler": str, "width": int, "height": int, "batch_size": int, "n_iter": int, "tiling": _truth, "eta": float,
    "outpath_samples": _inside,
}  # fmt: skip
"""Option of A1111's -> how its value is read."""

_RULES: dict[Callable[[str], Any], str] = {
    int: "a whole number", float: "a number", _truth: "true or false", _inside: "a folder within --out, such as rusty/left",
}  # fmt: skip

_FIELDS = {
    "negative_prompt": "negative_prompt", "subseed_strength": "variation_strength", "steps": "steps", "cfg_scale": "guidance",
    "sampler_name": "sampler", "scheduler": "schedule", "tiling": "tiling", "eta": "eta",
}  # fmt: skip
"""Option -> field of the plan."""
