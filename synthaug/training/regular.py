"""Regularisation pictures: what the base knows already and should not forget while it learns.

Prior preservation: Ruiz et al. 2023 (DreamBooth), section 3.2, https://arxiv.org/abs/2208.12242.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Protocol

from synthaug.errors import SettingError, require

__all__ = ["DrawRegular", "check_regular", "share_of"]


class DrawRegular(Protocol):
    """Draws regularisation pictures; ``synthaug.generation.RegularImages`` is one. Training does not import drawing."""

    def draw_regular(self, base: str, *, caption: str, count: int, size: tuple[int, int], seed: int, mark: str, cache: Path) -> Path:
        """Draw pictures with the bare base, once.

        Args:
            base: The base.
            caption: What to draw.
            count: How many.
            size: Height and width.
            seed: Of the first noise.
            mark: Changes whenever the base does.
            cache: Folder for such folders; one that holds these very pictures is not drawn again.

        Returns:
            The folder they lie in, which holds nothing else.
        """


def check_regular(
    folder: Path | None, *, share: float | None, count: int, caption: str, drawer: DrawRegular | None, cache: str, from_file: bool
) -> None:
    """Refuse settings of regularisation pictures that contradict each other.

    Args:
        folder: Where they lie.
        share: Share of them in all batches.
        count: How many to draw.
        caption: What to draw.
        drawer: What draws.
        cache: Where drawn ones go.
        from_file: Whether there may be some in the file that describes the photos.

    Raises:
        SettingError: If they do.
    """
    require({
        "regular_share must be from 0 to below 1; 0.5 shows as many as photos": (share is None or 0 <= share < 1, share),
        "regular_count must be 0 pictures or more": (count >= 0, count),
    })  # fmt: skip
    if share and folder is None and not count and not from_file:
        raise SettingError(f"regular_share ({share}) needs regularisation pictures; give --data.regular FOLDER, or --data.regular_count")
    if count and folder is not None:
        raise SettingError(
            f"regularisation pictures are read or drawn, not both; leave out --data.regular {folder}, or --data.regular_count {count}"
        )
    if count and not caption:
        raise SettingError(f"regular_count ({count}) needs words to draw from; give --data.regular_caption, such as 'a photo of a fish'")
    if count and drawer is None:
        raise SettingError(f"regular_count ({count}) needs something that draws; give --data.drawer synthaug.generation.RegularImages")
    if count and cache == "none":
        raise SettingError(f"pictures that are drawn ({count}) need a place; give --data.cache a folder, or leave it out")


def share_of(share: float | None, count: int) -> Fraction:
    """The share as an exact number: half by default, none without pictures.

    Example:
        >>> share_of(None, 7), share_of(0.1, 7), share_of(0.1, 0)
        (Fraction(1, 2), Fraction(1, 10), Fraction(0, 1))
    """
    if not count:
        return Fraction(0)
    return Fraction(1, 2) if share is None else Fraction(str(share))
