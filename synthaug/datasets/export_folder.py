"""A folder that an export fills: nothing leaves it, nothing of the user's is written over, a second run finds its own bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from synthaug.errors import OutputError, SettingError, UnusableFileError
from synthaug.pixels import save_mask, save_png

__all__ = ["RECORD", "ExportFolder"]

RECORD = "export.json"
"""Says what the folder is an export of; written first, so that a run that was killed can be told from other people's files."""


class ExportFolder:
    """A folder being filled; files appear whole or not at all.

    Args:
        root: Made if it is not there; empty, or begun by an export of the same.
        mark: Changes with what is exported.
        to: Layout.

    Raises:
        SettingError: If it holds something else.
        UnusableFileError: If its record cannot be read.
        OutputError: If it cannot be written.
    """

    def __init__(self, root: Path, *, mark: str, to: str) -> None:
        self.root, record = root, {"to": to, "mark": mark}
        path = root / RECORD
        self._make(root)
        if not path.is_file():
            if other := sorted(entry.name for entry in root.iterdir() if entry.name != f".{RECORD}.new"):
                raise SettingError(f"an export needs an empty folder or one of its own, {root} holds {other[0]}; choose another --out")
            self.write_text(RECORD, json.dumps(record, sort_keys=True) + "\n")
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UnusableFileError(
                f"{path} does not say what was exported ({error}); delete the folder, or choose another --out"
            ) from error
        if found != record:
            raise SettingError(
                f"{root} holds an export of other pictures, or with other settings; choose another --out, or delete the folder"
            )

    def write_image(self, name: str, image: Tensor, text: dict[str, str]) -> None:
        """Write uint8 (3, H, W) as PNG; see :meth:`write_text`."""
        self._write(name, lambda path: save_png(image, path, text=text))

    def write_mask(self, name: str, mask: Tensor) -> None:
        """Write uint8 (H, W), 1 = defect, as black and white PNG; see :meth:`write_text`."""
        self._write(name, lambda path: save_mask(mask, path))

    def write_text(self, name: str, text: str) -> None:
        """Write a file in UTF-8; one that is there already stays as it is.

        Args:
            name: Relative to the folder, with slashes.
            text: What it says.

        Raises:
            SettingError: If the file would lie outside the folder, or is there with other contents.
            OutputError: If it cannot be written.
        """
        self._write(name, lambda path: path.write_bytes(text.encode()))

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        path = self.root / name
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise SettingError(
                f"an export stays in its folder, {name!r} would leave {self.root}; give another name, or remove the link there"
            )
        self._make(path.parent)
        new = path.with_name(f".{path.name}.new")
        try:
            write(new)
            if path.exists() and path.read_bytes() != new.read_bytes():
                raise SettingError(f"{path} is there with other contents than this export has; delete it, or choose another --out")
            new.replace(path)
        except OSError as error:  # OutputError is one, too
            raise _failed(path, error) from error
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _failed(folder, error) from error


def _failed(path: Path, error: OSError) -> OutputError:
    why = error.__cause__ if isinstance(error, OutputError) else error
    words = getattr(why, "strerror", None) or why
    return OutputError(f"{path} could not be written ({words}); free some space or choose another --out, the same command then goes on")
