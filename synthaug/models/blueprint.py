"""A base without its weights: what its networks look like, and how to build them so that they hold no numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from synthaug.models.base import family_of
from synthaug.models.ldm_names import Family
from synthaug.models.load import configs_of
from synthaug.models.published import PUBLISHED, USUAL_NAMES

__all__ = ["Blueprint", "blueprint_of", "fill"]


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """Settings of a base's networks."""

    name: str
    """As the user gave it."""

    family: Family
    unet: dict[str, Any]
    vae: dict[str, Any]
    texts: tuple[dict[str, Any], ...]
    """One encoder, or SDXL's two."""

    @property
    def factor(self) -> int:
        """Pixels along the side of one place of the latent."""
        return int(2 ** (len(self.vae["block_out_channels"]) - 1))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that the base was made for."""
        side = self.unet.get("sample_size") or int(self.vae["sample_size"]) // self.factor
        height, width = side if isinstance(side, list | tuple) else (side, side)
        return int(height) * self.factor, int(width) * self.factor

    @property
    def channels(self) -> int:
        """Values of one place of the latent."""
        return int(self.vae.get("latent_channels", 4))

    @property
    def shown(self) -> int:
        """Values of one place of what the UNet is shown; more than the latent's where it fills in."""
        return int(self.unet.get("in_channels", self.channels))

    @property
    def width(self) -> int:
        """Values of one text state."""
        found = self.unet["cross_attention_dim"]
        return int(found[0] if isinstance(found, list | tuple) else found)

    def build_unet(self) -> UNet2DConditionModel:
        """The UNet, on the meta device."""
        with torch.device("meta"):
            return UNet2DConditionModel.from_config(self.unet)

    def build_vae(self) -> AutoencoderKL:
        """The autoencoder, on the meta device."""
        with torch.device("meta"):
            return AutoencoderKL.from_config(self.vae)

    def build_texts(self) -> list[nn.Module]:
        """The text encoders, on the meta device."""
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        with torch.device("meta"):
            return [kind(CLIPTextConfig(**config)) for kind, config in zip(kinds, self.texts, strict=False)]

    def more(self, rows: int) -> dict[str, Tensor]:
        """What SDXL's UNet is told besides the text; empty for others."""
        if self.family != "sdxl":
            return {}
        pooled = int(self.unet["projection_class_embeddings_input_dim"]) - 6 * int(self.unet["addition_time_embed_dim"])
        return {"text_embeds": torch.zeros(rows, pooled), "time_ids": torch.zeros(rows, 6)}


def blueprint_of(name: str) -> Blueprint:
    """The blueprint of a base; of the published ones by name, of others from their files, whose weights are not read.

    Args:
        name: ``sd15``, ``sd21``, ``sdxl``, their hub ids, or what :func:`synthaug.models.load.load_base` takes.

    Raises:
        UnusableFileError: If the files are damaged or of another kind.
        SettingError: If nothing of this name can be found.

    Example:
        >>> blueprint_of("sdxl").size
        (1024, 1024)
        >>> blueprint_of("pocket").channels
        16
    """
    if name in USUAL_NAMES and not Path(name).exists():
        family = USUAL_NAMES[name]
        unet, vae, texts = PUBLISHED[family]
        return Blueprint(name=name, family=family, unet=unet, vae=vae, texts=texts)
    unet, vae, texts = configs_of(name)
    return Blueprint(name=name, family=family_of(unet), unet=unet, vae=vae, texts=texts)


def fill(network: nn.Module, dtype_of: Callable[[str, nn.Module], torch.dtype]) -> list[Tensor]:
    """Replace what a network has on the meta device by empty tensors, of no size where FakeTensorMode is entered.

    ``Module.to_empty`` fails on fake tensors, so each weight is replaced by itself.

    Args:
        network: On the meta device; changed in place.
        dtype_of: Type of a module's weights, from its path and itself.

    Returns:
        All its weights and buffers.
    """
    found: list[Tensor] = []
    for path, module in network.named_modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            made = torch.empty(weight.shape, dtype=dtype_of(path, module))
            setattr(module, name, nn.Parameter(made, requires_grad=weight.requires_grad))
            found.append(made)
        for name, buffer in list(module.named_buffers(recurse=False)):
            kind = dtype_of(path, module) if buffer.is_floating_point() else buffer.dtype
            made = torch.zeros(buffer.shape, dtype=kind)
            setattr(module, name, made)
            found.append(made)
    return found
