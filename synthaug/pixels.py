"""The only place where pictures change their form.

uint8 sRGB (3, H, W) everywhere; float (B, 3, H, W) in [-1, 1] only inside training and generation.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from synthaug.errors import OutputError, UnusableFileError

__all__ = ["MAX_PIXELS", "SUFFIXES", "digest", "framed", "read_image", "save_png", "to_float", "to_uint8"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""File names that are taken for pictures."""

MAX_PIXELS = 120_000_000
"""Larger pictures are refused: a small file can unpack to more memory than there is."""


def read_image(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture upright, as sRGB, with nothing but its pixels.

    The EXIF orientation is applied, CMYK, grey, 16-bit and palette pictures are converted, an embedded
    colour profile is honoured, transparency is laid on white. No metadata (GPS, names) goes along.

    Args:
        path: A JPEG, PNG, WebP, BMP or TIFF file.
        max_pixels: Refuse larger ones before they are unpacked.

    Returns:
        uint8 (3, H, W).

    Raises:
        UnusableFileError: If the file is not a picture, is truncated, or is too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                if opened.width * opened.height > max_pixels:
                    raise UnusableFileError(
                        f"a picture may have at most {max_pixels:,} pixels, {path} says {opened.width} x {opened.height}; "
                        "make it smaller, or leave it out if you do not know it (such files are made to fill memory)"
                    )
                picture = _as_srgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        raise UnusableFileError(
            f"{path} is not a picture that can be read, whatever its name says; replace it by a JPEG, PNG, WebP, BMP or TIFF file"
        ) from None
    except Image.DecompressionBombError as error:
        raise UnusableFileError(f"{path} would unpack to too many pixels ({error}); make it smaller or leave it out") from None
    except FileNotFoundError:
        raise UnusableFileError(f"there is no file {path}; check the path") from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, UnusableFileError):
            raise
        raise UnusableFileError(f"{path} is damaged ({error}); copy it from the camera again or leave it out") from None
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _as_srgb(picture: Image.Image) -> Image.Image:
    """Convert any mode to RGB, honouring an embedded profile."""
    profile = picture.info.get("icc_profile")
    if picture.mode in ("I;16", "I;16B", "I;16L", "I"):
        picture = Image.fromarray((np.asarray(picture, np.float64) / 257).clip(0, 255).astype(np.uint8))
    if profile and picture.mode in ("RGB", "CMYK", "L"):
        try:
            return _with_profile(picture, profile)
        except ImageCms.PyCMSError:
            pass  # the profile is broken, not the picture: its plain values are used, as every viewer does
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return picture.convert("RGB")


def _with_profile(picture: Image.Image, profile: bytes) -> Image.Image:
    import io

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    out = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return out if out is not None else picture.convert("RGB")


def framed(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop the middle to the wanted shape and resize, uint8 (3, H, W) to uint8 (3, *size).

    Example:
        >>> framed(torch.zeros(3, 60, 100, dtype=torch.uint8), (32, 16)).shape
        torch.Size([3, 32, 16])
    """
    height, width = size
    _, h, w = image.shape
    scale = max(height / h, width / w)
    crop_h, crop_w = min(h, round(height / scale)), min(w, round(width / scale))
    top, left = (h - crop_h) // 2, (w - crop_w) // 2
    cut = image[:, top : top + crop_h, left : left + crop_w]
    picture = Image.fromarray(cut.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def to_float(images: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) to float32 in [-1, 1].

    Example:
        >>> to_float(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float in [-1, 1] to uint8, rounded; values outside are cut.

    Example:
        >>> to_uint8(torch.tensor([-1.5, 0.0, 1.0]))
        tensor([  0, 128, 255], dtype=torch.uint8)
    """
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def digest(image: Tensor) -> str:
    """SHA-256 of a picture's pixels and shape, uint8 (3, H, W)."""
    head = "x".join(map(str, image.shape)).encode()
    return hashlib.sha256(head + image.contiguous().numpy().tobytes()).hexdigest()


def save_png(image: Tensor, path: Path, *, text: dict[str, str] | None = None) -> None:
    """Write a picture as PNG, whole or not at all.

    Args:
        image: uint8 (3, H, W).
        path: Where to; the folder must exist.
        text: tEXt/iTXt entries, such as ``{"parameters": infotext}``.

    Raises:
        OutputError: If the disk is full or the folder cannot be written.
    """
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value) if value.isascii() else info.add_itxt(key, value)
    part = path.with_name(f".{path.name}.part")
    try:
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(part, "PNG", pnginfo=info)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path} could not be written ({error.strerror or error}); free some space or choose another folder") from error
