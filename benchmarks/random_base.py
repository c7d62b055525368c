"""Bases of a real shape with random weights, for figures that need no pictures."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from synthaug.pocket.words import train_tokenizer

__all__ = ["SHAPES", "make_base"]

_SD15: dict[str, dict[str, Any]] = {
    "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "vae": {
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "sample_size": 512,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    },
    "text": {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
}  # fmt: skip
_TINY: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 8, "cross_attention_dim": 16, "attention_head_dim": 2, "block_out_channels": (8, 16), "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
    "vae": _SD15["vae"] | {"block_out_channels": (4, 4, 8, 8), "norm_num_groups": 2, "sample_size": 64},
    "text": {"vocab_size": 1024, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
}  # fmt: skip
SHAPES = {"sd15": _SD15, "tiny": _TINY}


def make_base(folder: Path, shape: str) -> Path:
    """Write a diffusers folder, one network after the other, so that memory holds no more than the largest.

    Args:
        folder: Where to.
        shape: ``sd15``, or ``tiny`` to try a benchmark out.
    """
    settings = SHAPES[shape]
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a photo of a fish on white paper"], folder / "tokenizer")
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id}
    tokenizer.save_pretrained(folder / "tokenizer")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    for name, make in (
        ("unet", lambda: UNet2DConditionModel(**settings["unet"])),
        ("vae", lambda: AutoencoderKL(**settings["vae"])),
        ("text_encoder", lambda: CLIPTextModel(CLIPTextConfig(**settings["text"], **ids))),
    ):
        make().save_pretrained(folder / name)
        gc.collect()
    parts = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "DDIMScheduler"}
    index = {"_class_name": "StableDiffusionPipeline", **{name: ["diffusers", kind] for name, kind in parts.items()}}
    index |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
