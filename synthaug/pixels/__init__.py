"""The only place where pictures change their form.

uint8 sRGB (3, H, W) everywhere; float (B, 3, H, W) in [-1, 1] only inside training and generation.
"""

from synthaug.pixels.framing import digest, framed, framed_mask, to_float, to_uint8
from synthaug.pixels.reading import FORMATS, MAX_PIXELS, SUFFIXES, picture_size, read_alpha, read_image, read_mask, read_rgba
from synthaug.pixels.texts import picture_text
from synthaug.pixels.writing import ImageFormat, image_bytes, save_image, save_mask, save_png

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "ImageFormat",
    "digest",
    "framed",
    "framed_mask",
    "image_bytes",
    "picture_size",
    "picture_text",
    "read_alpha",
    "read_image",
    "read_mask",
    "read_rgba",
    "save_image",
    "save_mask",
    "save_png",
    "to_float",
    "to_uint8",
]
