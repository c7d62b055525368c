"""Where each image begins: with noise, or with a photo."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from synthaug.generation.jobs import Job, evaluations
from synthaug.generation.networks import Networks
from synthaug.generation.noise import starting_noise
from synthaug.pixels import framed, read_image, to_float
from synthaug.records import Request

__all__ = ["jobs_of"]


def jobs_of(requests: Sequence[Request], networks: Networks, photos: Tensor | None = None) -> list[Job]:
    """What the denoise loop needs of each request.

    Args:
        requests: All of one size.
        networks: Encode the photos.
        photos: Photos to start from, uint8 (N, 3, H, W), instead of the requests' own files.
    """
    return [_job(request, networks, None if photos is None else photos[row]) for row, request in enumerate(requests)]


def _job(request: Request, networks: Networks, photo: Tensor | None) -> Job:
    generator = torch.Generator().manual_seed(request.seed)
    noise = starting_noise(networks.latent_shape(request.size), generator)
    if photo is None and request.image is not None:
        photo = framed(read_image(request.image), request.size)
    if photo is None:
        return Job(request=request, size=request.size, noise=noise, generator=generator, steps=request.steps)
    steps, first = evaluations(request.steps, request.strength, exact=request.exact_steps)
    start = networks.encode(to_float(photo)[None])[0]
    return Job(request=request, size=request.size, noise=noise, generator=generator, steps=steps, first=first, start=start)
