"""Networks of a few thousand weights, made in memory: Stable Diffusion XL, inpainting, and what a batch for them is."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from synthaug.models.load import Base, fingerprint

SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
WIDTH, POOLED = 16, 12


def tiny_unet(*, family: str = "sd1", inpaints: bool = False, seed: int = 0) -> UNet2DConditionModel:
    """A UNet of two blocks; for SDXL it takes two encoders' states and sizes."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {}
    if family == "sdxl":
        sizes = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": POOLED + 6 * 4}
    return UNet2DConditionModel(
        sample_size=4, in_channels=9 if inpaints else 4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * WIDTH if family == "sdxl" else WIDTH, attention_head_dim=2, **sizes,
    ).eval().requires_grad_(requires_grad=False)  # fmt: skip


def tiny_encoder(*, projects: bool = False, seed: int = 1) -> Any:
    """A CLIP of two layers."""
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=64, hidden_size=WIDTH, intermediate_size=32, projection_dim=POOLED, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=62, eos_token_id=63, pad_token_id=63,
    )  # fmt: skip
    made = CLIPTextModelWithProjection(config) if projects else CLIPTextModel(config)
    return made.eval().requires_grad_(requires_grad=False)


def tiny_base_of(family: str = "sd1", *, inpaints: bool = False, schedule: dict[str, Any] | None = None) -> Base:
    """What ``load_base`` would give."""
    unet = tiny_unet(family=family, inpaints=inpaints)
    return Base(
        name="tiny", schedule=schedule or SCHEDULE, size=(32, 32), unet=unet, fingerprint=fingerprint(unet), family=family,
        inpaints=inpaints, text_encoder=tiny_encoder(), text_encoder_2=tiny_encoder(projects=True, seed=2) if family == "sdxl" else None,
    )  # fmt: skip


def tiny_batch(count: int = 3, *, family: str = "sd1", chunks: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random latents, text states and token ids; odd and unequal sides."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 60, (count, 77 * chunks), generator=generator)
    tokens[:, ::77], tokens[:, 76::77] = 62, 63
    batch = {
        "mean": torch.randn(count, 4, 4, 6, generator=generator),
        "std": torch.full((count, 4, 4, 6), 0.1),
        "states": torch.randn(count, 77 * chunks, WIDTH * (2 if family == "sdxl" else 1), generator=generator),
        "tokens": tokens,
    }
    if family == "sdxl":
        batch |= {
            "tokens_2": tokens.clone(),
            "pooled": torch.randn(count, POOLED, generator=generator),
            "time_ids": torch.tensor([[32, 48, 0, 0, 32, 48]] * count),
        }
    return batch
