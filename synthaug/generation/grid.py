"""X/Y/Z plots: one image for every combination of up to three settings, labelled on one sheet."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, Literal, get_args, get_origin, get_type_hints

from synthaug.errors import SettingError, choose
from synthaug.generation.plan import Plan
from synthaug.generation.request_check import check_request
from synthaug.records import Hires, Request

__all__ = ["NO_GRID", "Axis", "Grid", "axis_of", "cells"]

MOST = 1000
"""More images than this are taken for a slip of the pen."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Settings to vary."""

    x: str | None = None
    """Columns: a field and its values, such as "steps: 5,10,20", "guidance: 1-10 [4]" (four values), "seed: 1-9 (+2)" (every second),
    "sampler: Euler a, DPM++ 2M Karras", "size: 64x64, 96x64", "prompt: red -> blue, green" or "lora_weight: 0-1.2 [5]"."""

    y: str | None = None
    """Rows, in the same way."""

    z: str | None = None
    """Sheets one below the other, in the same way."""

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that are there: rows of sheets first, columns last.

        Raises:
            SettingError: If one cannot be read.
        """
        return tuple(Axis("", (("", None),)) if text is None else axis_of(text) for text in (self.z, self.y, self.x))


NO_GRID = Grid()
"""Varies nothing."""


@dataclass(frozen=True)
class Axis:
    """One setting and the values that it takes."""

    field: str
    """Of the request; ``""`` varies nothing."""

    points: tuple[tuple[str, Any], ...]
    """What is written beside each row or column, and the value."""


def axis_of(text: str) -> Axis:
    """Read ``field: values``.

    Args:
        text: Numbers are written as a list, ``1-10`` (steps of 1), ``1-10 (+2)`` or ``1-10 [5]`` (so many values, ends included), or any
            of these with commas between; a value with a comma in it stands in double quotes. ``prompt`` replaces words, in the
            negative prompt, too: the first value is what is looked for, and is drawn as it is.

    Raises:
        SettingError: If the field is unknown, or a value is not of its kind.

    Example:
        >>> axis_of("steps: 5, 10-14 (+2)")
        Axis(field='steps', points=(('steps: 5', 5), ('steps: 10', 10), ('steps: 12', 12), ('steps: 14', 14)))
        >>> axis_of("lora_weight: 0-1 [3]").points[1]
        ('lora_weight: 0.5', 0.5)
    """
    name, colon, given = text.partition(":")
    name = name.strip()
    kinds = _kinds()
    if not colon:
        raise SettingError(f"an axis of a grid must be 'field: values', such as 'steps: 5, 10', got {text!r}")
    read = choose("field of a grid", name, kinds)
    if name == "prompt":
        given = given.replace("->", ",", 1)
    values = [part.strip() for part in next(csv.reader([given], skipinitialspace=True), [])]
    if not [value for value in values if value] and name not in _TEXTS:
        raise SettingError(f"an axis of a grid needs values, got {text!r}; write such as 'steps: 5, 10'")
    try:
        found = [one for value in values for one in read(value)]
    except ValueError as error:
        raise SettingError(f"{name} of a grid cannot be read, got {given.strip()!r} ({error})") from None
    if name == "prompt":
        needle = found[0]
        return Axis(name, tuple((word, (needle, word)) for word in found))
    return Axis(name, tuple((f"{name}: {_shown(value)}", value) for value in found))


def cells(plan: Plan, grid: Grid) -> list[Request]:
    """A request for every combination, columns fastest, all from the seed of the plan's first image.

    Raises:
        SettingError: If an axis cannot be read, a value cannot be used, or the words to replace do not occur.

    Example:
        >>> plan = Plan(prompts=("a red fish",))
        >>> requests = cells(plan, Grid(x="steps: 5, 10", y="prompt: red -> blue"))
        >>> [(request.prompt, request.steps) for request in requests]
        [('a red fish', 5), ('a red fish', 10), ('a blue fish', 5), ('a blue fish', 10)]
        >>> len({request.seed for request in requests})
        1
    """
    axes = grid.axes
    count = 1
    for axis in axes:
        count *= len(axis.points)
    if count > MOST:
        raise SettingError(f"a grid may have at most {MOST} images, got {count}; take fewer values")
    out = []
    for number, points in enumerate(product(*(axis.points for axis in axes))):
        changes = [(axis.field, value) for axis, (_, value) in zip(axes, points, strict=True) if axis.field]
        own = plan
        for field, value in changes:
            own = _reworded(own, *value) if field == "prompt" else own
        request = replace(own.request(0), index=number)
        for field, value in changes:
            request = request if field == "prompt" else _changed(request, field, value)
        check_request(request)
        out.append(request)
    return out


def _reworded(plan: Plan, needle: str, word: str) -> Plan:
    prompt = plan.prompts[0]
    if not needle or needle not in prompt + "\n" + plan.negative_prompt:
        raise SettingError(f"the words to replace must occur in the prompt or the negative prompt, got {needle!r} for {prompt[:60]!r}")
    return replace(plan, prompts=(prompt.replace(needle, word),), negative_prompt=plan.negative_prompt.replace(needle, word))


def _changed(request: Request, field: str, value: Any) -> Request:
    if field == "lora_weight":
        if not request.loras:
            raise SettingError("lora_weight of a grid needs a LoRA, got none; give --lora FILE, or call one in the prompt")
        return replace(request, loras=tuple(replace(use, weight=value) for use in request.loras))
    outer, dot, inner = field.partition(".")
    if dot:
        return replace(request, hires=replace(request.hires or Hires(), **{inner: value}))
    return replace(request, **{outer: value})


_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_RANGE = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})\s*(?:\(\s*({_NUMBER})\s*\)|\[\s*(\d+)\s*\])?")
_TEXTS = ("negative_prompt", "prompt")


def _numbers(kind: type[int] | type[float]) -> Callable[[str], list[Any]]:
    """Reads one number or one range of them."""

    def read(text: str) -> list[Any]:
        match = _RANGE.fullmatch(text)
        if match is None:
            return [kind(text)]
        first, last = float(match[1]), float(match[2])
        if match[4]:
            count = int(match[4])
            values = [first + (last - first) * at / max(1, count - 1) for at in range(count)]
        else:
            step = float(match[3] or (1 if last >= first else -1))
            count = int((last - first) / step + 1e-6) + 1 if step else 0
            values = [first + step * at for at in range(min(count, MOST + 1))]
        if not values:
            raise ValueError("there is no number in this range")
        return [round(value) if kind is int else round(value, 6) for value in values]

    return read


def _truth(text: str) -> list[bool]:
    return [choose("value", text.lower(), {"true": True, "false": False})]


def _pair(text: str) -> list[tuple[float, float]]:
    first, last = text.split(":")
    return [(float(first), float(last))]


def _size(text: str) -> list[tuple[int, int]]:
    width, height = text.lower().split("x")
    return [(int(height), int(width))]


def _kinds() -> dict[str, Callable[[str], list[Any]]]:
    """Field -> how its values are read; fields that no line of text can give are not there."""
    hints = get_type_hints(Request) | {f"hires.{each.name}": get_type_hints(Hires)[each.name] for each in fields(Hires)}
    hints = {name: hint for name, hint in hints.items() if name not in ("index", "label", "loras", "embeddings", "controls", "hires")}
    return {name: _reader(hint) for name, hint in hints.items()} | {"lora_weight": _numbers(float), "size": _size}


def _reader(hint: Any) -> Callable[[str], list[Any]]:
    if get_origin(hint) is Literal:
        table = {name: name for name in get_args(hint)}
        return lambda text: [choose("value", text, table)]
    kinds = [hint, *get_args(hint)]
    if get_origin(hint) is tuple:
        return _pair
    if bool in kinds:
        return _truth
    if int in kinds or float in kinds:
        return _numbers(int if int in kinds else float)
    return lambda text: [text]


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{value[1]}x{value[0]}" if isinstance(value[0], int) else f"{value[0]:g} to {value[1]:g}"
    return f"{value:g}" if isinstance(value, float) else str(value)
