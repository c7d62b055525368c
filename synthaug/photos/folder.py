"""Read a folder of photos: which can be used, which cannot and why, what each shows."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from synthaug.errors import PhotoFolderError, SettingError, UnusableFileError
from synthaug.pixels import SUFFIXES, digest, framed, read_image
from synthaug.records import Photo
from synthaug.seeds import seed_for
from synthaug.templates import fill

__all__ = ["FEWEST", "PhotoFolder", "load_pictures", "read_caption", "read_folder"]

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
            underscore, ``"-2"`` the last two, and so on; "" puts every photo in a group of its own.
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
    if not folder.is_dir():
        raise PhotoFolderError(f"there is no folder {folder}; give the folder your photos lie in")
    if masks is not None and not masks.is_dir():
        raise PhotoFolderError(f"there is no folder {masks}; give the folder the masks lie in, or leave it out")
    files = _files(folder)
    concepts = {} if files else _concepts(folder)
    files = files or [path for sub in concepts for path in _files(sub)]
    if not files:
        raise PhotoFolderError(f"{folder} holds no photo ({', '.join(SUFFIXES)}); put at least {fewest} there, 20 are better")
    photos, skipped, repeats = [], [], []
    for path in files:
        try:
            image = _read(path)
        except UnusableFileError as error:
            log.warning("skipped %s: %s", path.name, error)
            skipped.append((path, str(error)))
            continue
        times, words = concepts.get(path.parent, (1, ""))
        text = _caption(path, words or caption, trigger)
        part = f"{path.parent.name}/{_group(path, group)}" if concepts else _group(path, group)
        photos.append(Photo(path=path, caption=text, sha256=digest(image), group=part, mask=_mask(path, masks)))
        repeats.append(times)
    if len(photos) < fewest:
        lost = f"; {len(skipped)} more could not be used, the first: {skipped[0][1]}" if skipped else ""
        raise PhotoFolderError(f"at least {fewest} usable photos are needed, {folder} holds {len(photos)}{lost}; add photos, 20 are better")
    if skipped:
        log.warning("%d of %d photos were skipped", len(skipped), len(files))
    return PhotoFolder(photos=tuple(photos), skipped=tuple(skipped), repeats=tuple(repeats) if concepts else ())


def _files(folder: Path) -> list[Path]:
    """Everything in a folder that looks like a photo, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (*SUFFIXES, *OTHERS) and not path.name.startswith("."))


def _concepts(folder: Path) -> dict[Path, tuple[int, str]]:
    """Sub-folders named as kohya's scripts have it -> repeats and class words; others are left out, as there."""
    named = {sub: re.match(r"(\d+)_(.+)$", sub.name) for sub in sorted(folder.iterdir()) if sub.is_dir()}
    return {sub: (int(found[1]), found[2].strip()) for sub, found in named.items() if found and int(found[1]) > 0}


def load_pictures(photos: tuple[Photo, ...], size: tuple[int, int]) -> Tensor:
    """Pictures of photos, cropped to the middle and resized: uint8 (N, 3, *size)."""
    return torch.stack([framed(read_image(photo.path), size) for photo in photos])


def _read(path: Path) -> Tensor:
    if path.suffix.lower() in OTHERS:
        raise UnusableFileError(f"{path} is of a kind that is not read; export it as JPEG, PNG, WebP, BMP or TIFF")
    return read_image(path)


def _caption(path: Path, template: str, trigger: str) -> str:
    """First line of the caption file beside a photo, or the template.

    Raises:
        PhotoFolderError: If the file is there but says nothing, or there is neither file nor template.
    """
    for suffix in (".txt", ".caption"):
        beside = path.with_suffix(suffix)
        if beside.is_file():
            return read_caption(beside)
    if "{trigger}" in template and not trigger:
        raise PhotoFolderError(f"{path.name} has no caption, and the template {template!r} needs a trigger word; give one, such as iriko")
    text = fill(template, {"trigger": trigger}, seed=seed_for(0, "caption", path.stem))
    if not text:
        raise PhotoFolderError(f"{path.name} has no caption; write {path.stem}.txt beside it or give a caption template")
    return text


def read_caption(path: Path) -> str:
    """First line of a caption file.

    Raises:
        PhotoFolderError: If it says nothing or is not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").strip().splitlines()
    except UnicodeDecodeError:
        raise PhotoFolderError(f"a caption file must be UTF-8, {path} is not; save it again with that encoding") from None
    if not lines:
        raise PhotoFolderError(f"the caption file {path} is empty; write what the photo shows, or delete the file")
    return lines[0].strip()


def _group(path: Path, rule: str) -> str:
    try:
        cut = int(rule) if rule else 0
    except ValueError:
        raise SettingError(f'a group rule is how many parts to cut off a file name, such as "-1", got {rule!r}') from None
    return "_".join(path.stem.split("_")[:cut]) or path.stem


def _mask(path: Path, folder: Path | None) -> Path | None:
    found = [(folder or path.parent / "mask") / f"{path.stem}{suffix}" for suffix in (".png", *SUFFIXES)]
    return next((mask for mask in found if mask.is_file()), None)
