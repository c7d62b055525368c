"""From a module's path to its name in a LoRA file, and back through the modules that there are.

kohya's names join the path with underscores, which cannot be undone by itself
(``to_out_0`` is ``to_out.0``), so names are looked up among those of a real network.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import nn

__all__ = ["NetworkKind", "kohya_name", "modules_by_name"]

NetworkKind = Literal["unet", "text_encoder", "text_encoder_2"]
_PREFIX: dict[NetworkKind, str] = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}


def kohya_name(path: str, kind: NetworkKind) -> str:
    """Name of a module in a kohya file.

    transformers 5.6 took ``text_model`` out of CLIP's paths; files keep it.

    Example:
        >>> kohya_name("mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", "unet")
        'lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0'
        >>> kohya_name("encoder.layers.0.mlp.fc1", "text_encoder")
        'lora_te_text_model_encoder_layers_0_mlp_fc1'
    """
    if kind != "unet" and not path.startswith("text_model."):
        path = f"text_model.{path}"
    return _PREFIX[kind] + path.replace(".", "_")


def modules_by_name(model: nn.Module, kind: NetworkKind) -> dict[str, nn.Module]:
    """Every module that a LoRA can sit on, by its kohya name."""
    return {kohya_name(path, kind): module for path, module in _leaves(model.named_modules())}


def _leaves(modules: Iterable[tuple[str, nn.Module]]) -> Iterable[tuple[str, nn.Module]]:
    return ((path, module) for path, module in modules if isinstance(module, nn.Linear | nn.Conv2d))
