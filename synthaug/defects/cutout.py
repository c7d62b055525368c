"""Cut defects out of pictures with masks, with some of their surroundings, and say which cannot be used."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.photos.regions import grown, parts

__all__ = ["Cutout", "Origin", "Piece", "cut_out", "faulty_mask"]

MOST_COVERED = 0.5
"""A mask over more of the picture than this marks no defect: it is inverted, or it is the object's."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a cut-out comes from: what an evaluation must not test on."""

    source: str
    """Name of the picture's file."""

    sha256: str
    """Hash of its pixels."""

    group: str
    """Group of the photo; pictures of one part share one."""

    size: tuple[int, int]
    """Height and width of the picture."""

    box: tuple[int, int, int, int]
    """Left, top, right, bottom of the cut-out in the picture, right and bottom exclusive."""

    defect: str
    """Type of defect."""

    loras: tuple[str, ...] = ()
    """LoRA files that drew the picture; () for a real photo."""

    seed: int | None = None
    """Seed that it was drawn with."""

    parent: str | None = None
    """Picture that it was drawn from, if any."""


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """One defect and its surroundings."""

    rgba: Tensor
    """uint8 (4, h, w): the picture, and how much of each pixel is pasted; 0 along the border."""

    mask: Tensor
    """The defect, uint8 (h, w), 1 = defect."""

    origin: Origin
    """Where it comes from."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One connected defect of a picture, before anything is known of where the picture comes from."""

    rgba: Tensor
    """As in :class:`Cutout`."""

    mask: Tensor
    """As in :class:`Cutout`."""

    box: tuple[int, int, int, int]
    """As in :class:`Origin`."""

    fault: str = ""
    """Why it cannot be used; "" when it can."""


def faulty_mask(image: Tensor, mask: Tensor) -> str:
    """Why nothing can be cut out of a picture by a mask, in words; "" when something can.

    Args:
        image: uint8 (3, H, W).
        mask: uint8 (h, w), 1 = defect.

    Example:
        >>> faulty_mask(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.ones(8, 8, dtype=torch.uint8))
        'its mask marks 100 % of the picture: it is inverted, or marks the object instead of the defect'
    """
    if mask.shape != image.shape[1:]:
        return f"its mask is {mask.shape[0]} x {mask.shape[1]} pixels, the picture {image.shape[1]} x {image.shape[2]}"
    share = float(mask.float().mean())
    if not share:
        return "its mask is empty"
    if share > MOST_COVERED:
        return f"its mask marks {100 * share:.0f} % of the picture: it is inverted, or marks the object instead of the defect"
    return ""


def cut_out(image: Tensor, mask: Tensor, *, smallest: int = 12) -> list[Piece]:
    """Cut every connected defect out of a picture, the largest first; parts of one defect that nearly touch stay together.

    Args:
        image: uint8 (3, H, W).
        mask: uint8 (H, W), 1 = defect, for which :func:`faulty_mask` has nothing to say.
        smallest: Pixels that a defect must have to be of use.

    Example:
        >>> mask = torch.zeros(32, 32, dtype=torch.uint8)
        >>> mask[10:14, 12:18] = 1
        >>> [piece] = cut_out(torch.zeros(3, 32, 32, dtype=torch.uint8), mask)
        >>> piece.box, int(piece.mask.sum()), piece.fault
        ((8, 6, 22, 18), 24, '')
    """
    reach = max(1, round(0.01 * max(mask.shape)))
    joined = parts(grown(mask.float(), reach), least=0)
    return [_piece(image, mask * area.to(torch.uint8), smallest) for area in joined]


def _piece(image: Tensor, mask: Tensor, smallest: int) -> Piece:
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    margin = max(4, round(0.25 * max(bottom - top, right - left)))
    height, width = mask.shape
    box = (max(0, left - margin), max(0, top - margin), min(width, right + margin), min(height, bottom + margin))
    window = (slice(box[1], box[3]), slice(box[0], box[2]))
    area, fault = int(mask.sum()), ""
    if area < smallest:
        fault = f"too small: {area} pixels, {smallest} are needed"
    elif top == 0 or left == 0 or bottom == height or right == width:
        fault = "it touches the border of the picture, so part of it is missing"
    piece = mask[window].contiguous()
    rgba = torch.cat([image[:, *window], _soft(piece, area)[None]])
    return Piece(rgba=rgba.contiguous(), mask=piece, box=box, fault=fault)


def _soft(mask: Tensor, area: int) -> Tensor:
    """The mask with a soft rim outside of it, uint8 (h, w): masks are drawn by hand and end where a defect fades."""
    reach = min(6, max(2, round(0.08 * area**0.5)))
    soft = mask.float()
    for step in range(1, reach + 1):
        soft = torch.maximum(soft, grown(mask.float(), step) * (1 - step / (reach + 1)))
    for line in (soft[0], soft[-1], soft[:, 0], soft[:, -1]):
        line.zero_()
    return (soft * 255).round().to(torch.uint8)
