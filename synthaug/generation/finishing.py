"""From latents to pixels: the base's own decoder or a tiny one, and a look at every picture.

A tiny autoencoder (AutoencoderTiny, https://github.com/madebyollin/taesd) decodes at about a twentieth of the cost and softens fine
texture, small defects with it; the latents are kept, so that they can be decoded again in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from synthaug.errors import SettingError
from synthaug.generation.guard import looks
from synthaug.generation.networks import Networks
from synthaug.generation.speed import TINY
from synthaug.models.numerics import DECODED_AT_A_TIME, decode_latents
from synthaug.pixels import to_uint8

__all__ = ["Decoder", "Drawn", "Finisher", "pixels_of"]

Decoder = Literal["full", "tiny"]

_AT_A_TIME = {"cpu": 1 << 15}
"""Pixels that are decoded at a time: on a CPU what stays in its cache, two pictures of pocket's size; measured on pocket, 16 at a time
take 1.6 times as long. A card takes :data:`DECODED_AT_A_TIME`."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What became of requests, in their order."""

    images: Tensor
    """uint8 (N, 3, H, W)."""

    latents: Tensor | None
    """What they were decoded from, fp32 (N, C, h, w) on the CPU, for :meth:`Sampler.decode`; None where pixels were put in afterwards."""

    repairs: tuple[tuple[str, ...], ...]
    """What had to be repaired for each, or is odd about it: see :mod:`synthaug.generation.guard`."""


class Finisher:
    """Decodes latents.

    Args:
        networks: Of the base.
        tiny: Folder or hub id of the tiny autoencoder; None is that of the base's family.
    """

    def __init__(self, networks: Networks, *, tiny: Path | str | None = None) -> None:
        self._networks, self._place = networks, tiny
        self._loaded: AutoencoderTiny | None = None

    @torch.inference_mode()
    def __call__(self, latents: Tensor, *, decoder: Decoder = "full") -> tuple[Tensor, list[tuple[str, ...]]]:
        """Pictures of latents (N, C, h, w): uint8 (N, 3, H, W) on the CPU, and for each what was repaired or is odd.

        Raises:
            NumericsError: If a latent, or its picture in fp32 too, is not finite.
            SettingError: If there is no tiny decoder.
        """
        networks = self._networks
        latents = latents.to(networks.device)
        pixels = latents.shape[-2] * latents.shape[-1] * networks.factor**2
        most = max(1, _AT_A_TIME.get(networks.device.type, DECODED_AT_A_TIME) // pixels)
        repairs: list[list[str]] = [[] for _ in latents]
        pictures = []
        for at in range(0, len(latents), most):
            some = latents[at : at + most]
            if decoder == "tiny":
                pictures.append(to_uint8(self._tiny().decode(some.to(networks.vae.dtype)).sample.float()).cpu())
            else:
                pictures.append(to_uint8(decode_latents(networks.vae, some, repairs=repairs[at : at + most])).cpu())
        images = torch.cat(pictures)
        return images, [(*done, *odd) for done, odd in zip(repairs, looks(images), strict=True)]

    def network(self, decoder: Decoder) -> nn.Module:
        """What a decoder's pictures come from, on its device.

        Raises:
            SettingError: If there is no tiny decoder.
        """
        found: nn.Module = self._tiny() if decoder == "tiny" else self._networks.vae
        return found

    def _tiny(self) -> AutoencoderTiny:
        if self._loaded is None:
            self._loaded = tiny_decoder(self._networks, self._place)
        return self._loaded


def tiny_decoder(networks: Networks, place: Path | str | None) -> AutoencoderTiny:
    """The tiny autoencoder of a base, on its device.

    Raises:
        SettingError: If it cannot be found, or is made for other latents.
    """
    base, channels = networks.base, int(networks.vae.config["latent_channels"])
    if place is None and channels != 4:
        raise SettingError(
            f"a tiny decoder is made for one kind of latents, there is none for the {channels} channels of {base.name}; draw with decoder "
            "full, or give Sampler(tiny_decoder=FOLDER)"
        )
    place = str(place or TINY[base.family])
    try:
        found = AutoencoderTiny.from_pretrained(place, torch_dtype=networks.vae.dtype)
    except (OSError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise SettingError(
            f"no tiny decoder {place} was found here or on the hub ({first}); draw with decoder full, or give Sampler(tiny_decoder=FOLDER) "
            "a folder that holds an AutoencoderTiny"
        ) from error
    if int(found.config["latent_channels"]) != channels:
        raise SettingError(
            f"a tiny decoder must be made for the base's latents of {channels} channels, {place} takes {found.config['latent_channels']}; "
            "give that of the base's family, or draw with decoder full"
        )
    return found.to(networks.device).eval().requires_grad_(requires_grad=False)


def pixels_of(latents: Tensor, networks: Networks) -> Tensor:
    """Pictures of latents (N, C, h, w) by the base's own decoder: uint8 (N, 3, H, W) on the CPU.

    Raises:
        NumericsError: If a latent, or its picture in fp32 too, is not finite.
    """
    return Finisher(networks)(latents)[0]
