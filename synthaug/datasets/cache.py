"""A folder in which drawn images are kept, for later passes and for other processes."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from synthaug.datasets.image_file import decoded, encoded
from synthaug.datasets.passes import shared
from synthaug.datasets.shard_index import file_hash
from synthaug.errors import OutputError, SettingError, UnusableFileError
from synthaug.records import Request

if TYPE_CHECKING:
    from synthaug.generation import Plan

__all__ = ["PLAN", "CacheCounts", "ImageCache", "by_content"]

log = logging.getLogger(__name__)

PLAN = "plan.json"
FORMAT = 1
"""Raised whenever images are drawn or written differently."""

_ROWS = 1025
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class CacheCounts:
    """What a cache has done, in all workers together."""

    read: int
    """Images that were there."""

    written: int
    """Images that were drawn and are there now."""

    damaged: int
    """Images that were there but not as they were written, and were drawn again."""


class ImageCache:
    """Images in a folder, by everything that decides their pixels: request, base, contents of the files it names.

    The folder belongs to one plan, written into its ``plan.json``; count and label may differ, and files may have moved.
    Any number of processes may share it: an image appears under its name whole or not at all, and it does no harm that two
    write the same one. What is damaged is drawn again. When nothing can be written any more, one warning says so and what is
    drawn is no longer kept.

    Args:
        folder: Made if it is not there; empty, or written by an earlier cache.
        plan: What is drawn.
        base: Fingerprint of the base.

    Raises:
        SettingError: If the folder holds images of another plan, or something else.
        UnusableFileError: If its ``plan.json`` cannot be read.
        OutputError: If the folder cannot be made.
    """

    looks_ahead = True

    def __init__(self, folder: Path | str, plan: Plan, *, base: str) -> None:
        self.folder = Path(folder)
        self._base = base
        self._counts = shared(torch.zeros(_ROWS, 4, dtype=torch.int64))
        self._bind({"format": FORMAT, **by_content(plan.to_json()), "base": base})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        shared(self._counts)  # a copy made by pickle or deepcopy would otherwise be private

    @property
    def counts(self) -> CacheCounts:
        """Images read, written and found damaged so far."""
        read, written, damaged, _ = self._counts.sum(0).tolist()
        return CacheCounts(read=read, written=written, damaged=damaged)

    @property
    def is_full(self) -> bool:
        """Whether images are no longer kept because one could not be written."""
        return bool(self._counts[:, 3].any())

    def key(self, request: Request) -> str:
        """See :class:`Store`."""
        text = json.dumps([FORMAT, self._base, by_content(asdict(request))], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def has(self, key: str) -> bool:
        """See :class:`Store`."""
        return self._path(key).is_file()

    def read(self, key: str) -> Tensor | None:
        """See :class:`Store`."""
        path = self._path(key)
        try:
            with path.open("rb", buffering=0) as opened:
                data = bytearray(os.fstat(opened.fileno()).st_size)
                opened.readinto(data)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s cannot be read (%s); its image is drawn again", path, error.strerror)
            self._count(2)
            return None
        image = decoded(data)
        if image is None:
            log.warning("%s is damaged; its image is drawn again", path)
        self._count(2 if image is None else 0)
        return image

    def write(self, key: str, image: Tensor) -> None:
        """See :class:`Store`."""
        if self.is_full:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(exist_ok=True)
            _write(path, encoded(image))
        except OSError as error:
            self._give_up(error)
        else:
            self._count(1)

    def discard(self, key: str) -> None:
        """See :class:`Store`."""
        with suppress(OSError):  # what cannot be removed takes space and does no other harm
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.npy"

    def _count(self, what: int) -> None:
        """Count in a row that no other worker writes."""
        info = get_worker_info()
        self._counts[0 if info is None else 1 + info.id % (_ROWS - 1), what] += 1

    def _give_up(self, error: OSError) -> None:
        self._count(3)
        log.warning("%s takes no more images (%s); what is drawn from now on is not kept", self.folder, error.strerror or error)

    def _bind(self, wanted: dict[str, Any]) -> None:
        """Make the folder this plan's, or see that it is."""
        path = self.folder / PLAN
        if not path.is_file():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if foreign := sorted(entry.name for entry in self.folder.iterdir() if not entry.name.startswith(PLAN)):
                    raise SettingError(
                        f"a cache needs an empty folder or one of its own, {self.folder} holds other things ({foreign[0]}); give another"
                    )
                _write(path, (json.dumps(wanted, indent=1, sort_keys=True) + "\n").encode())
            except OSError as error:
                if error.errno in _FULL:
                    return self._give_up(error)
                raise OutputError(f"the cache {self.folder} cannot be written ({error.strerror}); give another folder") from error
        try:  # also after writing it: another process may have been faster
            found = json.loads(path.read_text(encoding="utf-8"))
            differences = _differences(found, wanted)
        except (OSError, ValueError, AttributeError) as error:
            raise UnusableFileError(f"{path} does not say what the cache holds ({error}); delete the folder, or give another") from error
        if differences:
            raise SettingError(
                f"{self.folder} is the cache of another plan: {'; '.join(differences)}; give another folder, or delete this one"
            )
        return None


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs, in words."""
    return [
        f"{name} is {_short(there.get(name))} there and {_short(here.get(name))} here"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def by_content(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a plan or a request without what no pixel depends on, and with the contents of files for their names.

    Example:
        >>> asked = Request(prompt="a fish", seed=1, label="sound")
        >>> "label" in by_content(asdict(asked)), by_content(asdict(asked))["prompt"]
        (False, 'a fish')
    """
    kept = {name: value for name, value in settings.items() if name not in ("label", "index", "count")}
    kept["loras"] = [{**use, "path": _content(use["path"])} for use in kept["loras"]]
    kept["embeddings"] = [[Path(path).stem, _content(path)] for path in kept["embeddings"]]
    kept["controls"] = [{**use, "image": _content(use["image"])} for use in kept["controls"]]
    return {**kept, "image": _content(kept["image"]), "mask": _content(kept["mask"])}


def _content(path: str | None) -> str | None:
    """Hash of a file, or the path itself if there is none, which is for the sampler to say."""
    if path is None:
        return None
    try:
        found = os.stat(path)  # noqa: PTH116  # once per image: three times as fast as Path.stat
    except OSError:
        return path
    return _hash(path, found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=1024)
def _hash(path: str, *_: int) -> str:
    return file_hash(Path(path))[:16] if Path(path).is_file() else path
