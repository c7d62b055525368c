"""Picture files: read safely, upright, as sRGB."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from synthaug.errors import UnusableFileError

__all__ = ["FORMATS", "MAX_PIXELS", "SUFFIXES", "picture_size", "read_alpha", "read_image", "read_mask", "read_rgba"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""File names that are taken for pictures."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""What may be inside (multi-picture JPEGs count as JPEG); Pillow would otherwise also run a PostScript file that calls itself a photo."""

MAX_PIXELS = 120_000_000
"""Larger pictures are refused: a small file can unpack to more memory than there is."""


def read_image(path: Path | str, *, data: bytes | None = None, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture upright, as sRGB, with nothing but its pixels.

    The EXIF orientation is applied, CMYK, grey, 16-bit and palette pictures are converted, an embedded
    colour profile is honoured, transparency is laid on white. No metadata (GPS, names) goes along.

    Args:
        path: A JPEG, PNG, WebP, BMP or TIFF file.
        data: The file's bytes, when they lie elsewhere, such as in a tar; ``path`` then only names them in messages.
        max_pixels: Refuse larger ones before they are unpacked.

    Returns:
        uint8 (3, H, W).

    Raises:
        UnusableFileError: If the file is not a picture, is truncated, or is too large.
    """
    picture = _as_srgb(_decoded(path, data, max_pixels))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def picture_size(path: Path | str) -> tuple[int, int]:
    """Height and width of a picture as :func:`read_image` would give it, from the head of its file.

    Raises:
        UnusableFileError: If the file is not a picture.
    """
    try:
        with Image.open(path, formats=FORMATS) as opened:
            lying = opened.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return (opened.width, opened.height) if lying else (opened.height, opened.width)
    except (OSError, SyntaxError, ValueError) as error:
        raise UnusableFileError(f"{path} is damaged ({error}); copy it from the camera again or leave it out") from None


def read_mask(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture of a mask upright: what is brighter than mid-grey is defect, or, where it can be seen through, what cannot be.

    Args:
        path: A picture file, best a black and white PNG.
        max_pixels: Refuse larger ones before they are unpacked.

    Returns:
        uint8 (H, W), 1 = defect.

    Raises:
        UnusableFileError: If the file is not a picture, is truncated, or is too large.
    """
    solid = read_alpha(path, max_pixels=max_pixels)
    return (read_image(path, max_pixels=max_pixels).float().mean(0) > 127.5).to(torch.uint8) if solid is None else solid


def read_alpha(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Tensor | None:
    """Where a picture cannot be seen through: uint8 (H, W), 1 = solid; None if that is everywhere.

    Arguments and errors are those of :func:`read_mask`.
    """
    picture = _decoded(path, None, max_pixels)
    if "A" not in picture.mode and "transparency" not in picture.info:
        return None
    solid = torch.from_numpy(np.array(picture.convert("RGBA").getchannel("A"))) > 127
    return None if solid.all() else solid.to(torch.uint8)


def read_rgba(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture upright with its transparency, colours kept where nothing can be seen.

    Returns:
        uint8 (4, H, W); the last plane is 255 where the picture is solid.

    Raises:
        UnusableFileError: If the file is not a picture, is truncated, or is too large.
    """
    picture = _decoded(path, None, max_pixels).convert("RGBA")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _decoded(path: Path | str, data: bytes | None, max_pixels: int) -> Image.Image:
    """A picture file, decoded and upright; whatever is wrong with the file is said in a sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of metadata that it cannot read and of bombs; both are dealt with here
            with Image.open(path if data is None else io.BytesIO(data), formats=FORMATS) as opened:
                if opened.width * opened.height > max_pixels:
                    raise UnusableFileError(
                        f"a picture may have at most {max_pixels:,} pixels, {path} says {opened.width} x {opened.height}; "
                        "make it smaller, or leave it out if you do not know it (such files are made to fill memory)"
                    )
                opened.load()
                return _upright(opened)
    except (UnusableFileError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnusableFileError(
            f"{path} is not a picture that can be read, whatever its name says; replace it by a JPEG, PNG, WebP, BMP or TIFF file"
        ) from None
    except Image.DecompressionBombError as error:
        raise UnusableFileError(f"{path} would unpack to too many pixels ({error}); make it smaller or leave it out") from None
    except FileNotFoundError:
        raise UnusableFileError(f"there is no file {path}; check the path") from None
    except Exception as error:  # Pillow promises no list of what its decoders raise
        raise UnusableFileError(f"{path} is damaged ({error}); copy it from the camera again or leave it out") from error


def _upright(opened: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(opened)
    except (SyntaxError, struct.error):  # the EXIF is broken, not the picture: it stays as it lies, as in every viewer
        return opened.copy()


def _as_srgb(picture: Image.Image) -> Image.Image:
    """Convert any mode to RGB, honouring an embedded profile."""
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture, np.float64) / 257).clip(0, 255).round().astype(np.uint8))
    if picture.mode == "P" or "A" in picture.mode or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if profile and picture.mode in ("RGB", "CMYK", "L"):
        try:
            return _with_profile(picture, profile)
        except (ImageCms.PyCMSError, OSError):
            pass  # the profile is broken, not the picture: its plain values are used, as every viewer does
    return picture.convert("RGB")


def _with_profile(picture: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    out = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return out if out is not None else picture.convert("RGB")
