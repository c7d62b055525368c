"""Read a dataset file of kohya's scripts, TOML or JSON: which subsets it has and what holds for each.

Format: https://github.com/kohya-ss/sd-scripts/blob/main/docs/config_README-en.md.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from synthaug.errors import SettingError, UnusableFileError
from synthaug.photos.kohya_keys import check_keys

__all__ = ["Subset", "read_subsets"]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """One folder of photos as the file speaks of it."""

    place: str
    """Where it stands, in words."""

    values: Mapping[str, Any]
    """Keys that hold for it: its own, those of its data set, the general ones, in this order."""


def read_subsets(path: Path) -> tuple[Subset, ...]:
    """Every subset of a dataset file, in order.

    Args:
        path: A ``.toml`` or ``.json`` file in UTF-8.

    Raises:
        UnusableFileError: If it cannot be read as such.
        SettingError: If a key is unknown, stands in the wrong place or has a value that cannot be used, or there is no subset.
    """
    whole = _parsed(path)
    for name in whole:
        if name not in ("general", "datasets"):
            near = get_close_matches(name, ("general", "datasets"), 1)
            way = f"did you mean {near[0]!r}?" if near else "such a file holds [general] and [[datasets]] alone, no options of a whole run"
            raise SettingError(f"unknown key {name!r} at the top of {path.name}; {way}")
    general = _table(whole.get("general", {}), f"[general] of {path.name}")
    check_keys(general, "general", f"[general] of {path.name}")
    found = tuple(_subsets(whole.get("datasets", []), general, path.name))
    if not found:
        raise SettingError(f"a dataset file must list folders, {path.name} has no [[datasets.subsets]]; add one with its image_dir")
    return found


def _parsed(path: Path) -> dict[str, Any]:
    if path.suffix.lower() not in (".toml", ".json"):
        raise UnusableFileError(f"a data set is a folder, or a .toml or .json file that names folders, {path} is neither; give the folder")
    try:
        text = path.read_text(encoding="utf-8-sig")
        whole = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except UnicodeDecodeError:
        raise UnusableFileError(f"a dataset file must be UTF-8, {path} is not; save it again with that encoding") from None
    except ValueError as error:  # what both parsers raise; they name the line
        hint = "; write Windows paths in 'single quotes'" if path.suffix.lower() != ".json" and "\\" in text else ""
        raise UnusableFileError(f"{path} cannot be read as {path.suffix[1:].upper()}: {error}{hint}") from None
    return _table(whole, path.name)


def _subsets(datasets: Any, general: Mapping[str, Any], file: str) -> Iterator[Subset]:
    for i, dataset in enumerate(_list(datasets, f"datasets in {file}"), 1):
        place = f"dataset {i} of {file}"
        shared = {name: value for name, value in _table(dataset, place).items() if name != "subsets"}
        check_keys(shared, "dataset", place)
        for j, own in enumerate(_list(dataset.get("subsets", []), f"subsets in {place}"), 1):
            here = f"subset {j} of {place}"
            check_keys(_table(own, here), "subset", here)
            yield Subset(place=here, values={**general, **shared, **own})


def _table(value: Any, place: str) -> dict[str, Any]:
    """A table without the keys that JSON sets to null."""
    if not isinstance(value, dict):
        raise SettingError(f"{place} must be a table of keys and values, got {value!r}")
    return {name: inner for name, inner in value.items() if inner is not None}


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise SettingError(f"{what} must be a list, written [[like this]] in TOML, got {value!r}")
    return value
