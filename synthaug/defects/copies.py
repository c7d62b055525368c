"""Is a drawn defect one of those it was learned from?

Each defect is cut out with its mask, laid on the colour around it, so that the ground says nothing, and compared as
:mod:`synthaug.curation.near_copies` compares pictures: at every shift and in every mirroring.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from synthaug.curation.near_copies import copy_distances, thumbnails
from synthaug.errors import SettingError
from synthaug.photos.regions import blurred, grown, parts

__all__ = ["TrainingDefects"]

SMALLEST = 16
"""Pixels along the side of the smallest square that is cut out."""


class TrainingDefects:
    """Defects that a LoRA was trained on.

    Args:
        images: uint8 (3, H, W) each, of any sizes.
        masks: uint8 (H, W) each, 1 = defect.
        names: What to call them in reasons; their numbers when left out.

    Raises:
        SettingError: If there is none, the numbers differ, or a mask is empty or of another size than its image.

    Example:
        >>> image = torch.randint(0, 255, (3, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        >>> mask = torch.zeros(40, 60, dtype=torch.uint8)
        >>> mask[10:30, 20:40] = 1
        >>> known = TrainingDefects([image], [mask], names=["a.png"])
        >>> distance, name = known.nearest(image, mask)
        >>> distance < 0.01, name
        (True, 'a.png')
    """

    def __init__(self, images: Sequence[Tensor], masks: Sequence[Tensor], names: Sequence[str] = ()) -> None:
        if not images or len(images) != len(masks):
            raise SettingError(f"training defects must be images with a mask each, got {len(images)} images and {len(masks)} masks")
        self.names = list(names) or [str(number) for number in range(len(images))]
        for name, image, mask in zip(self.names, images, masks, strict=True):
            if image.shape[1:] != mask.shape or not mask.any():
                raise SettingError(
                    f"the mask of a training defect must mark a part of its image, {name} has an image of {tuple(image.shape[1:])} and "
                    f"a mask of {tuple(mask.shape)} with {int((mask > 0).sum())} marked pixels; leave it out or mend its mask"
                )
        pieces = [(row, image, piece) for row, (image, mask) in enumerate(zip(images, masks, strict=True)) for piece in _pieces(mask)]
        self._rows = [row for row, _, _ in pieces]
        self._sides = [_side(piece) for _, _, piece in pieces]
        self._looks = torch.cat([thumbnails(_cut(image, piece, _side(piece))[None]) for _, image, piece in pieces])
        among = [self._distances(image, mask, leave_out=row)[0] for row, (image, mask) in enumerate(zip(images, masks, strict=True))]
        self.usual = float(torch.tensor(among).median()) if len(images) > 1 else 1.0
        """Distance between nearest training defects; 1 where there is but one."""

    def __len__(self) -> int:
        return len(self.names)

    def nearest(self, image: Tensor, mask: Tensor) -> tuple[float, str]:
        """Distance to the nearest training defect, 1 = as far as those keep from each other, and its name.

        Args:
            image: uint8 (3, H, W).
            mask: uint8 (H, W), 1 = defect, not empty.
        """
        distance, row = self._distances(image, mask)
        return round(distance / max(self.usual, 1e-3), 4), self.names[row]

    def _distances(self, image: Tensor, mask: Tensor, *, leave_out: int = -1) -> tuple[float, int]:
        """The least distance and its row; cut out as large as the other one, and as large as itself."""
        best, nearest = 2.0, 0
        for piece in _pieces(mask):
            own = _side(piece)
            looks = {side: thumbnails(_cut(image, piece, side)[None]) for side in {own, *self._sides}}
            for row, side, known in zip(self._rows, self._sides, self._looks, strict=True):
                if row != leave_out:
                    distance = float(copy_distances(torch.cat([looks[own], looks[side]]), known[None]).min())
                    best, nearest = min((best, nearest), (distance, row))
        return best, nearest


def _pieces(mask: Tensor) -> list[Tensor]:
    """The largest connected part of a mask and those at least a third as large, at most three, float (H, W)."""
    found = parts((mask > 0).float(), least=0)
    return [piece for piece in found[:3] if piece.sum() >= found[0].sum() / 3]


def _box(mask: Tensor) -> tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    rows, columns = ((mask > 0).any(dim).nonzero().flatten() for dim in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _side(mask: Tensor) -> int:
    top, left, bottom, right = _box(mask)
    return max(SMALLEST, round(1.5 * max(bottom - top, right - left)))


def _cut(image: Tensor, mask: Tensor, side: int) -> Tensor:
    """A square around a defect, uint8 (3, side, side): the defect on the colour around it."""
    top, left, bottom, right = _box(mask)
    marked = (mask > 0).float()
    around = grown(marked, 5) - grown(marked, 2)
    colour = image.float()[:, around > 0].mean(1) if around.any() else image.float().flatten(1).mean(1)
    cover = blurred(grown(marked, 2)[None], 1)
    flat = colour[:, None, None].expand(3, *mask.shape)
    laid = flat + cover * (image.float() - flat)
    y, x = (top + bottom - side) // 2, (left + right - side) // 2
    out = colour[:, None, None].repeat(1, side, side)
    height, width = mask.shape
    rows, columns = slice(max(0, y), min(height, y + side)), slice(max(0, x), min(width, x + side))
    out[:, rows.start - y : rows.stop - y, columns.start - x : columns.stop - x] = laid[:, rows, columns]
    return out.round().to(torch.uint8)
