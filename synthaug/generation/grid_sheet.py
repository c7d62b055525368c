"""The sheet of a grid: images in rows and columns, with words above and beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from synthaug.generation.grid import Axis
from synthaug.photos.lettering import font_of, plain

__all__ = ["grid_sheet"]

GAP, LETTERS, LINE, NARROWEST, BESIDE = 6, 13, 17, 96, 150
"""Pixels: between images, height of letters and of lines, least width of a column, most width of the words beside a row."""

GROUND, INK = (250, 250, 248), (30, 30, 30)


def grid_sheet(pictures: Sequence[Tensor], axes: Sequence[Axis]) -> Tensor:
    """Lay a grid out.

    Args:
        pictures: One of each cell, uint8 (3, H, W), of any sizes, columns fastest.
        axes: Sheets, rows and columns, as :attr:`synthaug.generation.grid.Grid.axes` has them.

    Returns:
        uint8 (3, H, W).

    Example:
        >>> from synthaug.generation.grid import Grid
        >>> axes = Grid(x="steps: 5, 10", y="seed: 1-3").axes
        >>> tuple(grid_sheet([torch.zeros(3, 64, 64, dtype=torch.uint8)] * 6, axes).shape)
        (3, 233, 260)
    """
    sheets, rows, columns = axes
    wide = max(NARROWEST, *(picture.shape[2] for picture in pictures))
    tall = max(picture.shape[1] for picture in pictures)
    left = min(BESIDE, GAP + 1 + int(max(font_of(LETTERS).getlength(plain(label)) for label, _ in rows.points))) if rows.field else 0
    titles = {label: _lines(label, left + (wide + GAP) * len(columns.points) - GAP) for label, _ in sheets.points if label}
    heads = [_lines(label, wide) for label, _ in columns.points]
    head = LINE * max(map(len, heads))
    title = LINE * max(map(len, titles.values()), default=0)
    beside = {label: _lines(label, left - GAP) for label, _ in rows.points}
    row = GAP + max(tall, LINE * max(map(len, beside.values())))
    block = title + head + row * len(rows.points)
    size = (left + (wide + GAP) * len(columns.points) + GAP, (block + GAP) * len(sheets.points))
    page = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(page)
    cells = iter(pictures)
    for number, (label, _) in enumerate(sheets.points):
        top = number * (block + GAP) + GAP // 2
        _write(draw, (GAP, top), titles.get(label, []))
        for at, lines in enumerate(heads):
            _write(draw, (GAP + left + at * (wide + GAP), top + title), lines)
        for at, (name, _) in enumerate(rows.points):
            y = top + title + head + at * row
            _write(draw, (GAP, y), beside[name])
            for x in range(len(columns.points)):
                page.paste(Image.fromarray(next(cells).permute(1, 2, 0).numpy()), (GAP + left + x * (wide + GAP), y))
    return torch.from_numpy(np.array(page)).permute(2, 0, 1).contiguous()


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[str]) -> None:
    for number, line in enumerate(lines):
        draw.text((place[0], place[1] + number * LINE), line, fill=INK, font=font_of(LETTERS))


def _lines(text: str, width: int) -> list[str]:
    """Words in lines of at most so many pixels; a word that is longer is cut. No line for no words."""
    font = font_of(LETTERS)
    lines: list[str] = []
    for word in plain(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        while font.getlength(word) > width:
            keep = next(n for n in range(len(word), 0, -1) if n == 1 or font.getlength(word[:n]) <= width)
            lines.append(word[:keep])
            word = word[keep:]  # noqa: PLW2901  # what is left of it
            if not word:
                break
        lines += [word] if word else []
    return lines
