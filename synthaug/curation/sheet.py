"""A contact sheet: every picture small, the rejected ones dimmed and crossed out, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from synthaug.errors import SettingError
from synthaug.photos.lettering import font_of, plain
from synthaug.pixels import save_png
from synthaug.records import Verdict

__all__ = ["MOST", "Entry", "contact_sheet", "write_sheet"]

MOST = 400
"""More pictures than this are not shown; those that are, are spread evenly over all."""

GAP, BAR, LINE = 8, 30, 15
GROUND, INK, DIM_INK, GREEN, RED = (250, 250, 248), (30, 30, 30), (110, 110, 110), (30, 140, 60), (205, 40, 40)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture of the sheet."""

    name: str
    """Written under it, shortened if need be."""

    picture: Tensor | None
    """uint8 (3, H, W); None leaves an empty field for a file that cannot be read."""

    verdict: Verdict
    """Decides frame, cross and the words."""


def contact_sheet(entries: Sequence[Entry], *, title: str = "") -> Tensor:
    """Draw a contact sheet; equal entries give equal pixels.

    Args:
        entries: What to show, row by row; at least one, :data:`MOST` of them at most are shown.
        title: Written above, before the counts.

    Returns:
        uint8 (3, H, W).

    Raises:
        SettingError: If there are no entries.

    Example:
        >>> picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
        >>> sheet = contact_sheet([Entry(name="0", picture=picture, verdict=Verdict(keep=True))])
        >>> sheet.dtype, sheet.shape[0]
        (torch.uint8, 3)
    """
    if not entries:
        raise SettingError("a contact sheet needs at least one picture, got none; draw some images first")
    shown = entries if len(entries) <= MOST else [entries[at * len(entries) // MOST] for at in range(MOST)]
    side = 144 if len(shown) <= 60 else 112
    columns = min(len(shown), max(6, math.ceil(math.sqrt(1.4 * len(shown)))))
    rows = math.ceil(len(shown) / columns)
    field = (side + GAP, side + 3 * LINE + GAP + 4)
    head = _head(entries, len(shown), title)
    width = max(columns * field[0] + GAP, math.ceil(font_of(15).getlength(head)) + 2 * GAP)
    sheet = Image.new("RGB", (width, BAR + rows * field[1] + GAP), GROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), head, INK, font_of(15))
    for at, entry in enumerate(shown):
        _draw_entry(sheet, (GAP + at % columns * field[0], BAR + at // columns * field[1]), side, entry)
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1).contiguous()


def write_sheet(entries: Sequence[Entry], path: Path, *, title: str = "") -> None:
    """Draw a contact sheet into a PNG file.

    Raises:
        SettingError: If there are no entries.
        OutputError: If the file cannot be written.
    """
    save_png(contact_sheet(entries, title=title), path)


def _head(entries: Sequence[Entry], shown: int, title: str) -> str:
    kept = sum(entry.verdict.keep for entry in entries)
    counts = f"{kept} of {len(entries)} kept, {len(entries) - kept} crossed out"
    part = "" if shown == len(entries) else f"; {shown} of them shown"
    return plain(f"{title}: {counts}{part}" if title else f"{counts}{part}")


def _draw_entry(sheet: Image.Image, corner: tuple[int, int], side: int, entry: Entry) -> None:
    """Picture, frame or cross, and two lines of words, inside a field of the sheet."""
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    box = (left, top, left + side - 1, top + side - 1)
    keep = entry.verdict.keep
    if entry.picture is None:
        draw.rectangle(box, (225, 225, 225))
    else:
        small = _fitted(entry.picture, side)
        if not keep:
            small = Image.blend(small, Image.new("RGB", small.size, GROUND), 0.35)
        sheet.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
    if not keep:
        draw.line((left + 4, top + 4, box[2] - 4, box[3] - 4), RED, 3)
        draw.line((left + 4, box[3] - 4, box[2] - 4, top + 4), RED, 3)
    draw.rectangle(box, outline=GREEN if keep else (215, 190, 190), width=3 if keep else 1)
    score = f"typical {entry.verdict.scores['typical']:.2f}" if "typical" in entry.verdict.scores else ""
    number = font_of(12)
    room = side - number.getlength(score) - 6 if score else side
    draw.text((left, box[3] + 3), _shortened(entry.name, room, number), DIM_INK, number)
    draw.text((box[2], box[3] + 3), score, INK if keep else DIM_INK, number, anchor="ra")
    for line, words in enumerate(_two_lines(entry.verdict.reason.split(":")[0], side, number), 1):
        draw.text((left, box[3] + 3 + line * LINE), words, RED, number)


def _fitted(picture: Tensor, side: int) -> Image.Image:
    """The whole picture inside a square."""
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _shortened(text: str, room: float, font: ImageFont.FreeTypeFont) -> str:
    """The text, or as much of it as fits with "..." in the middle: both ends of a file name tell it from others."""
    text = plain(text)
    if font.getlength(text) <= room:
        return text
    for left_out in range(1, len(text)):
        keep = len(text) - left_out
        short = text[: (keep + 1) // 2] + "..." + text[len(text) - keep // 2 :]
        if font.getlength(short) <= room:
            return short
    return ""


def _two_lines(text: str, room: float, font: ImageFont.FreeTypeFont) -> list[str]:
    """As many words as fit into the first line, the others, shortened, into the second."""
    words = plain(text).split()
    count = len(words)
    while count > 1 and font.getlength(" ".join(words[:count])) > room:
        count -= 1
    lines = [" ".join(words[:count]), " ".join(words[count:])]
    return [_shortened(line, room, font) for line in lines if line]
