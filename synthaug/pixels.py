"""The only place where pictures change their form.

uint8 sRGB (3, H, W) everywhere; float (B, 3, H, W) in [-1, 1] only inside training and generation.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from synthaug.errors import OutputError, UnusableFileError

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "digest",
    "framed",
    "framed_mask",
    "jpeg_bytes",
    "picture_size",
    "png_text",
    "read_alpha",
    "read_image",
    "read_mask",
    "save_png",
    "to_float",
    "to_uint8",
]

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


def framed(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop the middle to the wanted shape and resize, uint8 (3, H, W) to uint8 (3, *size).

    Example:
        >>> framed(torch.zeros(3, 60, 100, dtype=torch.uint8), (32, 16)).shape
        torch.Size([3, 32, 16])
    """
    picture = Image.fromarray(_middle(image, size).permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def framed_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop and resize a mask as :func:`framed` does its picture, uint8 (H, W) to uint8 (*size), still 0 and 1.

    Example:
        >>> framed_mask(torch.ones(60, 100, dtype=torch.uint8), (32, 16)).unique().tolist()
        [1]
    """
    picture = Image.fromarray(_middle(mask, size).numpy()).resize(size[::-1], Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(picture))


def _middle(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest part (..., h, w) in the middle that has the shape of ``size``."""
    height, width = size
    h, w = image.shape[-2:]
    scale = max(height / h, width / w)
    crop_h, crop_w = max(1, min(h, round(height / scale))), max(1, min(w, round(width / scale)))
    top, left = (h - crop_h) // 2, (w - crop_w) // 2
    return image[..., top : top + crop_h, left : left + crop_w].contiguous()


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


def jpeg_bytes(image: Tensor, *, comment: str = "", quality: int = 95) -> bytes:
    """Encode a picture as JPEG, with colours as fine as lightness: a small stain may differ in colour alone.

    Args:
        image: uint8 (3, H, W).
        comment: EXIF user comment, where A1111 and Civitai look for infotext in a JPEG.
        quality: 1 to 95.

    Example:
        >>> jpeg_bytes(torch.zeros(3, 8, 8, dtype=torch.uint8))[:2].hex()
        'ffd8'
    """
    exif = Image.Exif()
    if comment:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + comment.encode("utf-16-be")
    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(out, "JPEG", quality=quality, subsampling="4:4:4", exif=exif)
    return out.getvalue()


def png_text(path: Path) -> dict[str, str]:
    """Text entries of a PNG, such as ``parameters``; none for other files.

    Raises:
        UnusableFileError: If it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            return {key: str(value) for key, value in getattr(opened, "text", {}).items()}
    except (OSError, SyntaxError, ValueError) as error:
        raise UnusableFileError(f"{path} is damaged ({error}); draw it again or leave it out") from None


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
    _save(Image.fromarray(image.permute(1, 2, 0).numpy()), path, info)


def save_mask(mask: Tensor, path: Path) -> None:
    """Write a mask as black and white PNG, whole or not at all.

    Args:
        mask: uint8 (H, W), 1 = defect; written as 255.
        path: Where to; the folder must exist.

    Raises:
        OutputError: If the disk is full or the folder cannot be written.
    """
    _save(Image.fromarray((mask * 255).numpy()), path, None)


def _save(picture: Image.Image, path: Path, info: PngImagePlugin.PngInfo | None) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        picture.save(part, "PNG", pnginfo=info)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # a folder that vanished or cannot be written has nothing to tidy up
            part.unlink(missing_ok=True)
        raise OutputError(f"{path} could not be written ({error.strerror or error}); free some space or choose another folder") from error
