"""The shapes of pocket's three networks: Stable Diffusion's own classes, made small.

Everything together must stay within 24 MB in fp16, 12 million weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from synthaug.diffusion.objective import Target
from synthaug.diffusion.schedule import NoiseSchedule

__all__ = [
    "KIND",
    "LATENT_CHANNELS",
    "SCHEDULE",
    "DenoiserShape",
    "build_autoencoder",
    "build_denoiser",
    "build_schedule",
    "build_text_encoder",
]

LATENT_CHANNELS = 16
"""Values per 8 x 8 pixels; the linear code at this size keeps 32 dB of a photo, SD 1.x's four only 25."""

TEXT_WIDTH = 128

SCHEDULE = NoiseSchedule(last=0.0)
"""That of SD 1.x, stretched to end in noise alone. At SD's own end the mean of the latent still shows through, and all
drawn pictures come out equally bright: Lin et al. 2023, https://arxiv.org/abs/2305.08891."""

KIND: Target = "v_prediction"
"""What the denoiser predicts; epsilon says nothing of the picture where there is almost only noise."""


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


@dataclass(frozen=True, kw_only=True)
class DenoiserShape:
    """What the study of docs/decisions/0007 varies; the defaults are what ships."""

    channels: int = LATENT_CHANNELS
    """Values of one latent pixel."""

    size: int = 16
    """Side of the latent."""

    widths: tuple[int, ...] = (96, 192)
    """Channels at each level, finest first."""

    hearing: tuple[bool, ...] = (False, True)
    """Which levels attend to the text and to themselves."""

    layers: int = 1
    """Residual blocks on the way down at each level; one more on the way up."""


def build_denoiser(shape: DenoiserShape | None = None) -> UNet2DConditionModel:
    """A UNet of two sizes: convolutions alone at 16 x 16, attention to itself and to the text at 8 x 8.

    The pooled text is added to the time embedding, so that the convolutions at 16 x 16 hear of it too.
    """
    shape = shape or DenoiserShape()
    model = UNet2DConditionModel(
        sample_size=shape.size,
        in_channels=shape.channels,
        out_channels=shape.channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if hears else "DownBlock2D" for hears in shape.hearing),
        up_block_types=tuple("CrossAttnUpBlock2D" if hears else "UpBlock2D" for hears in reversed(shape.hearing)),
        block_out_channels=shape.widths,
        layers_per_block=shape.layers,
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
    """Pocket's schedule as diffusers writes it; it predicts v, as SD 2.x does."""
    return DDIMScheduler(
        num_train_timesteps=SCHEDULE.steps,
        beta_start=SCHEDULE.beta_start,
        beta_end=SCHEDULE.beta_end,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        rescale_betas_zero_snr=True,
        steps_offset=1,
        timestep_spacing="trailing",
        prediction_type=KIND,
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
