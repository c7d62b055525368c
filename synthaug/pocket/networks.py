"""The shapes of pocket's three networks: Stable Diffusion's own classes, made small.

Everything together must stay within 24 MB in fp16, 12 million weights.
"""

from __future__ import annotations

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

__all__ = ["LATENT_CHANNELS", "build_autoencoder", "build_denoiser", "build_schedule", "build_text_encoder"]

LATENT_CHANNELS = 16
"""Values per 8 x 8 pixels; the linear code at this size keeps 32 dB of a photo, SD 1.x's four only 25."""

TEXT_WIDTH = 128


def build_autoencoder() -> AutoencoderKL:
    """An autoencoder of one eighth the size, without attention: it works on crops of any size."""
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 120),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=128,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    _start_blocks_as_identity(model)
    return model


def build_denoiser() -> UNet2DConditionModel:
    """A UNet of two sizes: convolutions alone at 16 x 16, attention to itself and to the text at 8 x 8.

    The pooled text is added to the time embedding, so that the convolutions at 16 x 16 hear of it too.
    """
    model = UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(96, 192),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    _start_blocks_as_identity(model)
    return model


def build_text_encoder(vocabulary: int, *, bos: int, eos: int) -> CLIPTextModel:
    """A two-layer CLIP text encoder for 77 tokens."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=eos,
        )
    )


def build_schedule() -> DDIMScheduler:
    """The noise schedule of SD 1.x."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def _start_blocks_as_identity(model: nn.Module) -> None:
    """Zero the last convolution of every residual block, so that each starts as its own shortcut.

    Goyal et al. 2017, section 5.1, https://arxiv.org/abs/1706.02677.
    """
    for module in model.modules():
        if type(module).__name__ == "ResnetBlock2D":
            last = module.conv2
            assert isinstance(last, nn.Conv2d)
            for weight in last.parameters():
                nn.init.zeros_(weight)
