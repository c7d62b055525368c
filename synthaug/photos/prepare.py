"""``synthaug prepare``: photos as they come from a phone, made into a clean folder to learn from."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from synthaug.errors import OutputError, PhotoFolderError, SettingError, UnusableFileError, require
from synthaug.photos.checks import Look, look_at, remarks
from synthaug.photos.folder import PhotoFolder, read_caption, read_folder
from synthaug.photos.lighting import contrast, flattened
from synthaug.pixels import SUFFIXES, digest, framed, framed_mask, read_image, read_mask, save_mask, save_png
from synthaug.records import Photo

__all__ = ["prepare"]

_LIST = "photos.json"

FADED = 0.7
"""Share of a defect's contrast that must be left after the light was evened out."""


def prepare(
    *,
    photos: Path,
    out: Path,
    size: tuple[int, int] = (512, 512),
    caption: str = "a photo of {trigger}",
    trigger: str = "",
    group: str = "",
    masks: Path | None = None,
    flatten: float = 0.0,
) -> None:
    """Check photos and write them upright, framed and captioned, without any EXIF.

    Beside each PNG goes its caption as text, masks go into ``mask``, and ``photos.json`` lists hashes, groups
    and what was skipped. The originals are left alone. A second run writes the same bytes, but caption files
    that are already there are kept, so that they can be edited.

    Args:
        photos: Folder of photos; captions come from text files beside them or from the template.
        out: Folder to write to, not the photos' own.
        size: Height and width; the middle of a photo is cropped to this shape and resized.
        caption: Template for photos without a text file; ``{trigger}`` stands for the trigger word.
        trigger: Word that will bring out what is learned.
        group: How many parts to cut off a file name, at its underscores, to find the group: ``"-1"`` is the last one.
        masks: Folder of masks, pictures with the photos' names, bright = defect; ``mask`` among the photos when left out.
        flatten: Even out the light, 0 (leave it) to 1; a warning names photos whose marked defect fades with it.

    Raises:
        PhotoFolderError: If the photos cannot be used.
        SettingError: If a setting cannot be used, or ``out`` holds pictures that are not of these photos.
        OutputError: If something cannot be written.
    """
    if min(size) < 8:
        raise SettingError(f"size must be height and width of at least 8 pixels, got {size}; 512 by 512 suits Stable Diffusion 1.x")
    require({"flatten must be from 0 to 1; 1 takes out all unevenness": (0 <= flatten <= 1, flatten)})
    found = read_folder(photos, caption=caption, trigger=trigger, group=group, masks=masks)
    names = _names(found)
    _check_folder(photos, out, names)
    written = [_write(photo, out / name, size, flatten) for photo, name in zip(found.photos, names, strict=True)]
    skipped = [{"file": path.name, "reason": reason} for path, reason in found.skipped]
    content = {"size": list(size), "flatten": flatten, "photos": [entry.listed for entry in written], "skipped": skipped}
    _write_text(out / _LIST, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    _tell(found, written, out, size)


@dataclass(frozen=True, kw_only=True)
class _Written:
    """One photo that was written."""

    listed: dict[str, Any]
    look: Look
    edited: bool
    faded: bool
    """Whether evening out the light took away much of the marked defect's contrast."""


def _write(photo: Photo, path: Path, size: tuple[int, int], flatten: float) -> _Written:
    """Write picture, caption and mask of one photo."""
    picture = read_image(photo.path)
    mask = None if photo.mask is None else _framed_mask(photo, picture, size)
    small = framed(flattened(picture, strength=flatten) if flatten else picture, size)
    faded = bool(flatten) and mask is not None and contrast(small, mask) < FADED * contrast(framed(picture, size), mask)
    _folder(path.parent if mask is None else path.parent / "mask")
    save_png(small, path)
    if mask is not None:
        save_mask(mask, path.parent / "mask" / path.name)
    beside = path.with_suffix(".txt")
    text = read_caption(beside) if beside.exists() else photo.caption
    if not beside.exists():
        _write_text(beside, text + "\n")
    listed = {
        "file": path.name, "sha256": digest(small), "group": photo.group, "caption": text,
        "mask": None if mask is None else f"mask/{path.name}", "source": photo.path.name, "source_sha256": photo.sha256,
    }  # fmt: skip
    look = look_at(photo.path.name, picture, size, sha256=photo.sha256, defect=None if mask is None else float(mask.float().mean()))
    return _Written(listed=listed, look=look, edited=text != photo.caption, faded=faded)


def _framed_mask(photo: Photo, picture: Tensor, size: tuple[int, int]) -> Tensor:
    """The mask of a photo, cropped as the photo is.

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
    return framed_mask(mask, size)


def _names(found: PhotoFolder) -> list[str]:
    """A file name for each photo: ``a.jpg`` and ``a.png`` must not end in the same one."""
    stems = Counter(photo.path.stem for photo in found.photos)
    return [f"{photo.path.stem if stems[photo.path.stem] == 1 else photo.path.name}.png" for photo in found.photos]


def _check_folder(photos: Path, out: Path, names: list[str]) -> None:
    """Refuse a folder to write to that holds, or will be taken for, something else."""
    if out.resolve() == photos.resolve():
        raise SettingError(f"the prepared photos need a folder of their own, {out} holds the originals; give another one")
    if not out.is_dir():
        return
    strangers = sorted(path.name for path in out.iterdir() if path.suffix.lower() in SUFFIXES and path.name not in names)
    strangers = [name for name in strangers if not name.startswith(".")]
    if strangers:
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        raise SettingError(
            f"{out} holds pictures that are not of these photos and would be learned, too: {', '.join(strangers[:3])}{more}; "
            "remove them or give another folder"
        )


def _tell(found: PhotoFolder, written: list[_Written], out: Path, size: tuple[int, int]) -> None:
    masks = sum(entry.listed["mask"] is not None for entry in written)
    groups = len({photo.group for photo in found.photos})
    print(f"{len(written)} photos of {groups} groups written to {out}, {size[0]} pixels high and {size[1]} wide, {masks} with a mask")
    print(f"skipped {len(found.skipped)} files" + "".join(f"\n  {path.name}: {reason}" for path, reason in found.skipped))
    if edited := [entry.listed["file"] for entry in written if entry.edited]:
        print(
            f"kept {len(edited)} captions that were already there, such as that of {edited[0]}; delete a .txt file to have it written anew"
        )
    if faded := [entry.listed["file"] for entry in written if entry.faded]:
        print(
            f"warning: evening out the light takes away much of the marked defect in {len(faded)} photos, such as {faded[0]}; "
            "use a smaller --flatten, or none"
        )
    for remark in remarks([entry.look for entry in written], size):
        print(f"warning: {remark}")


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
