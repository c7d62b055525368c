"""Training sets as kohya's scripts have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synthaug.errors import UnusableFileError
from synthaug.photos.buckets import Buckets
from synthaug.photos.folder import PhotoFolder, read_folder
from synthaug.photos.tags import CaptionRules

__all__ = ["SetSettings", "TrainingSet", "read_training_set"]


@dataclass(frozen=True, kw_only=True)
class SetSettings:
    """Settings of training that a file of photos carries; None where it says nothing."""

    size: tuple[int, int] | None = None
    batch_size: int | None = None
    buckets: Buckets | None = None
    flip: bool | None = None
    caption_dropout: float | None = None
    masked: bool | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Photos, what may be done to their captions, and settings that came with them."""

    photos: PhotoFolder
    regular: PhotoFolder | None
    rules: tuple[CaptionRules, ...]
    regular_rules: tuple[CaptionRules, ...]
    settings: SetSettings


def read_training_set(  # noqa: PLR0913  # the contract
    path: Path, *, caption: str, trigger: str, group: str, masks: Path | None = None, regular: Path | None = None
) -> TrainingSet:
    """Read a folder of photos or a folder tree as kohya's scripts have it.

    Raises:
        UnusableFileError: If it is a file.
        PhotoFolderError: If the folder cannot be used.
    """
    if path.is_file():
        raise UnusableFileError(f"photos must lie in a folder, {path} is a file; give the folder")
    found = read_folder(path, caption=caption, trigger=trigger, group=group, masks=masks)
    others = None if regular is None else read_folder(regular, caption=caption, trigger=trigger, fewest=1)
    return TrainingSet(
        photos=found, regular=others, rules=(CaptionRules(),) * len(found.photos),
        regular_rules=() if others is None else (CaptionRules(),) * len(others.photos), settings=SetSettings(),
    )  # fmt: skip
