"""From a module's path to its name in a LoRA file, and back through the modules that there are.

kohya's names join the path with underscores, which cannot be undone by itself
(``to_out_0`` is ``to_out.0``), so names are looked up among those of a real network.

A base with one text encoder names its layers ``lora_te_``, one with two ``lora_te1_`` and ``lora_te2_``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import nn

__all__ = ["PREFIXES", "NetworkKind", "kohya_name", "modules_by_name", "modules_of", "network_of", "numbered"]

NetworkKind = Literal["unet", "text_encoder", "text_encoder_2"]
PREFIXES: dict[NetworkKind, tuple[str, ...]] = {
    "unet": ("lora_unet_",),
    "text_encoder": ("lora_te_", "lora_te1_"),
    "text_encoder_2": ("lora_te2_",),
}
"""Network -> how the names of its layers begin; the last one where the base has two text encoders."""


def kohya_name(path: str, kind: NetworkKind, *, two_encoders: bool = False) -> str:
    """Name of a module in a kohya file.

    transformers 5.6 took ``text_model`` out of CLIP's paths; files keep it.

    Args:
        path: Of the module in its network.
        kind: The network.
        two_encoders: Whether the base has two text encoders, as SDXL has, so that the first is numbered too.

    Example:
        >>> kohya_name("mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", "unet")
        'lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0'
        >>> kohya_name("encoder.layers.0.mlp.fc1", "text_encoder")
        'lora_te_text_model_encoder_layers_0_mlp_fc1'
        >>> kohya_name("encoder.layers.0.mlp.fc1", "text_encoder", two_encoders=True)
        'lora_te1_text_model_encoder_layers_0_mlp_fc1'
    """
    if kind != "unet" and not path.startswith("text_model."):
        path = f"text_model.{path}"
    return PREFIXES[kind][-1 if two_encoders else 0] + path.replace(".", "_")


def modules_by_name(
    model: nn.Module, kind: NetworkKind, *, two_encoders: bool = False, norms: bool = False
) -> dict[str, nn.Module]:  # fmt: skip
    """Every module that a LoRA can sit on, by its kohya name; with ``norms`` those too that only a full change can."""
    kinds = (nn.Linear, nn.Conv2d, *((nn.GroupNorm, nn.LayerNorm) if norms else ()))
    return {kohya_name(path, kind, two_encoders=two_encoders): m for path, m in model.named_modules() if isinstance(m, kinds)}


def modules_of(networks: Mapping[NetworkKind, nn.Module]) -> dict[str, nn.Module]:
    """Every module of a base's networks by its kohya name, norms included; two text encoders are numbered."""
    two = "text_encoder_2" in networks
    found: dict[str, nn.Module] = {}
    for kind, network in networks.items():
        found |= modules_by_name(network, kind, two_encoders=two, norms=True)
    return found


def network_of(name: str) -> NetworkKind | None:
    """The network that a layer sits on, None for a name of no such network.

    Example:
        >>> network_of("lora_te2_text_model_encoder_layers_0_mlp_fc1")
        'text_encoder_2'
    """
    return next((kind for kind, prefixes in PREFIXES.items() if name.startswith(prefixes)), None)


def numbered(name: str, *, two_encoders: bool) -> str:
    """The name with its text encoder numbered, or not.

    Example:
        >>> numbered("lora_te_x", two_encoders=True), numbered("lora_te1_x", two_encoders=False)
        ('lora_te1_x', 'lora_te_x')
    """
    one, two = PREFIXES["text_encoder"]
    old, new = (one, two) if two_encoders else (two, one)
    return new + name.removeprefix(old) if name.startswith(old) else name
