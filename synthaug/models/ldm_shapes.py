"""What networks a one-file checkpoint holds, told from the shapes of its weights.

Widths, depths, attention, channels and the kind of projection show in the shapes. What does not is as in every
published checkpoint: groups of normalisation (32), eight heads of attention in SD 1.x, heads of width 64 in all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthaug.models.ldm_names import Family

__all__ = ["Shapes", "text_config", "unet_config", "vae_config"]

Shapes = Mapping[str, tuple[int, ...]]
"""Name without the network's prefix -> shape. A name that must be there and is not is a KeyError."""

HEAD = 64
SCALING: dict[Family, float] = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}
CONDITIONS = 6
"""Numbers that SDXL is told besides the text: original size, crop, target size."""


def unet_config(shapes: Shapes, family: Family, pooled: int = 0) -> dict[str, Any]:
    """Settings of ``UNet2DConditionModel``, but for the size of its pictures.

    Args:
        shapes: The UNet's.
        family: Which it belongs to.
        pooled: Width of the second encoder's pooled text, SDXL only.
    """
    ends = sorted(int(name.split(".")[1]) for name in shapes if name.endswith(".0.op.weight"))
    blocks = {name.split(".")[1] for name in shapes if name.startswith("input_blocks.")}
    layers = (ends[0] if ends else len(blocks)) - 1
    firsts = [f"input_blocks.{1 + level * (layers + 1)}" for level in range(len(ends) + 1)]
    depths = [_depth(shapes, block) for block in firsts]
    widths = [shapes[f"{block}.0.out_layers.3.weight"][0] for block in firsts]
    linear = len(_first(shapes, "proj_in.weight")) == 2
    config = {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [*(max(1, depth) for depth in depths[:-1]), _depth(shapes, "middle_block")],
        "cross_attention_dim": _first(shapes, "attn2.to_k.weight")[1],
        "use_linear_projection": linear,
        "attention_head_dim": [max(1, width // HEAD) for width in widths] if linear else 8,
        "upcast_attention": family == "sd2",
    }
    if family == "sdxl":
        told = shapes["label_emb.0.0.weight"][1]
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (told - pooled) // CONDITIONS,
            "projection_class_embeddings_input_dim": told,
        }
    return config


def vae_config(shapes: Shapes, family: Family) -> dict[str, Any]:
    """Settings of ``AutoencoderKL``, but for the size of its pictures."""
    levels = len({name.split(".")[2] for name in shapes if name.startswith("encoder.down.")})
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": [shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)],
        "layers_per_block": len({name.split(".")[4] for name in shapes if name.startswith("encoder.down.0.block.")}),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in shapes,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "scaling_factor": SCALING[family],
    }


def text_config(shapes: Shapes, *, is_open: bool, drop_last: bool) -> dict[str, Any]:
    """Settings of ``CLIPTextModel``.

    Args:
        shapes: The encoder's.
        is_open: OpenCLIP's layout and activation, or CLIP's.
        drop_last: Leave out the last layer, which SD 2.x never uses.
    """
    layer = "transformer.resblocks." if is_open else "encoder.layers."
    at = layer.count(".")
    words, width = shapes["token_embedding.weight" if is_open else "embeddings.token_embedding.weight"]
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": shapes[f"{layer}0.mlp.{'c_fc' if is_open else 'fc1'}.weight"][0],
        "num_hidden_layers": len({name.split(".")[at] for name in shapes if name.startswith(layer)}) - drop_last,
        "num_attention_heads": max(1, width // HEAD),
        "max_position_embeddings": shapes["positional_embedding" if is_open else "embeddings.position_embedding.weight"][0],
        "projection_dim": shapes.get("text_projection", (width, width))[1],
        "hidden_act": "gelu" if is_open else "quick_gelu",
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": 0 if is_open else words - 1,
    }


def _depth(shapes: Shapes, block: str) -> int:
    """How many transformer blocks lie in a block; 0 where it does not attend."""
    start = f"{block}.1.transformer_blocks."
    return len({name.removeprefix(start).split(".")[0] for name in shapes if name.startswith(start)})


def _first(shapes: Shapes, ending: str) -> tuple[int, ...]:
    found = next((shape for name, shape in shapes.items() if name.endswith(ending)), None)
    if found is None:
        raise KeyError(ending)
    return found
