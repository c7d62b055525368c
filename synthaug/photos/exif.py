"""What a picture file says of itself beside its pixels: how it lies, where it was taken, in which colours.

EXIF 2.3, JEITA CP-3451C, section 4.6: https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageCms

from synthaug.errors import UnusableFileError
from synthaug.pixels import FORMATS

__all__ = ["FileFacts", "file_facts"]

_MODES = {"L": "grey", "LA": "grey", "1": "black and white", "I;16": "grey", "I": "grey", "CMYK": "CMYK", "P": "palette"}
"""Pillow's name of what is not RGB, in words."""


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a picture file says of itself."""

    colours: str = "RGB"
    """RGB, or else grey, black and white, CMYK or palette."""

    orientation: int = 1
    """EXIF orientation: 1 lies as it should, 2 to 8 are turned or mirrored when read."""

    profile: str = ""
    """Description of the embedded colour profile; "" without one, "broken" for one that cannot be read."""

    gps: bool = False
    """Whether it says where it was taken."""

    broken_exif: bool = False
    """Whether it has EXIF that cannot be read."""


def file_facts(path: Path | str) -> FileFacts:
    """Read what a picture file says of itself; its pixels are not unpacked.

    Args:
        path: A picture file.

    Raises:
        UnusableFileError: If it is not a picture.

    Example:
        >>> file_facts("/no/such/photo.jpg")
        Traceback (most recent call last):
        ...
        synthaug.errors.UnusableFileError: /no/such/photo.jpg is not a picture that can be read ...
    """
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with Image.open(path, formats=FORMATS) as opened:
                orientation, gps, read = _exif(opened)
                broken = not read or any("EXIF" in str(warning.message) for warning in said)
                profile = _profile(opened.info.get("icc_profile"))
                colours = _MODES.get(opened.mode, "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnusableFileError(f"{path} is not a picture that can be read ({error}); leave it out") from None
    return FileFacts(colours=colours, orientation=orientation, profile=profile, gps=gps, broken_exif=broken)


def _exif(opened: Image.Image) -> tuple[int, bool, bool]:
    """Orientation, whether there is a place, and whether the EXIF could be read."""
    try:
        exif = opened.getexif()
        turned, gps = exif.get(ExifTags.Base.Orientation, 1), bool(exif.get_ifd(ExifTags.IFD.GPSInfo))
    except (SyntaxError, struct.error):
        return 1, False, False
    return turned if turned in range(1, 9) else 1, gps, bool(exif) or not opened.info.get("exif")


def _profile(data: bytes | None) -> str:
    if not data:
        return ""
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(data))).strip()
    except (ImageCms.PyCMSError, OSError):
        return "broken"
