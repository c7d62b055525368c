"""How many operations a run will take: 1 multiplication and addition are 2, as cards are measured."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import torch
from diffusers import AutoencoderTiny
from torch.utils.flop_counter import FlopCounterMode

from synthaug.models.blueprint import Blueprint

__all__ = ["operations_of_call", "operations_of_decoding"]


@torch.no_grad()
def operations_of_call(plan: Blueprint, size: tuple[int, int]) -> float:
    """Operations of a UNet's answer to one row.

    Example:
        >>> from synthaug.models.blueprint import blueprint_of
        >>> round(operations_of_call(blueprint_of("pocket"), (128, 128)) / 1e9, 1)
        1.5
    """
    unet = plan.build_unet().eval()
    latents = (size[0] // plan.factor, size[1] // plan.factor)
    with torch.device("meta"), counting() as counted:
        unet(
            torch.empty(1, plan.shown, *latents), torch.empty(1), torch.empty(1, 77, plan.width),
            added_cond_kwargs=plan.more(1), return_dict=False,
        )  # fmt: skip
    return float(counted.get_total_flops())


@torch.no_grad()
def operations_of_decoding(plan: Blueprint, size: tuple[int, int], decoder: Literal["full", "tiny"] = "full") -> float:
    """Operations of decoding one picture."""
    with torch.device("meta"), counting() as counted:
        network = plan.build_vae() if decoder == "full" else AutoencoderTiny(latent_channels=plan.channels)
        network.eval().decode(torch.empty(1, plan.channels, size[0] // plan.factor, size[1] // plan.factor))
    return float(counted.get_total_flops())


def counting() -> FlopCounterMode:
    """A counter that knows attention on a CPU, too, which PyTorch's own leaves out."""
    attention = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    return FlopCounterMode(display=False, custom_mapping={} if attention is None else {attention: _attention})


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Two products for every pair of places: queries by keys (B, H, n, m), and those by values (B, H, n, d)."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
