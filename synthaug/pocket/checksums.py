"""The hashes of pocket's weights stand in its card; what is loaded must have them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from synthaug.errors import UnusableFileError

__all__ = ["CARD", "check_weights", "hashes_in", "write_hashes"]

CARD = Path(__file__).parent / "CARD.md"
"""What pocket is, how it was trained, what it can do."""

_ROW = re.compile(r"^\| `([\w/.-]+)` \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def hashes_in(card: Path = CARD) -> dict[str, str]:
    """File within the weights' folder -> SHA-256, as the card states them."""
    return dict(_ROW.findall(card.read_text(encoding="utf-8")))


def check_weights(weights: Path, parts: Iterable[str], card: Path = CARD) -> None:
    """Compare weight files with the card.

    Args:
        weights: Folder of the weights, in diffusers' layout.
        parts: Folders within it, such as ``unet``.
        card: Where the hashes stand.

    Raises:
        UnusableFileError: If a file is missing or is not the one of the card.
    """
    for name, expected in hashes_in(card).items():
        if name.split("/")[0] not in parts:
            continue
        file = weights / name
        if not file.exists() or _sha256(file) != expected:
            found = "is damaged" if file.exists() else "is missing"
            raise UnusableFileError(
                f"pocket's weights must be those of its card, {file} {found}; reinstall synthaug (pip install --force-reinstall synthaug)"
            )


def write_hashes(weights: Path, card: Path = CARD, *, more: Iterable[str] = ()) -> None:
    """Bring the hashes in the card up to date with the weights' folder.

    Args:
        weights: Folder of the weights.
        card: Where the hashes stand.
        more: Files that the card must name, too; they are added after the last one.
    """
    text = card.read_text(encoding="utf-8")
    for name in more:
        if name not in hashes_in(card):
            *_, last = _ROW.finditer(text)
            text = f"{text[: last.end()]}\n| `{name}` | `{'0' * 64}` |{text[last.end() :]}"
            card.write_text(text, encoding="utf-8")
    for name in hashes_in(card):
        text = re.sub(rf"(\| `{re.escape(name)}` \| `)[0-9a-f]{{64}}", rf"\g<1>{_sha256(weights / name)}", text)
    card.write_text(text, encoding="utf-8")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
