"""Read a folder of photos: which can be used, which cannot and why, what each shows."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from synthaug.errors import PhotoFolderError, SettingError, UnusableFileError
from synthaug.photos.caption_files import CAPTIONS, caption_file, read_caption
from synthaug.photos.listed import listed_groups
from synthaug.pixels import SUFFIXES, digest, framed, read_alpha, read_image
from synthaug.records import Photo
from synthaug.seeds import seed_for
from synthaug.templates import fill

__all__ = [
    "FEWEST", "PhotoFolder", "Source", "grouped", "load_pictures", "photo_files", "read_caption", "read_folder", "read_sources",
    "sources_of",
]  # fmt: skip

log = logging.getLogger(__name__)
OTHERS = (".heic", ".heif", ".avif", ".jxl", ".gif", ".dng", ".cr2", ".nef", ".arw")
"""File names of pictures that are not read; they are named and counted instead of overlooked."""

FEWEST = 5
"""Fewer photos than this teach a LoRA nothing but themselves."""


@dataclass(frozen=True, kw_only=True)
class PhotoFolder:
    """What was found in a folder."""

    photos: tuple[Photo, ...]
    """Photos that can be used, by name."""

    skipped: tuple[tuple[Path, str], ...]
    """Files that look like photos but cannot be used, with the reason."""

    repeats: tuple[int, ...] = ()
    """How often each photo is shown against the others; () shows all equally often."""

    @property
    def captions(self) -> tuple[str, ...]:
        """Every caption, in the photos' order."""
        return tuple(photo.caption for photo in self.photos)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A folder whose photos are all read in one way."""

    folder: Path
    """Where they lie; sub-folders are left out."""

    repeats: int = 1
    """How often each is shown against those of other folders."""

    words: str = ""
    """Caption of photos without a text file; "" takes the template."""

    label: str = ""
    """Goes before the groups, so that equal names in two folders are two parts; "" for a folder on its own."""

    endings: tuple[str, ...] = CAPTIONS
    """How names of caption files end; the first file that is there counts."""

    every_line: bool = False
    """Whether all lines of a caption file are read, not the first alone."""

    masks: Path | None = None
    """Folder of masks; the sub-folder ``mask`` when left out."""

    see_through: bool = False
    """Whether the photos carry their masks in themselves: what can be seen through is outside."""


def read_folder(
    folder: Path | str,
    *,
    caption: str = "a photo of {trigger}",
    trigger: str = "",
    group: str = "",
    masks: Path | None = None,
    fewest: int = FEWEST,
) -> PhotoFolder:
    """Look through a folder of photos; EXIF (GPS too) is left behind.

    Sub-folders are left out, unless all photos lie in some that are named as kohya's scripts have it: ``10_iriko fish``
    shows its photos ten times as often as ``1_...`` does, and photos without a text file are captioned ``iriko fish``.

    A photo's caption is the first line of the text file beside it (``photo.txt`` or ``photo.caption``),
    or else the template. A picture with the photo's name in the folder of masks is its mask.

    Args:
        folder: Where the photos lie.
        caption: Template for photos without a text file; ``{trigger}`` stands for the trigger word.
        trigger: The word that will bring out what is learned.
        group: How to find a photo's group in its file name: ``"-1"`` cuts off the last part after an
            underscore, ``"-2"`` the last two, and so on; "" takes the groups that ``synthaug prepare`` listed in the
            folder's ``photos.json``, so that variants of one photo share one, and puts every other photo in a group of its own.
        masks: Folder of masks; the sub-folder ``mask`` when left out.
        fewest: Refuse folders with fewer usable photos.

    Returns:
        Photos and what was skipped; each skipped file is also logged as a warning.

    Raises:
        PhotoFolderError: If there is no folder, no photo, too few can be used, or a caption is empty.
        SettingError: If the template has an unknown placeholder, or the group rule is no number.

    Example:
        >>> read_folder("/no/such/folder")
        Traceback (most recent call last):
        ...
        synthaug.errors.PhotoFolderError: there is no folder /no/such/folder; give the folder your photos lie in
    """
    folder = Path(folder)
    if masks is not None and folder.is_dir() and not masks.is_dir():
        raise PhotoFolderError(f"there is no folder {masks}; give the folder the masks lie in, or leave it out")
    sources = [replace(source, masks=masks) for source in sources_of(folder)]
    return read_sources(sources, place=folder, caption=caption, trigger=trigger, group=group, fewest=fewest)


def sources_of(folder: Path) -> list[Source]:
    """The folder itself, or sub-folders of it that are named as kohya's scripts have it, when all photos lie in such.

    Raises:
        PhotoFolderError: If there is no such folder.
    """
    if not folder.is_dir():
        raise PhotoFolderError(f"there is no folder {folder}; give the folder your photos lie in")
    named = [] if photo_files(folder) else [source for sub in sorted(folder.iterdir()) if sub.is_dir() and (source := _concept(sub))]
    return named or [Source(folder=folder)]


def _concept(folder: Path) -> Source | None:
    """A folder whose name gives repeats and class words, such as ``10_iriko fish``; None for others, as in kohya's scripts."""
    found = re.match(r"(\d+)_(.+)$", folder.name)
    if found is None or int(found[1]) == 0:
        return None
    return Source(folder=folder, repeats=int(found[1]), words=found[2].strip(), label=folder.name)


def read_sources(sources: Sequence[Source], *, place: Path, caption: str, trigger: str, group: str, fewest: int = FEWEST) -> PhotoFolder:
    """Look through several folders of photos, in their order.

    Args:
        sources: The folders and how to read them.
        place: What to call them all in messages.
        caption: As in :func:`read_folder`, as the others.
        trigger: The word that will bring out what is learned.
        group: As in :func:`read_folder`.
        fewest: Refuse fewer usable photos than this.

    Raises:
        PhotoFolderError: If there is no photo, too few can be used, or a caption is empty.
        SettingError: If the template has an unknown placeholder, or the group rule is no number.
    """
    files = [(path, source, part) for source in sources for path, part in grouped(source, group)]
    if not files:
        raise PhotoFolderError(f"{place} holds no photo ({', '.join(SUFFIXES)}); put at least {fewest} there, 20 are better")
    photos, skipped, repeats = [], [], []
    for path, source, part in files:
        try:
            image = _read(path)
        except UnusableFileError as error:
            log.warning("skipped %s: %s", path.name, error)
            skipped.append((path, str(error)))
            continue
        text = _caption(path, source, caption, trigger)
        photos.append(Photo(path=path, caption=text, sha256=digest(image), group=part, mask=_mask(path, source)))
        repeats.append(source.repeats)
    if len(photos) < fewest:
        lost = f"; {len(skipped)} more could not be used, the first: {skipped[0][1]}" if skipped else ""
        raise PhotoFolderError(f"at least {fewest} usable photos are needed, {place} holds {len(photos)}{lost}; add photos, 20 are better")
    if skipped:
        log.warning("%d of %d photos were skipped", len(skipped), len(files))
    plain = len(sources) == 1 and sources[0].repeats == 1 and not sources[0].label
    return PhotoFolder(photos=tuple(photos), skipped=tuple(skipped), repeats=() if plain else tuple(repeats))


def photo_files(folder: Path) -> list[Path]:
    """Everything in a folder that looks like a photo, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (*SUFFIXES, *OTHERS) and not path.name.startswith("."))


def grouped(source: Source, rule: str) -> list[tuple[Path, str]]:
    """Everything in a folder that looks like a photo, sorted, with its group; no picture is opened.

    Args:
        source: The folder.
        rule: As in :func:`read_folder`; the folder's list counts only without one.

    Raises:
        SettingError: If the group rule is no number.
    """
    listed = {} if rule else listed_groups(source.folder)
    label = f"{source.label}/" if source.label else ""
    return [(path, label + (listed.get(path.name) or _group(path, rule))) for path in photo_files(source.folder)]


def load_pictures(photos: tuple[Photo, ...], size: tuple[int, int]) -> Tensor:
    """Pictures of photos, cropped to the middle and resized: uint8 (N, 3, *size)."""
    return torch.stack([framed(read_image(photo.path), size) for photo in photos])


def _read(path: Path) -> Tensor:
    if path.suffix.lower() in OTHERS:
        raise UnusableFileError(f"{path} is of a kind that is not read; export it as JPEG, PNG, WebP, BMP or TIFF")
    return read_image(path)


def _caption(path: Path, source: Source, template: str, trigger: str) -> str:
    """What the caption file beside a photo says, or the template.

    Raises:
        PhotoFolderError: If the file is there but says nothing, or there is neither file nor template.
    """
    if (beside := caption_file(path, source.endings)) is not None:
        return read_caption(beside, every_line=source.every_line)
    template = source.words or template
    if "{trigger}" in template and not trigger:
        raise PhotoFolderError(f"{path.name} has no caption, and the template {template!r} needs a trigger word; give one, such as iriko")
    text = fill(template, {"trigger": trigger}, seed=seed_for(0, "caption", path.stem))
    if not text:
        raise PhotoFolderError(f"{path.name} has no caption; write {path.stem}.txt beside it or give a caption template")
    return text


def _group(path: Path, rule: str) -> str:
    try:
        cut = int(rule) if rule else 0
    except ValueError:
        raise SettingError(f'a group rule is how many parts to cut off a file name, such as "-1", got {rule!r}') from None
    return "_".join(path.stem.split("_")[:cut]) or path.stem


def _mask(path: Path, source: Source) -> Path | None:
    if source.see_through:
        return path if read_alpha(path) is not None else None
    found = [(source.masks or path.parent / "mask") / f"{path.stem}{suffix}" for suffix in (".png", *SUFFIXES)]
    return next((mask for mask in found if mask.is_file()), None)
