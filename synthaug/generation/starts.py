"""Where each image begins: with noise, with a photo, or with a photo of which a part is redrawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synthaug.errors import SettingError
from synthaug.generation.base_check import check_filled
from synthaug.generation.inpainting import begun, region_of
from synthaug.generation.jobs import Job, evaluations
from synthaug.generation.networks import Networks
from synthaug.generation.noise import starting_noise
from synthaug.pixels import framed, framed_mask, read_image, read_mask, to_float
from synthaug.records import Request

__all__ = ["check_given", "jobs_of"]


def check_given(requests: Sequence[Request], images: Tensor | None, masks: Tensor | None) -> None:
    """Refuse photos and masks that do not go with the requests, or with each other.

    Raises:
        SettingError: With the rule and the shapes.

    Example:
        >>> import torch
        >>> request = Request(prompt="a fish", seed=1)
        >>> check_given([request], torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8))
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: a mask must have the size of its photo, the masks are (8, 8) and the photos (16, 16); ...
    """
    for what, stack, shape in (("images", images, "(N, 3, H, W)"), ("masks", masks, "(N, H, W)")):
        if stack is None:
            continue
        ranks = 4 if what == "images" else 3
        if stack.ndim != ranks or len(stack) != len(requests) or (what == "images" and stack.shape[1] != 3):
            raise SettingError(f"{what} must be {shape}, one for each of {len(requests)} requests, got {tuple(stack.shape)}; stack them so")
    if images is not None and images.dtype != torch.uint8:
        raise SettingError(f"images must be uint8, got {images.dtype}; turn them back with synthaug.pixels.to_uint8")
    if masks is None:
        return
    if images is None and any(request.image is None for request in requests):
        raise SettingError("a mask needs a photo: hand images over with masks, or give each request its image")
    if any(request.hires is not None for request in requests):
        raise SettingError("a second pass redraws the whole picture, and a mask keeps a part of it; leave out hires, or the masks")
    if images is not None and masks.shape[1:] != images.shape[2:]:
        _refuse_sizes("the masks are", tuple(masks.shape[1:]), "and the photos", tuple(images.shape[2:]))


def _refuse_sizes(mask: str, of_mask: tuple[int, ...], photo: str, of_photo: tuple[int, ...]) -> None:
    raise SettingError(
        f"a mask must have the size of its photo, {mask} {of_mask} {photo} {of_photo}; make the mask from the photo as it lies on disk, "
        "turned upright"
    )


def jobs_of(requests: Sequence[Request], networks: Networks, photos: Tensor | None = None, masks: Tensor | None = None) -> list[Job]:
    """What the denoise loop needs of each request.

    Args:
        requests: All of one size.
        networks: Encode the photos.
        photos: Photos to start from, uint8 (N, 3, H, W), instead of the requests' own files.
        masks: Where they are redrawn, uint8 (N, H, W), instead of the requests' own files.

    Raises:
        SettingError: If a mask is empty, or has another size than its photo; if the base fills in and there is no mask.
        UnusableFileError: If a photo or a mask cannot be read.
    """
    return [
        _job(request, networks, None if photos is None else photos[row], None if masks is None else masks[row])
        for row, request in enumerate(requests)
    ]


def _job(request: Request, networks: Networks, photo: Tensor | None, mask: Tensor | None) -> Job:
    photo, mask = _framed_pair(request, photo, mask)
    check_filled(networks.base, masked=mask is not None)
    noise, generator = starting_noise(request, networks.latent_shape(request.size), networks.device)
    plain: dict[str, Any] = {"request": request, "size": request.size, "noise": noise, "generator": generator}
    if photo is None:
        return Job(**plain, steps=request.steps)
    steps, first = evaluations(request.steps, request.strength, exact=request.exact_steps)
    plain |= {"steps": steps, "first": first, "ignores_start": request.strength == 1}
    if mask is None:
        return Job(**plain, start=networks.encode(to_float(photo)[None])[0], photo=photo)
    region = region_of(photo, mask, request)
    return Job(**plain, **begun(region, request, noise, networks), photo=region.photo, paste=region.paste)


def _framed_pair(request: Request, photo: Tensor | None, mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Photo and mask, those handed over before those of the request, both framed to its size."""
    photo_read, mask_read = photo is None and request.image is not None, mask is None and request.mask is not None
    if photo_read:
        assert request.image is not None
        photo = read_image(request.image)
    if mask_read:
        assert request.mask is not None
        mask = read_mask(request.mask)
    if photo is None:
        return None, None
    if mask is None:
        return framed(photo.cpu(), request.size), None
    if mask.shape != photo.shape[1:]:
        names = (request.mask if mask_read else "the mask", request.image if photo_read else "the photo")
        _refuse_sizes(f"{names[0]} is", tuple(mask.shape), f"and {names[1]}", tuple(photo.shape[1:]))
    return framed(photo.cpu(), request.size), framed_mask((mask.cpu() > 0).byte(), request.size)
