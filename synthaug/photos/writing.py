"""Write prepared photos: pictures, captions, masks and mattes side by side, each whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from synthaug.errors import OutputError, PhotoFolderError, UnusableFileError
from synthaug.photos.checks import Look
from synthaug.photos.folder import read_caption
from synthaug.photos.lighting import contrast, flattened
from synthaug.photos.report import PhotoReport, look_at_photo
from synthaug.photos.variants import MARK, Changes, Variant, variants_of
from synthaug.pixels import digest, framed, framed_mask, read_image, read_mask, save_mask, save_png
from synthaug.records import Photo

__all__ = ["Written", "write_json", "write_photo", "write_report"]

FADED = 0.7
"""Share of a defect's contrast that must be left after the light was evened out."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """One photo that was written."""

    listed: tuple[dict[str, Any], ...]
    """An entry of the list for each variant."""

    looked: tuple[Look, Tensor]
    """What was measured of the original, and a small view of it."""

    edited: tuple[str, ...] = ()
    """Files whose caption was there already and says something else."""

    faded: bool = False
    """Whether evening out the light took away much of the marked defect's contrast."""

    doubt: str = ""
    """Why its background and shadow were left alone; "" when they were not."""

    cut: bool = False
    """Whether much of the marked defect lies off the thing that was found."""

    @property
    def file(self) -> str:
        """The first of its files."""
        return str(self.listed[0]["file"])


def write_photo(photo: Photo, out: Path, name: str, changes: Changes) -> Written:
    """Write pictures, captions and masks of one photo.

    Args:
        photo: The original.
        out: Folder to write to; made if need be.
        name: What to call its files, without a suffix.
        changes: What to do to it.

    Raises:
        PhotoFolderError: If its mask cannot be used.
        OutputError: If something cannot be written.
    """
    picture = read_image(photo.path)
    whole_mask = None if photo.mask is None else _mask(photo, picture)
    mask = None if whole_mask is None else framed_mask(whole_mask, changes.size)
    looked = look_at_photo(photo, picture, changes.size, defect=None if mask is None else float(mask.float().mean()))
    even = flattened(picture, strength=changes.flatten) if changes.flatten else picture
    faded = bool(changes.flatten) and mask is not None and _contrast(even, mask) < FADED * _contrast(picture, mask)
    made = variants_of(even, whole_mask, changes, name=photo.path.name, own=looked[0].scene.background or "mixed")
    listed, edited = [], []
    for variant, file in zip(made.variants, changes.file_names(name), strict=False):  # a photo in doubt has one variant only
        wanted = photo.caption.replace(MARK, variant.words).replace("{background}", variant.words)
        text = _write_variant(out / file, variant.picture, wanted, mask, made.matte if changes.save_mattes else None)
        edited += [file] * (text != wanted)
        listed.append(_entry(photo, file, variant, text, masked=mask is not None))
    return Written(listed=tuple(listed), looked=looked, edited=tuple(edited), faded=faded, doubt=made.doubt, cut=made.cut)


def _write_variant(path: Path, picture: Tensor, caption: str, mask: Tensor | None, matte: Tensor | None) -> str:
    """Write one picture and what belongs to it; the caption that is there in the end comes back."""
    _folder(path.parent)
    save_png(picture, path)
    if mask is not None:
        _folder(path.parent / "mask")
        save_mask(mask, path.parent / "mask" / path.name)
    if matte is not None:
        _folder(path.parent / "matte")
        save_png(matte, path.parent / "matte" / path.name)
    beside = path.with_suffix(".txt")
    if beside.exists():
        return read_caption(beside)
    _write_text(beside, caption + "\n")
    return caption


def _entry(photo: Photo, file: str, variant: Variant, text: str, *, masked: bool) -> dict[str, Any]:
    return {
        "file": file, "sha256": digest(variant.picture), "group": photo.group, "caption": text, "background": variant.words,
        "mask": f"mask/{file}" if masked else None, "source": photo.path.name, "source_sha256": photo.sha256,
    }  # fmt: skip


def _contrast(picture: Tensor, mask: Tensor) -> float:
    """Contrast of a defect in a photo that is framed as its mask is."""
    height, width = mask.shape
    return contrast(framed(picture, (height, width)), mask)


def _mask(photo: Photo, picture: Tensor) -> Tensor:
    """The mask of a photo, as large as it.

    Raises:
        PhotoFolderError: If it cannot be read, or is not as large as the upright photo.
    """
    assert photo.mask is not None
    try:
        mask = read_mask(photo.mask)
    except UnusableFileError as error:
        raise PhotoFolderError(f"the mask of {photo.path.name} cannot be used: {error}") from error
    if mask.shape != picture.shape[1:]:
        (h, w), (height, width) = mask.shape, picture.shape[1:]
        raise PhotoFolderError(
            f"a mask must be as large as its upright photo, {photo.mask} is {w} x {h}, {photo.path.name} is {width} x {height}; "
            "draw it again or leave it out"
        )
    return mask


def write_report(report: PhotoReport, out: Path) -> Path:
    """Write a report as JSON and as a sheet into ``report`` below a folder; that folder comes back.

    Raises:
        OutputError: If something cannot be written.
    """
    folder = out / "report"
    _folder(folder)
    write_json(folder / "report.json", report.to_json())
    report.write_sheet(folder / "sheet.png")
    return folder


def write_json(path: Path, content: object) -> None:
    """Write plain data, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    _write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}); choose another one") from error


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path} could not be written ({error.strerror}); free some space or choose another folder") from error
