"""Redraw a part of a photo: what the network is shown of it, what it begins with, and how the drawn part is laid on the photo.

A1111's inpainting: the mask's edge is blurred, the masked place is filled, kept or emptied before it is redrawn, and with ``only_masked``
the surroundings of the mask are enlarged to the whole size, drawn, and put back. Outside the blurred mask no pixel changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from synthaug.errors import SettingError
from synthaug.generation.jobs import Job, Paste
from synthaug.generation.networks import Networks
from synthaug.photos.regions import blurred
from synthaug.pixels import to_float
from synthaug.records import Request

__all__ = ["Region", "begun", "composite", "pasted", "region_of", "softened", "surroundings"]

REACHES = (256, 64, 16, 4, 2)
"""Half sides of the windows that a masked place is filled from, the nearest last."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """The part of a photo that is drawn, as large as it is drawn."""

    photo: Tensor
    """uint8 (3, H, W)."""

    cover: Tensor
    """The blurred mask, float (H, W), 0 to 1."""

    paste: Paste
    """How the drawn part is laid on the photo."""


def region_of(photo: Tensor, mask: Tensor, request: Request) -> Region:
    """What is drawn of a photo.

    Args:
        photo: uint8 (3, H, W) of the request's size.
        mask: uint8 (H, W), 1 = redrawn.
        request: Says how.

    Raises:
        SettingError: If the mask is empty.
    """
    if not mask.any():
        where = f"{request.mask} marks nothing" if request.mask else "it marks nothing"
        raise SettingError(
            f"a mask must mark a place that is redrawn, {where} of the photo as it is framed to {request.size}; paint that place white"
        )
    cover = softened(mask, request.mask_blur)
    if not request.only_masked:
        whole = (0, 0, *request.size)
        return Region(photo=photo, cover=cover, paste=Paste(photo=photo, cover=(2 * cover).clamp(max=1), box=whole))
    box = surroundings(cover > 0, padding=request.mask_padding)
    top, left, bottom, right = box
    return Region(
        photo=_resized(photo[:, top:bottom, left:right], request.size),
        cover=_plane_resized(cover[top:bottom, left:right], request.size),
        paste=Paste(photo=photo, cover=cover, box=box),
    )


def softened(mask: Tensor, sigma: int) -> Tensor:
    """A mask (H, W) with a Gaussian edge, float 0 to 1; its window is 2 int(2.5 sigma + 0.5) + 1 pixels wide, the border is mirrored.

    Example:
        >>> softened(torch.eye(3, dtype=torch.uint8), 0)
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    if sigma == 0:
        return mask.float()
    reach = int(2.5 * sigma + 0.5)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    weight = (weight / weight.sum()).reshape(1, 1, -1)
    plane = mask.double()
    for _ in range(2):
        padded = torch.from_numpy(np.pad(plane.numpy(), ((0, 0), (reach, reach)), mode="reflect"))
        plane = F.conv1d(padded[:, None], weight)[:, 0].T
    return plane.float().contiguous().clamp(0, 1)


def surroundings(marked: Tensor, *, padding: int) -> tuple[int, int, int, int]:
    """The box around what is marked (H, W), padded, and grown to the proportions of the whole as far as the whole allows.

    Returns:
        Top, left, bottom, right.

    Example:
        >>> marked = torch.zeros(40, 80, dtype=torch.bool)
        >>> marked[10:16, 2:6] = True
        >>> surroundings(marked, padding=2)
        (8, 0, 18, 20)
    """
    height, width = marked.shape
    (rows,), (columns,) = (marked.any(dim).nonzero(as_tuple=True) for dim in (1, 0))
    top, bottom = max(0, int(rows[0]) - padding), min(height, int(rows[-1]) + 1 + padding)
    left, right = max(0, int(columns[0]) - padding), min(width, int(columns[-1]) + 1 + padding)
    wanted_height = max(bottom - top, round((right - left) * height / width))
    wanted_width = max(right - left, round((bottom - top) * width / height))
    (top, bottom), (left, right) = _grown(top, bottom, wanted_height, height), _grown(left, right, wanted_width, width)
    return top, left, bottom, right


def _grown(low: int, high: int, wanted: int, whole: int) -> tuple[int, int]:
    """A stretch grown to a length on both sides alike, and pushed back into the whole."""
    length = min(wanted, whole)
    begin = min(max(0, low - (length - (high - low)) // 2), whole - length)
    return begin, begin + length


def begun(region: Region, request: Request, noise: Tensor, networks: Networks) -> dict[str, Any]:
    """What a job begins with, by the names of its fields: start, and redraw or, for a UNet that is shown masks, shown.

    Args:
        region: What is drawn.
        request: Says what the masked place begins with.
        noise: The job's own, (C, h, w).
        networks: Encode.

    Raises:
        SettingError: If the mask covers no place of the latent.
    """
    h, w = noise.shape[1:]
    if networks.base.inpaints:
        mask = F.interpolate((region.cover >= 0.5).float()[None, None], size=(h, w), mode="nearest")[0]
    else:
        mask = F.adaptive_avg_pool2d(region.cover[None], (h, w)).round()
    if not mask.any():
        raise SettingError(
            f"a mask must cover half of a square of {networks.factor} pixels at least, that of request {request.index}, blurred, covers "
            "none; take less mask_blur, or only_masked, which enlarges its surroundings, or mark more"
        )
    emptied = _filled(region) if request.masked_content == "fill" else region.photo
    start = networks.encode(to_float(emptied)[None])[0]
    inside = mask.to(start.device)
    if request.masked_content == "latent noise":
        start = torch.where(inside > 0, noise.to(start.device), start)
    elif request.masked_content == "latent nothing":
        start = start * (1 - inside)
    if not networks.base.inpaints:
        return {"start": start, "redraw": mask}
    grey = to_float(region.photo) * (region.cover < 0.5)
    return {"start": start, "shown": torch.cat([inside, networks.encode(grey[None])[0]])}


def _filled(region: Region) -> Tensor:
    """The masked place in the colours of its surroundings, the nearer the better, uint8 (3, H, W)."""
    known = (region.cover < 0.5).float()[None]
    photo = region.photo.float()
    inside = photo.mean((1, 2), keepdim=True).expand_as(photo)
    for reach in REACHES:
        near = blurred(known, reach)
        inside = torch.where(near > 0.01, blurred(photo * known, reach) / near.clamp_min(1e-6), inside)
    return (photo + region.cover * (inside - photo)).round().clamp(0, 255).to(torch.uint8)


def composite(drawn: Tensor, paste: Paste) -> Tensor:
    """A drawn picture on its photo, uint8 (3, h, w) to uint8 (3, H, W).

    Example:
        >>> photo, cover = torch.zeros(3, 2, 2, dtype=torch.uint8), torch.tensor([[0.0, 0.5], [1.0, 1.0]])
        >>> composite(photo + 100, Paste(photo=photo, cover=cover, box=(0, 0, 2, 2)))[0]
        tensor([[  0,  50],
                [100, 100]], dtype=torch.uint8)
    """
    top, left, bottom, right = paste.box
    layer = paste.photo.clone()
    layer[:, top:bottom, left:right] = _resized(drawn, (bottom - top, right - left))
    photo = paste.photo.float()
    return (photo + paste.cover * (layer.float() - photo)).round().to(torch.uint8)


def pasted(drawn: Tensor, jobs: Sequence[Job]) -> Tensor:
    """Drawn pictures, uint8 (N, 3, H, W), those of masked photos on their photos."""
    return torch.stack([picture if job.paste is None else composite(picture, job.paste) for picture, job in zip(drawn, jobs, strict=True)])


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Stretched to a size, uint8 (3, h, w)."""
    made = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).resize(size[::-1], Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(made)).permute(2, 0, 1).contiguous()


def _plane_resized(plane: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(plane[None, None], size=size, mode="bilinear", align_corners=False, antialias=True)[0, 0]
