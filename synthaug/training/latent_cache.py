"""A folder that remembers what the encoders answered, under a name made from everything the answer depends on.

An entry is never out of date: whatever changes (a pixel, a setting, the base) changes the name. It is a safetensors file, written
whole or not at all under a name of its own process, so that two runs may share the folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["Cache", "Entry", "cache_folder", "content_hash"]

log = logging.getLogger(__name__)

Entry = dict[str, Tensor]
"""Tensors by name."""

FORMAT = 1
"""Raised whenever the code that makes entries makes them differently."""


def cache_folder(wanted: str) -> Path | None:
    """Where entries go.

    Args:
        wanted: A folder; ``auto`` for the user's cache folder (``XDG_CACHE_HOME``, ``LOCALAPPDATA`` on Windows); ``none``.

    Returns:
        The folder, which need not be there; None for ``none``.

    Example:
        >>> cache_folder("none") is None, cache_folder("here") == Path("here"), cache_folder("auto").name
        (True, True, 'synthaug')
    """
    if wanted == "none":
        return None
    if wanted != "auto":
        return Path(wanted).expanduser()
    place = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    return (Path(place) if place else Path.home() / ".cache") / "synthaug"


class Cache:
    """Entries by what they depend on.

    Args:
        folder: Where they lie; None remembers nothing.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     cache = Cache(Path(folder))
        ...     for _ in range(2):
        ...         entry = cache.get_or_make("numbers", {"photo": "ab"}, lambda: {"mean": torch.arange(3)})
        ...     entry["mean"].tolist(), cache.made, cache.found
        ([0, 1, 2], 1, 1)
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.found = 0
        """Entries that were there."""
        self.made = 0
        """Entries that had to be made."""
        self.damaged = 0
        """Entries that were there but could not be used, and were made again."""
        self.trouble = ""
        """Why nothing more is written; "" while all is well."""

    def get_or_make(self, kind: str, depends_on: Mapping[str, object], make: Callable[[], Entry]) -> Entry:
        """An entry as it was written, bit by bit, or as ``make`` makes it.

        Args:
            kind: Sub-folder.
            depends_on: Everything the entry depends on, as plain data.
            make: Makes it.
        """
        if self.folder is None:
            self.made += 1
            return make()
        name = hashlib.sha256(json.dumps({"format": FORMAT, "kind": kind, **depends_on}, sort_keys=True).encode()).hexdigest()
        path = self.folder / kind / name[:2] / f"{name}.safetensors"
        known = self._read(path)
        if known is not None:
            self.found += 1
            return known
        self.made += 1
        entry = {key: value.contiguous() for key, value in make().items()}
        self._write(path, entry)
        return entry

    def _read(self, path: Path) -> Entry | None:
        """The entry of a file; None if there is none, or if it is damaged, which is said."""
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as opened:
                entry: Entry = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # it is no mapping
                whole = (opened.metadata() or {}).get("content") == content_hash(entry)
        except (SafetensorError, OSError):
            whole = False
        if whole:
            return entry
        self.damaged += 1
        log.warning("the cached file %s is damaged; it is made again", path)
        return None

    def _write(self, path: Path, entry: Entry) -> None:
        """Write an entry whole or not at all; a disk that is full or must not be written to is said once, and nothing more is written."""
        if self.trouble:
            return
        part = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(entry, part, metadata={"content": content_hash(entry)})
            part.replace(path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):  # a folder that cannot be written has nothing to tidy up
                part.unlink(missing_ok=True)
            self.trouble = getattr(error, "strerror", None) or str(error)
            log.warning(
                "nothing more is cached in %s (%s); training goes on, the next start encodes again; free some space or give --data.cache "
                "another folder",
                self.folder, self.trouble,
            )  # fmt: skip


def content_hash(entry: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and values."""
    found = hashlib.sha256()
    for key in sorted(entry):
        value = entry[key].detach().cpu().contiguous()
        found.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
