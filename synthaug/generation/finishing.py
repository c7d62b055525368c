"""From latents to pixels."""

from __future__ import annotations

from torch import Tensor

from synthaug.generation.networks import Networks
from synthaug.models.numerics import decode_latents
from synthaug.pixels import to_uint8

__all__ = ["pixels_of"]


def pixels_of(latents: Tensor, networks: Networks) -> Tensor:
    """Pictures of latents (N, C, h, w): uint8 (N, 3, H, W) on the CPU.

    Raises:
        NumericsError: If a latent, or its picture in fp32 too, is not finite.
    """
    return to_uint8(decode_latents(networks.vae, latents)).cpu()
