"""Letters on contact sheets."""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageFont

__all__ = ["font_of", "plain"]


def plain(text: str) -> str:
    """Letters that the built-in font has; others become a question mark.

    Example:
        >>> plain("いりこ, 3 cm")
        '???, 3 cm'
    """
    return text.encode("latin-1", "replace").decode("latin-1")


@lru_cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """The built-in font at a size in pixels."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
