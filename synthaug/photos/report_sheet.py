"""A contact sheet of photos, each with what is wrong with it in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from synthaug.photos.lettering import font_of, plain
from synthaug.pixels import save_png

__all__ = ["SIDE", "Field", "draw_sheet"]

SIDE = 176
"""Side of a photo on the sheet, in pixels."""

GAP, BAR, LINE, LINES = 10, 30, 14, 5
GROUND, INK, PALE, GREEN, AMBER = (250, 250, 248), (40, 40, 40), (225, 225, 225), (30, 140, 60), (190, 90, 0)


@dataclass(frozen=True, kw_only=True)
class Field:
    """One photo of the sheet."""

    name: str
    """Written under it, shortened if need be."""

    picture: Tensor | None
    """uint8 (3, h, w), at most :data:`SIDE` on each side; None for a file that cannot be used."""

    words: Sequence[str]
    """What is wrong; nothing gives a green frame."""


def draw_sheet(fields: Sequence[Field], path: Path, *, title: str) -> None:
    """Draw a sheet into a PNG file; equal fields give equal pixels.

    Args:
        fields: What to show, row by row, at least one.
        path: Where to; the folder must exist.
        title: Written above.

    Raises:
        OutputError: If the file cannot be written.
    """
    columns = min(len(fields), max(4, math.ceil(math.sqrt(1.3 * len(fields)))))
    rows = math.ceil(len(fields) / columns)
    height = SIDE + (1 + LINES) * LINE + GAP
    wide = max(columns * (SIDE + GAP) + GAP, 2 * GAP + math.ceil(font_of(15).getlength(title)))
    sheet = Image.new("RGB", (wide, BAR + rows * height + GAP), GROUND)
    ImageDraw.Draw(sheet).text((GAP, GAP - 2), title, INK, font_of(15))
    for at, field in enumerate(fields):
        _draw(sheet, (GAP + at % columns * (SIDE + GAP), BAR + at // columns * height), field)
    save_png(torch.from_numpy(np.array(sheet)).permute(2, 0, 1).contiguous(), path)


def _draw(sheet: Image.Image, corner: tuple[int, int], field: Field) -> None:
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    box = (left, top, left + SIDE - 1, top + SIDE - 1)
    draw.rectangle(box, PALE)
    if field.picture is not None:
        picture = Image.fromarray(field.picture.permute(1, 2, 0).numpy())
        sheet.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
    draw.rectangle(box, outline=AMBER if field.words else GREEN, width=2)
    font = font_of(11)
    draw.text((left, box[3] + 2), _shortened(plain(field.name), font), INK, font)
    lines = [line for words in field.words for line in _wrapped(plain(words), font)]
    for at, line in enumerate(lines[:LINES]):
        draw.text((left, box[3] + 2 + (1 + at) * LINE), line + (" ..." if at == LINES - 1 < len(lines) - 1 else ""), AMBER, font)


def _wrapped(text: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """The text in lines that fit below a photo, a dash before the first."""
    lines = ["-"]
    for word in text.split():
        if font.getlength(f"{lines[-1]} {word}") > SIDE and lines[-1] != "-":
            lines.append(" ")
        lines[-1] += f" {_shortened(word, font)}"
    return lines


def _shortened(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The text, or its two ends, which tell a file name from others."""
    keep = len(text)
    short = text
    while font.getlength(short) > SIDE - 12 and keep > 2:
        keep -= 1
        short = f"{text[: (keep + 1) // 2]}...{text[len(text) - keep // 2 :]}"
    return short
