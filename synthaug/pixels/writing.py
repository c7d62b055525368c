"""Picture files: written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from synthaug.errors import OutputError, SettingError
from synthaug.pixels.texts import exif_of, png_info_of

__all__ = ["ImageFormat", "image_bytes", "save_image", "save_mask", "save_png"]

ImageFormat = Literal["png", "jpg", "webp"]
"""Kinds of file that images are written as: every pixel, smaller, every pixel in less space."""

LONGEST = 65_533 - 6
"""Bytes of EXIF that a JPEG has room for: the length of a segment is a 16-bit number that counts itself, then comes ``Exif\\0\\0``."""


def image_bytes(image: Tensor, kind: ImageFormat, *, text: Mapping[str, str] | None = None, quality: int = 95) -> bytes:
    """Encode a picture as a file that says how it was made.

    Args:
        image: uint8 (3, H, W).
        kind: ``png`` and ``webp`` keep every pixel; ``jpg`` is smaller, with colours as fine as lightness, because a small stain may
            differ in colour alone.
        text: Entries such as ``{"parameters": infotext}``, read back by :func:`synthaug.pixels.picture_text`. ``png`` takes any, the
            others ``parameters`` and ``synthaug``.
        quality: Of a JPEG, 1 to 95.

    Raises:
        SettingError: If the kind cannot carry the text: it has another entry, or is too long for a JPEG.

    Example:
        >>> import torch
        >>> image_bytes(torch.zeros(3, 8, 8, dtype=torch.uint8), "webp", text={"parameters": "a fish"})[8:12]
        b'WEBP'
    """
    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(out, **_settings(kind, text or {}, quality))
    return out.getvalue()


def save_image(image: Tensor, path: Path, *, text: Mapping[str, str] | None = None, quality: int = 95) -> None:
    """Write a picture as the kind of file that its name says, whole or not at all.

    Args:
        image: uint8 (3, H, W).
        path: Where to, ending in ``.png``, ``.jpg``, ``.jpeg`` or ``.webp``; the folder must exist.
        text: As in :func:`image_bytes`.
        quality: Of a JPEG, 1 to 95.

    Raises:
        SettingError: If the name ends in something else, or the kind cannot carry the text.
        OutputError: If the disk is full or the folder cannot be written.
    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise SettingError(f"a picture is written as .png, .jpg or .webp, got {path.name}; give it one of these endings")
    _save(Image.fromarray(image.permute(1, 2, 0).numpy()), path, _settings(kind, text or {}, quality))


def save_png(image: Tensor, path: Path, *, text: Mapping[str, str] | None = None) -> None:
    """Write a picture as PNG, whatever its name, whole or not at all.

    Args:
        image: uint8 (3, H, W), or (4, H, W) with transparency.
        path: Where to; the folder must exist.
        text: tEXt/iTXt entries, such as ``{"parameters": infotext}``.

    Raises:
        OutputError: If the disk is full or the folder cannot be written.
    """
    _save(Image.fromarray(image.permute(1, 2, 0).numpy()), path, _settings("png", text or {}, 95))


def save_mask(mask: Tensor, path: Path) -> None:
    """Write a mask as black and white PNG, whole or not at all.

    Args:
        mask: uint8 (H, W), 1 = defect; written as 255.
        path: Where to; the folder must exist.

    Raises:
        OutputError: If the disk is full or the folder cannot be written.
    """
    _save(Image.fromarray((mask * 255).numpy()), path, _settings("png", {}, 95))


_KINDS: dict[str, ImageFormat] = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}
"""Ending -> kind of file."""


def _settings(kind: ImageFormat, text: Mapping[str, str], quality: int) -> dict[str, Any]:
    """What Pillow is told."""
    if kind == "png":
        return {"format": "PNG", "pnginfo": png_info_of(text)}
    if unknown := sorted(set(text) - {"parameters", "synthaug"}):
        raise SettingError(f"a {kind} carries the texts parameters and synthaug, got {', '.join(unknown)}; write a PNG")
    exif = exif_of(text)
    if kind == "webp":
        return {"format": "WEBP", "lossless": True, "exif": exif}
    if len(exif.tobytes()) > LONGEST:
        raise SettingError(
            f"a JPEG has room for {LONGEST:,} bytes of text, got {len(exif.tobytes()):,}; shorten the prompt, or write a PNG"
        )
    return {"format": "JPEG", "quality": quality, "subsampling": "4:4:4", "exif": exif}


def _save(picture: Image.Image, path: Path, settings: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        picture.save(part, **settings)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # a folder that vanished or cannot be written has nothing to tidy up
            part.unlink(missing_ok=True)
        raise OutputError(f"{path} could not be written ({error.strerror or error}); free some space or choose another folder") from error
