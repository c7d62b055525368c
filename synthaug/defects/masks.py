"""Masks that people bring: read from files of any mode, and refused with a sentence when they cannot be meant so."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from synthaug.errors import SettingError, UnusableFileError
from synthaug.photos.foreground import find_foreground
from synthaug.pixels import SUFFIXES, read_image, read_mask

__all__ = ["ObjectArea", "check_mask", "object_area", "read_defect_mask", "read_defect_masks", "restrict"]

log = logging.getLogger(__name__)

FEW = 16
"""Colours that a mask of numbered classes has at most."""

LARGEST = 0.5
"""Share of a photo above which no defect is believed."""

COVERS = 0.9
"""Share of the object above which a mask is no defect of it but the object itself."""


@dataclass(frozen=True, kw_only=True)
class ObjectArea:
    """Where defects may go."""

    mask: Tensor
    """uint8 (H, W), 1 = object."""

    doubt: str = ""
    """Why the object could not be told from its ground, and the mask is all of the photo; "" when it could."""


def object_area(photo: Tensor, given: Tensor | None = None) -> ObjectArea:
    """Where the object is: as given, or found by :func:`synthaug.photos.foreground.find_foreground`.

    Args:
        photo: uint8 (3, H, W).
        given: uint8 (H, W), 1 = object.

    Returns:
        All of the photo, with a doubt, where the object fills it or its ground is not plain, as on a photo of paper; say so to the user.

    Raises:
        SettingError: If the given mask has another size, or is empty.

    Example:
        >>> paper = torch.full((3, 60, 80), 230, dtype=torch.uint8)
        >>> object_area(paper).doubt
        'what stands out fills less than 1% of the photo'
        >>> paper[:, 20:40, 30:60] = torch.tensor([40, 90, 160], dtype=torch.uint8)[:, None, None]
        >>> int(object_area(paper).mask[20:40, 30:60].sum())
        600
    """
    if given is not None:
        _check_size(given, tuple(photo.shape[1:]), "the object's mask")
        if not given.any():
            raise SettingError("the object's mask must mark the object, got an empty one; leave it out, then the object is looked for")
        return ObjectArea(mask=(given > 0).to(torch.uint8))
    found = find_foreground(photo)
    if found.doubt:
        return ObjectArea(mask=torch.ones(photo.shape[1:], dtype=torch.uint8), doubt=found.doubt)
    return ObjectArea(mask=(found.matte > 0.5).to(torch.uint8))


def check_mask(mask: Tensor, size: tuple[int, int], *, area: Tensor | None = None, name: str = "the mask") -> None:
    """Refuse a mask that cannot be one of a defect.

    Args:
        mask: uint8 (H, W), 1 = defect.
        size: Of its photo.
        area: Where the object is, uint8 (H, W).
        name: What to call the mask.

    Raises:
        SettingError: If it has another size, is empty, looks inverted, marks most of the photo, lies beside the object or covers it.

    Example:
        >>> mask = torch.ones(20, 30, dtype=torch.uint8)
        >>> mask[5:8, 5:9] = 0
        >>> check_mask(mask, (20, 30), name="a.png")
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: a mask must mark the defect, a.png marks 98% of the photo and all of its border, so ...
    """
    _check_size(mask, size, name)
    marked = mask > 0
    share = float(marked.float().mean())
    if not share:
        raise SettingError(f"a mask must mark the defect, {name} is empty; paint the defect white, or leave the mask out")
    border = torch.cat([marked[0], marked[-1], marked[:, 0], marked[:, -1]]).float().mean()
    if share > LARGEST:
        wrong = f"{name} marks {share:.0%} of the photo"
        if border > 0.9 and share < 1:
            raise SettingError(
                f"a mask must mark the defect, {wrong} and all of its border, so it looks inverted; turn black and white round (inverted)"
            )
        raise SettingError(f"a mask may mark at most {LARGEST:.0%} of a photo, {wrong}; mark the defect alone")
    if area is None:
        return
    _check_size(area, size, "the object's mask")
    on = marked & (area > 0)
    if not on.any():
        raise SettingError(f"a defect must lie on the object, {name} marks nothing of it; move the mask, or give the object's mask")
    if on.sum() > COVERS * (area > 0).sum():
        covered = float(on.sum() / (area > 0).sum())
        raise SettingError(f"a mask must mark a part of the object, {name} covers {covered:.0%} of it; mark the defect alone")


def restrict(mask: Tensor, area: Tensor) -> Tensor:
    """The part of a mask that lies on the object, uint8 (H, W)."""
    return ((mask > 0) & (area > 0)).to(torch.uint8)


def read_defect_mask(path: Path | str, *, inverted: bool = False) -> Tensor:
    """Read a mask of any mode: black and white, grey, with a palette, coloured, or drawn on nothing (RGBA).

    What is bright is defect; in a picture of few colours with black among them, such as numbered classes or values 0 and 1, what is not
    black, and that is logged; of a picture that can be seen through, what cannot be seen through.

    Args:
        path: A picture file.
        inverted: Whether the defect is what is dark, or seen through.

    Returns:
        uint8 (H, W), 1 = defect; not looked over, see :func:`check_mask`.

    Raises:
        UnusableFileError: If the file cannot be read.
    """
    mask = read_mask(path)
    if not mask.any():
        mask = _of_classes(read_image(path), mask, Path(path).name)
    return 1 - mask if inverted else mask


def read_defect_masks(place: Path | str, *, inverted: bool = False) -> dict[str, Tensor]:
    """Masks of your own: one file, or all picture files of a folder, by name.

    Args:
        place: The file or the folder.
        inverted: As in :func:`read_defect_mask`.

    Returns:
        Name -> uint8 (H, W), 1 = defect; masks that are empty or look inverted are left out, each with a warning.

    Raises:
        UnusableFileError: If there is no such place, a file cannot be read, or no mask can be used.
    """
    place = Path(place)
    if not place.exists():
        raise UnusableFileError(f"there is no mask {place}; check the path")
    files = [place] if place.is_file() else sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
    masks: dict[str, Tensor] = {}
    refused = []
    for path in files:
        mask = read_defect_mask(path, inverted=inverted)
        try:
            check_mask(mask, (mask.shape[0], mask.shape[1]), name=path.name)
        except SettingError as error:
            refused.append(str(error))
            log.warning("%s", error)
        else:
            masks[path.name] = mask
    if not masks:
        why = f"the first of {len(refused)}: {refused[0]}" if refused else "there is no picture file"
        raise UnusableFileError(f"{place} must hold a mask that can be used, it holds none ({why})")
    return masks


def _of_classes(picture: Tensor, mask: Tensor, name: str) -> Tensor:
    """What is not black in a picture of few colours; the mask as it is elsewhere."""
    colours = torch.unique(picture.flatten(1), dim=1)
    if colours.shape[1] < 2 or colours.shape[1] > FEW or int(colours.sum(0).min()) > 0:
        return mask
    log.warning("%s has no bright pixel but %d colours beside black; all that is not black is taken for defect", name, colours.shape[1] - 1)
    return (picture.sum(0, dtype=torch.int64) > 0).to(torch.uint8)


def _check_size(mask: Tensor, size: tuple[int, ...], name: str) -> None:
    if mask.ndim != 2 or tuple(mask.shape) != tuple(size):
        raise SettingError(
            f"a mask must have the size of its photo, {name} is {tuple(mask.shape)} and the photo {tuple(size)}; frame them alike"
        )
