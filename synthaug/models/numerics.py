"""Which precision suits a card, and what to do when a network answers NaN.

Cards of the GTX 16 family give NaN in half precision (a cuDNN problem, pytorch#58123); Pascal stores
fp16 but computes it slowly or wrongly; Ampere and later have bfloat16.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from synthaug.errors import NumericsError, choose

__all__ = ["DECODED_AT_A_TIME", "FirstNaN", "Precision", "choose_precision", "decode_latents", "watched"]

DECODED_AT_A_TIME = 1 << 20
"""Pixels that are decoded at a time on a card: four pictures of 512 x 512, one of 1024 x 1024."""

PrecisionName = Literal["auto", "fp32", "fp16", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How weights are stored and how numbers are computed."""

    storage: torch.dtype
    """Type of the frozen weights."""

    autocast: torch.dtype | None
    """Type that matrix products run in; None computes in the storage type."""


_BY_NAME = {
    "fp32": Precision(storage=torch.float32, autocast=None),
    "fp16": Precision(storage=torch.float16, autocast=torch.float16),
    "bf16": Precision(storage=torch.bfloat16, autocast=torch.bfloat16),
}


def choose_precision(
    name: PrecisionName, device: torch.device | str, *, capability: tuple[int, int] | None = None, card: str | None = None
) -> Precision:
    """Pick the precision for a device.

    Args:
        name: ``"auto"`` looks at the card; ``"fp32"``, ``"fp16"`` and ``"bf16"`` are taken at their word.
        device: Where the networks will run.
        capability: CUDA compute capability; asked of the card when left out.
        card: The card's name, which tells the GTX 16 family from other Turing cards; asked of the card when both are left out.

    Returns:
        fp32 on a CPU; bf16 from Ampere (8.0) on; fp16 on Volta and Turing (7.0, 7.5 with tensor cores);
        fp16 storage with fp32 arithmetic on Pascal and before.

    Raises:
        SettingError: If the name is unknown.

    Example:
        >>> choose_precision("auto", "cpu").storage
        torch.float32
        >>> choose_precision("auto", "cuda", capability=(6, 1)).autocast
        torch.float32
    """
    if name != "auto":
        return choose("precision", name, _BY_NAME)
    if torch.device(device).type != "cuda":
        return _BY_NAME["fp32"]
    major, minor = capability or torch.cuda.get_device_capability(device)
    if major >= 8:
        return _BY_NAME["bf16"]
    called = torch.cuda.get_device_name(device) if capability is None and card is None else card or ""
    if major == 7 and not _is_gtx16(called, (major, minor)):
        return _BY_NAME["fp16"]
    return Precision(storage=torch.float16, autocast=torch.float32)


def _is_gtx16(card: str, capability: tuple[int, int]) -> bool:
    return capability == (7, 5) and any(mark in card for mark in ("GTX 16", "T500", "T550", "T600", "MX450", "MX550"))


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: Tensor, *, repairs: list[list[str]] | None = None) -> Tensor:
    """Turn latents into pictures, one by one again in bf16 or fp32 where half precision gave NaN.

    Args:
        vae: The decoder; it is left as it is.
        latents: Scaled latents, (B, C, h, w).
        repairs: A list for each row, to which its repairs are added: ``VAE in bf16``, ``VAE in fp32``.

    Returns:
        float (B, 3, 8 h, 8 w), about [-1, 1].

    Raises:
        NumericsError: If the latents are NaN, or a picture is NaN in fp32 too.
    """
    if not torch.isfinite(latents).all():
        rows = [i for i, z in enumerate(latents) if not torch.isfinite(z).all()]
        raise NumericsError(
            f"a denoised latent must be finite, {len(rows)} of {len(latents)} are NaN or infinite (rows {rows[:8]}); "
            "draw with --precision fp32, or with a lower guidance or LoRA weight"
        )
    scale = float(vae.config["scaling_factor"])
    pictures: Tensor = vae.decode((latents / scale).to(vae.dtype)).sample.float()
    for row in range(len(pictures)):
        if not torch.isfinite(pictures[row]).all():
            pictures[row], how = _decode_again(vae, latents[row : row + 1] / scale, row)
            if repairs is not None:
                repairs[row].append(f"VAE in {how}")
    return pictures


def _decode_again(vae: AutoencoderKL, latent: Tensor, row: int) -> tuple[Tensor, str]:
    """Decode one latent with a copy of the decoder that sees larger numbers, and say in which precision that was."""
    ways = {"bf16": torch.bfloat16, "fp32": torch.float32}
    if vae.dtype != torch.float16 or latent.device.type != "cuda" or torch.cuda.get_device_capability(latent.device)[0] < 8:
        del ways["bf16"]  # it is of the same precision, or the card has none
    for how, dtype in ways.items():
        picture: Tensor = copy.deepcopy(vae).to(dtype).decode(latent.to(dtype)).sample[0].float()
        if torch.isfinite(picture).all():
            return picture, how
    raise NumericsError(f"the decoder answered NaN for picture {row} even in fp32; the VAE file is damaged, load the base again")


@dataclass
class FirstNaN:
    """Where NaN or infinity came up first."""

    module: str | None = None
    """Path of the module; None if every module answered numbers."""

    given: bool = False
    """Whether what the module was given held NaN already."""


@contextmanager
def watched(network: nn.Module) -> Iterator[FirstNaN]:
    """Watch every innermost module of a network while it answers.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> _ = network[1].weight.data.fill_(float("nan"))
        >>> with watched(network) as found:
        ...     _ = network(torch.ones(1, 2))
        >>> found
        FirstNaN(module='1', given=False)
    """
    found = FirstNaN()
    hooks = [
        module.register_forward_hook(partial(_look, found, name))
        for name, module in network.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _look(found: FirstNaN, name: str, _: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
    if found.module is None and isinstance(answer, Tensor) and not torch.isfinite(answer).all():
        found.module = name
        found.given = any(isinstance(each, Tensor) and each.is_floating_point() and not torch.isfinite(each).all() for each in given)
