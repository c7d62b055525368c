"""The list that ``synthaug prepare`` leaves in a folder, and what it says of the photos there."""

from __future__ import annotations

import json
import logging
from pathlib import Path

__all__ = ["LIST", "listed_groups"]

log = logging.getLogger(__name__)

LIST = "photos.json"
"""What the list is called."""

_NAMED = ("file", "group", "sha256", "source_sha256")
"""Text that every entry has; a list without them was written by something else."""


def listed_groups(folder: Path) -> dict[str, str]:
    """The group of each photo that was prepared into a folder, by file name; empty without a list.

    A list that is damaged or comes from something else is left alone, with a warning in the log.

    Example:
        >>> listed_groups(Path("/no/such/folder"))
        {}
    """
    path = folder / LIST
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return _left_alone(path, f"cannot be read ({error})")
    entries = content.get("photos") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        return _left_alone(path, "was not written by synthaug prepare")
    return {entry["file"]: entry["group"] for entry in entries}


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(name), str) and entry[name] for name in _NAMED)


def _left_alone(path: Path, why: str) -> dict[str, str]:
    log.warning(
        "groups are not taken from %s, it %s; prepare the photos again if they were, and give a group rule if some belong together",
        path, why,
    )  # fmt: skip
    return {}
