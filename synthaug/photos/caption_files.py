"""Text files beside photos: found, read, written."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path

from synthaug.errors import OutputError, PhotoFolderError, SettingError

__all__ = ["CAPTIONS", "caption_file", "is_utf8", "read_caption", "write_caption"]

CAPTIONS = (".txt", ".caption")
"""How names of caption files end, the one that counts first."""


def caption_file(photo: Path, endings: Sequence[str] = CAPTIONS) -> Path | None:
    """The caption file of a photo, None if there is none."""
    return next((beside for ending in endings if (beside := photo.with_suffix(ending)).is_file()), None)


def read_caption(path: Path, *, every_line: bool = False, encoding: str = "") -> str:
    """First line of a caption file, or every line that says something.

    Args:
        path: The file.
        every_line: Whether to give all lines, one caption each.
        encoding: How files that are not UTF-8 are written, such as ``shift_jis``; "" refuses them.

    Raises:
        PhotoFolderError: If it says nothing or is written in another way.
        SettingError: If there is no such encoding.
    """
    lines = [line.strip() for line in _text(path, encoding).splitlines() if line.strip()]
    if not lines:
        raise PhotoFolderError(f"the caption file {path} is empty; write what the photo shows, or delete the file")
    return "\n".join(lines if every_line else lines[:1])


def is_utf8(data: bytes) -> bool:
    """Whether bytes are text in UTF-8; a zero byte is what UTF-16 has between letters."""
    try:
        return "\0" not in data.decode("utf-8")
    except UnicodeDecodeError:
        return False


def write_caption(path: Path, text: str) -> None:
    """Write a caption file in UTF-8, whole or not at all.

    Raises:
        OutputError: If that is not possible.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} could not be written ({error.strerror}); free some space, or copy the photos to another folder"
        ) from error


def _text(path: Path, encoding: str) -> str:
    data = path.read_bytes()
    if is_utf8(data):
        return data.decode("utf-8-sig")
    if not encoding:
        raise PhotoFolderError(
            f"a caption file must be UTF-8, {path} is not; save it again with that encoding, or rewrite all of them with "
            f"synthaug caption --photos {path.parent} --encoding {_guess(data)} if that is how they are written"
        )
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise SettingError(f"encoding must be one that Python knows, such as shift_jis, latin-1 or utf-16, got {encoding!r}") from None
    except UnicodeDecodeError:
        raise PhotoFolderError(
            f"{path} is neither UTF-8 nor {encoding}; try --encoding {_guess(data)}, or save it again as UTF-8"
        ) from None


def _guess(data: bytes) -> str:
    """The likeliest encoding of text that is not UTF-8: what has kana in Shift-JIS is Japanese."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in data:
        return "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        return "shift_jis" if any("\u3041" <= letter <= "\u30ff" for letter in data.decode("shift_jis")) else "latin-1"
    except UnicodeDecodeError:
        return "latin-1"
