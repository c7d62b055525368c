"""From the arguments of a data set to its plan, with every mistake that can be seen without drawing named at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from synthaug.errors import SettingError
from synthaug.generation import Plan, check_base
from synthaug.generation.lora_tags import lora_files
from synthaug.records import Drawing, LoraUse, plain_fields
from synthaug.templates import read_wildcards

__all__ = ["Loras", "lora_plan"]

Loras = Path | str | LoraUse | Sequence[Path | str | LoraUse]
"""One LoRA or several, as files or with their weights."""


def lora_plan(
    lora: Loras,
    *,
    prompt: str | Sequence[str] | None,
    base: str | None,
    weight: float = 1.0,
    wildcards: Path | str | None = None,
    lora_folder: Path | str | None = None,
    **settings: Any,
) -> Plan:
    """Plan for a LoRA, or for several of which the first says what is left out.

    Args:
        lora: What to wear.
        prompt: What to draw, several in turn; None takes the first file's own caption.
        base: None takes the first file's own; another one is opened to see whether it fits.
        weight: How strongly files are worn that come without a weight.
        wildcards: Folder of wildcards that prompts may call.
        lora_folder: Folder of LoRAs that prompts may call.
        **settings: Fields of the plan; None counts as left out.

    Raises:
        SettingError: If a value cannot be used or a setting is unknown.
        UnusableFileError: If a LoRA file or the base cannot be used.
        WrongBaseModelError: If the base is another one.
    """
    _check_known(settings)
    settings = _built(settings)
    uses = _uses(lora, weight)
    prompts = None if prompt is None else (prompt,) if isinstance(prompt, str) else tuple(prompt)
    if prompts is not None and not (prompts and all(text.strip() for text in prompts)):
        raise SettingError(f"prompt must not be empty, got {prompt!r}; leave it out to use the caption of {uses[0].path}")
    called: dict[str, Any] = {
        "wildcards": None if wildcards is None else read_wildcards(wildcards),
        "lora_files": None if lora_folder is None else lora_files([lora_folder]),
    }
    plan = Plan.for_lora(uses[0].path, prompts=prompts, base=base, **called, **settings)
    for use in uses[1:]:
        Plan.for_lora(use.path, prompts=plan.prompts, base=plan.base)  # names a file that cannot be read
    plan = replace(plan, loras=uses)
    plan.request(0)  # a size, a number of steps or a placeholder that cannot be used is refused by the request
    if base is not None:
        check_base(plan)
    return plan


def _uses(lora: Loras, weight: float) -> tuple[LoraUse, ...]:
    each = [lora] if isinstance(lora, (str, Path, LoraUse)) else list(lora)
    if not each:
        raise SettingError("there must be at least one LoRA, got an empty list; give a file")
    return tuple(use if isinstance(use, LoraUse) else LoraUse(path=str(use), weight=weight) for use in each)


def _built(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of which lists and mappings, as in a file, have become tuples and records.

    Raises:
        SettingError: If a value is of another kind.
    """
    records: dict[str, Any] = {name: value for name, value in settings.items() if is_dataclass(value)}
    records |= {name: tuple(value) for name, value in settings.items() if _are_records(value)}
    return {**plain_fields({name: value for name, value in settings.items() if name not in records}), **records}


def _are_records(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(is_dataclass(each) for each in value)


def _check_known(settings: Mapping[str, Any]) -> None:
    """Refuse what is no field of a drawing, with the nearest one that is."""
    known = sorted({field.name for field in fields(Drawing)} | {"seed"})
    for name in settings:
        if name == "loras":
            raise SettingError("LoRAs are the first argument, got loras=...; give a list of files or of LoraUse there")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from: {', '.join(known)}"
            raise SettingError(f"unknown setting {name!r} of how to draw; {hint}")
