"""Shapes of the published bases, so that nothing need be there to plan for them.

From the ``config.json`` files of stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1 and stable-diffusion-xl-base-1.0 on the hub.
"""

from __future__ import annotations

from typing import Any

from synthaug.models.ldm_names import Family

__all__ = ["PUBLISHED", "USUAL_NAMES"]

Config = dict[str, Any]

_VAE: Config = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "sample_size": 512,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
_CLIP_L: Config = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768, "hidden_act": "quick_gelu",
}  # fmt: skip
_OPEN_H: Config = {
    "vocab_size": 49408, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "projection_dim": 512, "hidden_act": "gelu",
}  # fmt: skip
_OPEN_G: Config = {
    "vocab_size": 49408, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "projection_dim": 1280, "hidden_act": "gelu",
}  # fmt: skip
_SDXL_UNET: Config = {
    "sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
    "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": (1, 2, 10), "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip

PUBLISHED: dict[Family, tuple[Config, Config, tuple[Config, ...]]] = {
    "sd1": ({"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}, _VAE, (_CLIP_L,)),
    "sd2": (
        {"sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
        {**_VAE, "sample_size": 768}, (_OPEN_H,),
    ),
    "sdxl": (_SDXL_UNET, {**_VAE, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True}, (_CLIP_L, _OPEN_G)),
}  # fmt: skip
"""Family -> settings of UNet, autoencoder and text encoders; what is left out is as diffusers has it."""

USUAL_NAMES: dict[str, Family] = {
    "sd1": "sd1", "sd15": "sd1", "sd1.5": "sd1", "sd2": "sd2", "sd21": "sd2", "sd2.1": "sd2", "sdxl": "sdxl",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd1", "stabilityai/stable-diffusion-2-1": "sd2",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
}  # fmt: skip
"""What people call a published base -> its family."""
