"""A bank: a folder of defects cut out of pictures, made once, composed into normal pictures many times.

``bank.json`` says how defects were screened. ``bank.jsonl`` has one line per picture: where it comes from, the cut-outs taken from it
(an RGBA picture and a mask each) and what was left out and why. A line is written when its cut-outs are on disk, so a killed run goes on
where it stopped; a line that was cut short is dropped.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from synthaug.defects.cutout import Cutout, Origin
from synthaug.errors import OutputError, SettingError, UnusableFileError
from synthaug.pixels import read_mask, read_rgba, save_mask, save_png

__all__ = ["FEWEST", "Bank", "BankFolder", "Entry"]

log = logging.getLogger(__name__)

FEWEST = 3
"""Fewer defects than this look like one another wherever they are put."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What became of one picture."""

    source: str
    """Name of its file."""

    sha256: str
    """Hash of its pixels."""

    cutouts: tuple[dict[str, Any], ...] = ()
    """File, mask and :class:`synthaug.defects.cutout.Origin` of each cut-out, as plain data."""

    dropped: tuple[str, ...] = ()
    """Why something was left out, one sentence each."""


class Bank(Sequence[Cutout]):
    """The cut-outs of a bank, read into memory; immutable, and small enough to go to DataLoader workers.

    Args:
        folder: What ``synthaug bank`` made.

    Raises:
        UnusableFileError: If there is no bank, it is empty, a file is missing or damaged, or a name leaves the folder.

    Example:
        >>> Bank("/no/such/folder")
        Traceback (most recent call last):
        ...
        synthaug.errors.UnusableFileError: there is no bank /no/such/folder; make one with synthaug bank
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not (self.folder / "bank.jsonl").is_file():
            raise UnusableFileError(f"there is no bank {folder}; make one with synthaug bank")
        rows = [row for entry in BankFolder(self.folder).entries for row in entry.cutouts]
        if not rows:
            raise UnusableFileError(f"the bank {folder} holds no cut-out; its bank.jsonl says what was left out and why")
        self._cutouts = tuple(_read(self.folder, row) for row in rows)
        if len(self) < FEWEST:
            log.warning("the bank %s holds %d defects; fewer than %d look alike wherever they are put, add more", folder, len(self), FEWEST)

    def __len__(self) -> int:
        return len(self._cutouts)

    def __getitem__(self, index: Any) -> Any:
        return self._cutouts[index]

    def __iter__(self) -> Iterator[Cutout]:
        return iter(self._cutouts)

    @property
    def hashes(self) -> frozenset[str]:
        """Hashes of all pictures that defects were cut from; none of them may be tested on."""
        return frozenset(cutout.origin.sha256 for cutout in self)

    @property
    def groups(self) -> frozenset[str]:
        """Groups of all photos that defects were cut from or drawn into; none of their photos may be tested on."""
        return frozenset(cutout.origin.group for cutout in self)

    @property
    def loras(self) -> tuple[str, ...]:
        """LoRA files that drew some of the pictures; what they have seen may not be tested on."""
        return tuple(sorted({lora for cutout in self for lora in cutout.origin.loras}))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Types of defects, sorted."""
        return tuple(sorted({cutout.origin.defect for cutout in self}))


@dataclass
class BankFolder:
    """A bank being made.

    Args:
        folder: Made if it is not there.

    Raises:
        OutputError: If the folder cannot be made.
        UnusableFileError: If a whole line cannot be read.
    """

    folder: Path
    entries: list[Entry] = field(default_factory=list, init=False)
    """One per picture, in the order they were looked at."""

    _torn_at: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder {self.folder} cannot be made ({error.strerror}); choose another one") from error
        path = self.folder / "bank.jsonl"
        whole, _, torn = path.read_bytes().rpartition(b"\n") if path.exists() else (b"", b"", b"")
        if torn:
            self._torn_at = len(whole) + 1 if whole else 0
        self.entries = [_entry(path, number, line) for number, line in enumerate(whole.split(b"\n") if whole else (), 1)]

    def settle(self, settings: dict[str, Any]) -> None:
        """Hold on to how defects are screened.

        Raises:
            SettingError: If the bank was begun otherwise.
            OutputError: If it cannot be written.
        """
        path = self.folder / "bank.json"
        if path.exists():
            begun = _json(path, path.read_bytes())
            if begun != settings:
                differs = ", ".join(
                    f"{key} was {begun.get(key)!r}, now {value!r}" for key, value in settings.items() if begun.get(key) != value
                )
                raise SettingError(f"a bank is screened in one way, {self.folder} was begun otherwise ({differs}); choose another folder")
            return
        part = path.with_name(".bank.json.part")
        try:
            part.write_text(json.dumps(settings) + "\n", encoding="utf-8")
            part.replace(path)
        except OSError as error:
            raise OutputError(f"{path} could not be written ({error.strerror}); free some space or choose another folder") from error

    def add(self, source: str, sha256: str, cutouts: Sequence[Cutout], dropped: Sequence[str]) -> None:
        """Write what was cut from a picture, then note it.

        Raises:
            OutputError: If it cannot be written; the picture then counts as not yet looked at.
        """
        rows = []
        for number, cutout in enumerate(cutouts):
            name = f"{Path(source).stem}-{sha256[:8]}-{number}"
            save_png(cutout.rgba, self.folder / f"{name}.png")
            save_mask(cutout.mask, self.folder / f"{name}.mask.png")
            rows.append({"file": f"{name}.png", "mask": f"{name}.mask.png", **json.loads(json.dumps(asdict(cutout.origin)))})
        self._append(Entry(source=source, sha256=sha256, cutouts=tuple(rows), dropped=tuple(dropped)))

    def _append(self, entry: Entry) -> None:
        path = self.folder / "bank.jsonl"
        try:
            with path.open("ab") as out:
                if self._torn_at is not None:
                    out.truncate(self._torn_at)
                self._torn_at = out.seek(0, os.SEEK_END)  # until the whole line is on disk
                out.write(json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n")
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise OutputError(f"{path} could not be written ({error.strerror}); free some space") from error
        self._torn_at = None
        self.entries.append(entry)


def _json(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UnusableFileError(f"{path} cannot be read ({error}); make the bank again in another folder") from error


def _entry(path: Path, number: int, line: bytes) -> Entry:
    try:
        data = json.loads(line)
        return Entry(source=data["source"], sha256=data["sha256"], cutouts=tuple(data["cutouts"]), dropped=tuple(data["dropped"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableFileError(f"{path}, line {number} is no picture of a bank ({error!r}); delete the line to go on") from error


def _read(folder: Path, row: dict[str, Any]) -> Cutout:
    """A cut-out from disk; whatever is wrong with it is said in a sentence."""
    try:
        names = row["file"], row["mask"]
        kept: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in row.items() if key not in ("file", "mask")
        }
        origin = Origin(**kept)
    except (KeyError, TypeError) as error:
        raise UnusableFileError(
            f"{folder / 'bank.jsonl'} has a cut-out that cannot be read ({error!r}); delete its line to go on"
        ) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or "\\" in name:
            raise UnusableFileError(f"files of a bank lie in its folder, {folder / 'bank.jsonl'} names {name!r}; delete its line to go on")
    rgba, mask = read_rgba(folder / names[0]), read_mask(folder / names[1])
    if rgba.shape[1:] != mask.shape or not mask.any() or not (rgba[3] > 0).any():
        raise UnusableFileError(
            f"{folder / names[1]} is no mask of {names[0]}: it is empty or has another size; delete the line in bank.jsonl and run "
            "synthaug bank again"
        )
    return Cutout(rgba=rgba, mask=mask, origin=origin)
