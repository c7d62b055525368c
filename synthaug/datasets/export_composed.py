"""Pictures composed for an export: defects of a bank put into normal pictures, each picture a function of its number and the seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthaug.datasets.export_items import Item, check_name
from synthaug.defects.change import Change
from synthaug.defects.compose import FromBank
from synthaug.defects.cutout import Cutout
from synthaug.errors import SettingError
from synthaug.pixels import digest
from synthaug.seeds import seed_for

__all__ = ["composed", "links_of"]

TRIES = 20
"""So many pairs of a normal picture and a defect are tried for each picture."""


def links_of(cutout: Cutout) -> tuple[str, ...]:
    """What a picture with this defect may not be split from: other photos of the part, and the photos that the defect was seen on."""
    origin = cutout.origin
    own = Path(origin.source).stem
    links = [f"bank {own}" if origin.group in ("", own) else f"group {origin.group}", f"pixels {origin.sha256}"]
    return (*links, f"normals {Path(origin.parent).stem}") if origin.parent else tuple(links)


def composed(normals: Sequence[Item], cutouts: Sequence[Cutout], numbers: range, *, seed: int, foreground: Tensor | None) -> Iterator[Item]:
    """Draw one picture per number, each with one defect.

    Args:
        normals: To draw from.
        cutouts: To draw from.
        numbers: Which pictures.
        seed: Seed of the run.
        foreground: Where the object is, uint8 (H, W); None for everywhere.

    Raises:
        SettingError: If a picture has no room for a defect in any of :data:`TRIES` attempts, or the foreground has another size.
    """
    sources = [FromBank([cutout]) for cutout in cutouts]
    for number in numbers:
        own = seed_for(seed, "export", number)
        rng = np.random.default_rng(own)
        for _ in range(TRIES):
            normal, pick = normals[int(rng.integers(len(normals)))], int(rng.integers(len(cutouts)))
            before, _mask = normal.read()
            picture = before.numpy().astype(np.float32)
            change = sources[pick].draw(picture, _free(before, foreground, normal.source), rng)
            if change is not None:
                yield _item(before, change, normal, cutouts[pick], own)
                break
        else:
            raise SettingError(
                f"a defect must find a place where it can be seen, picture {number} found none in {TRIES} attempts; give normal pictures "
                "of about the size of those that the bank was cut from, or a larger foreground"
            )


def _free(picture: Tensor, foreground: Tensor | None, name: str) -> NDArray[np.bool_]:
    if foreground is None:
        return np.ones(picture.shape[1:], bool)
    if foreground.shape != picture.shape[1:]:
        raise SettingError(
            f"the foreground must have the size of the normal pictures, got {tuple(foreground.shape)} beside {tuple(picture.shape[1:])} of "
            f"{name}; frame them alike, or leave it out"
        )
    free: NDArray[np.bool_] = foreground.numpy() > 0
    return free


def _item(before: Tensor, change: Change, normal: Item, cutout: Cutout, seed: int) -> Item:
    image, mask = before.clone(), torch.zeros(before.shape[1:], dtype=torch.uint8)
    image[:, *change.window] = torch.from_numpy(change.pixels).round().to(torch.uint8)
    mask[change.window] = torch.from_numpy(change.mask).to(torch.uint8)
    return Item(
        read=lambda: (image, mask), source=normal.source, defect=check_name(change.kind), group=normal.group, has_mask=True,
        links=(*normal.links, *links_of(cutout)), mark=digest(image), parent=normal.source, seed=seed, donor=cutout.origin.group,
    )  # fmt: skip
