"""A second pass at a larger size: what was drawn is enlarged, noised again and redrawn, as A1111's hires fix does.

The second pass has noise of its own, drawn anew from the request's seed in the larger shape and turned by its variation. It takes all of
its steps, as ``exact_steps`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from synthaug.errors import SettingError, choose
from synthaug.generation.jobs import Job, evaluations
from synthaug.generation.networks import Networks
from synthaug.generation.noise import starting_noise
from synthaug.models.numerics import decode_latents
from synthaug.pixels import framed
from synthaug.records import Request

__all__ = ["UPSCALERS", "drawn_size", "second_pass"]

UPSCALERS: dict[str, dict[str, Any] | Image.Resampling] = {
    "Latent": {"mode": "bilinear"},
    "Latent (antialiased)": {"mode": "bilinear", "antialias": True},
    "Latent (bicubic)": {"mode": "bicubic"},
    "Latent (bicubic antialiased)": {"mode": "bicubic", "antialias": True},
    "Latent (nearest)": {"mode": "nearest"},
    "Latent (nearest-exact)": {"mode": "nearest-exact"},
    "Lanczos": Image.Resampling.LANCZOS,
    "Nearest": Image.Resampling.NEAREST,
}
"""Name -> how latents are enlarged, or, for the last two, pixels."""


def drawn_size(request: Request) -> tuple[int, int]:
    """Height and width that an image comes out with; a second pass cuts what is over a multiple of 8, as A1111 does.

    Raises:
        SettingError: If its second pass cannot be drawn.

    Example:
        >>> from synthaug.records import Hires
        >>> drawn_size(Request(prompt="a fish", seed=1, size=(128, 72), hires=Hires(scale=1.5)))
        (192, 104)
    """
    if request.hires is None:
        return request.size
    choose("upscaler", request.hires.upscaler, UPSCALERS)
    if request.mask is not None:
        raise SettingError(
            f"a second pass redraws the whole picture, and the mask {request.mask} keeps a part of it; leave out hires, or the mask"
        )
    evaluations(request.hires.steps or request.steps, request.hires.strength, exact=True)
    height, width = (int(side * request.hires.scale) // 8 * 8 for side in request.size)
    return height, width


def second_pass(jobs: Sequence[Job], latents: Tensor, networks: Networks) -> list[Job]:
    """Jobs of the second pass.

    Args:
        jobs: Of the first, all with the same second pass.
        latents: What they became, (N, C, h, w).
        networks: Decode and encode, if pixels are enlarged.
    """
    second = jobs[0].request.hires
    assert second is not None
    size = drawn_size(jobs[0].request)
    starts = _enlarged(latents, networks.latent_shape(size), UPSCALERS[second.upscaler], networks)
    return [_job(job, start, size, networks) for job, start in zip(jobs, starts, strict=True)]


def _job(job: Job, start: Tensor, size: tuple[int, int], networks: Networks) -> Job:
    asked = job.request
    assert asked.hires is not None
    steps, first = evaluations(asked.hires.steps or asked.steps, asked.hires.strength, exact=True)
    noise, generator = starting_noise(asked, start.shape, networks.device)
    return Job(
        request=asked, size=size, noise=noise, generator=generator, steps=steps, first=first, start=start,
        ignores_start=asked.hires.strength == 1, photo=None if job.photo is None else framed(job.photo, size), hires=True,
    )  # fmt: skip


def _enlarged(latents: Tensor, shape: tuple[int, int, int], how: dict[str, Any] | Image.Resampling, networks: Networks) -> Tensor:
    if isinstance(how, dict):
        return F.interpolate(latents, size=shape[1:], **how)
    size = (shape[1] * networks.factor, shape[2] * networks.factor)
    pixels = decode_latents(networks.vae, latents).cpu().clamp(-1, 1)
    return networks.encode(torch.stack([_pixels_enlarged(picture, size, how) for picture in pixels]))


def _pixels_enlarged(picture: Tensor, size: tuple[int, int], how: Image.Resampling) -> Tensor:
    """A picture in float (3, h, w), enlarged without rounding it to bytes, so that a last bit stays one."""
    planes = [np.array(Image.fromarray(plane.numpy()).resize(size[::-1], how)) for plane in picture]
    return torch.from_numpy(np.stack(planes)).clamp(-1, 1)
