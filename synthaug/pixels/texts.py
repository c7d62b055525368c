"""What a picture file says of how it was made: infotext as A1111 writes it, and JSON of ours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from PIL import ExifTags, Image, PngImagePlugin

from synthaug.errors import UnusableFileError
from synthaug.pixels.reading import FORMATS, MAX_PIXELS

__all__ = ["exif_of", "picture_text", "png_info_of"]

_UNICODE, _ASCII, _OURS = b"UNICODE\0", b"ASCII\0\0\0", b"synthaug\0"
"""How a user comment says its letters, EXIF 2.32, section 4.6.5; and how a maker's note says that it is ours."""


def picture_text(path: Path) -> dict[str, str]:
    """Texts in a picture file: ``parameters`` is infotext, ``synthaug`` the request as JSON; what is not there is left out.

    A PNG has them as text chunks, and may have more of them; a JPEG, WebP or TIFF has infotext as the user comment of its EXIF, where
    A1111 and Civitai look for it, and the JSON as the maker's note.

    Raises:
        UnusableFileError: If the file is not a picture, or cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> from synthaug.pixels import save_image
        >>> with TemporaryDirectory() as folder:
        ...     save_image(torch.zeros(3, 8, 8, dtype=torch.uint8), Path(folder) / "a.jpg", text={"parameters": "a fish"})
        ...     picture_text(Path(folder) / "a.jpg")
        {'parameters': 'a fish'}
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of metadata that it cannot read
            with Image.open(path, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise UnusableFileError(f"a picture may have at most {MAX_PIXELS:,} pixels, {path} has more; make it smaller")
                if isinstance(opened, PngImagePlugin.PngImageFile):
                    return {key: str(value) for key, value in opened.text.items()}
                return _of_exif(opened.getexif())
    except (UnusableFileError, MemoryError):
        raise
    except FileNotFoundError:
        raise UnusableFileError(f"there is no file {path}; check the path") from None
    except Exception as error:  # Pillow promises no list of what its decoders raise
        raise UnusableFileError(f"{path} is damaged ({error}); draw it again or leave it out") from error


def png_info_of(text: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    """Text chunks of a PNG: tEXt for ASCII, iTXt for the rest."""
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value) if value.isascii() else info.add_itxt(key, value)
    return info


def exif_of(text: Mapping[str, str]) -> Image.Exif:
    """EXIF with ``parameters`` as user comment and ``synthaug`` as maker's note."""
    exif = Image.Exif()
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    if text.get("parameters"):
        inner[ExifTags.Base.UserComment] = _UNICODE + text["parameters"].encode("utf-16-be")
    if text.get("synthaug"):
        inner[ExifTags.Base.MakerNote] = _OURS + text["synthaug"].encode()
    return exif


def _of_exif(exif: Image.Exif) -> dict[str, str]:
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    found = {}
    comment, note = (inner.get(tag) for tag in (ExifTags.Base.UserComment, ExifTags.Base.MakerNote))
    if isinstance(comment, bytes | str) and (words := _comment(comment)):
        found["parameters"] = words
    if isinstance(note, bytes) and note.startswith(_OURS):
        found["synthaug"] = note.removeprefix(_OURS).decode()
    return found


def _comment(value: bytes | str) -> str:
    """A user comment, whichever way its letters are written."""
    if isinstance(value, str):
        return value
    if not value.startswith(_UNICODE):
        return value.removeprefix(_ASCII).decode("utf-8", "replace").strip("\0 ")
    letters = value.removeprefix(_UNICODE)
    little = letters[1::2].count(0) > letters[::2].count(0)  # the standard leaves the order of bytes open; Latin letters show it
    return letters.decode("utf-16-le" if little else "utf-16-be", "replace").rstrip("\0")
