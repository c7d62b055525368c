"""Pictures with and without marked defects, as a folder of photos gives them, for what is made of them later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from synthaug.defects.masks import check_mask, read_defect_mask
from synthaug.errors import SettingError
from synthaug.photos import read_folder
from synthaug.photos.regions import grown, parts
from synthaug.pixels import SUFFIXES

__all__ = ["MarkedPhoto", "mask_beside", "pieces", "read_marked", "usable_mask"]


@dataclass(frozen=True, kw_only=True)
class MarkedPhoto:
    """A photo, and where its mask is."""

    path: Path
    """The photo."""

    sha256: str
    """Hash of its pixels."""

    group: str
    """Photos of one part share one; its own name where nothing is known."""

    mask: Path | None
    """The mask's file, if there is one."""


def read_marked(folder: Path, *, masks: Path | None = None, group: str = "") -> list[MarkedPhoto]:
    """The photos of a folder by name, those of ``synthaug prepare`` with the groups that it listed.

    Args:
        folder: Where the photos lie.
        masks: Folder of masks; the sub-folder ``mask`` when left out.
        group: How file names give the group, as in :func:`synthaug.photos.read_folder`.

    Raises:
        PhotoFolderError: If there is no folder, or no photo in it can be used.
        SettingError: If the group rule is no number.
    """
    found = read_folder(folder, caption="a photo", masks=masks, group=group, fewest=1)
    return [MarkedPhoto(path=photo.path, sha256=photo.sha256, group=photo.group, mask=photo.mask) for photo in found.photos]


def mask_beside(folder: Path, stem: str) -> Path | None:
    """The mask of a picture: one of the same name in a folder; None if there is none."""
    found = [folder / f"{stem}{suffix}" for suffix in (".png", *SUFFIXES)]
    return next((path for path in found if path.is_file()), None)


def usable_mask(path: Path, size: tuple[int, int]) -> tuple[Tensor | None, str]:
    """A mask, uint8 (H, W), 1 = defect; or None, and why it cannot be one.

    Raises:
        UnusableFileError: If the file cannot be read.
    """
    mask = read_defect_mask(path)
    try:
        check_mask(mask, size, name=path.name)
    except SettingError as error:
        return None, str(error)
    return mask, ""


def pieces(mask: Tensor) -> Iterator[Tensor]:
    """The defects of a mask one by one, from the top left, each uint8 (H, W); what is up to two pixels apart is one.

    Example:
        >>> mask = torch.zeros(9, 9, dtype=torch.uint8)
        >>> mask[0, 0] = mask[1, 1] = mask[5:8, 6] = 1
        >>> [int(piece.sum()) for piece in pieces(mask)]
        [2, 3]
    """
    found = [mask * area.to(torch.uint8) for area in parts(grown(mask.float(), 1), least=0)]
    return iter(sorted(found, key=lambda piece: int(piece.flatten().nonzero()[0])))
