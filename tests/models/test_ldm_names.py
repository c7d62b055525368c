"""At full size, on tensors without memory."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint, convert_open_clip_checkpoint
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from synthaug.models.base import family_of
from synthaug.models.ldm_names import TEXT, UNET, VAE, places_of_text, places_of_unet, places_of_vae, written
from synthaug.models.ldm_shapes import text_config, unet_config, vae_config

PUBLISHED = {
    "sd1": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True, "upcast_attention": True},
    "sdxl": {
        "block_out_channels": [320, 640, 1280], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20], "use_linear_projection": True, "transformer_layers_per_block": [1, 2, 10],
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip
"""Family -> what the published UNets' configurations say, beyond diffusers' defaults."""


@cache
def published(family):
    with torch.device("meta"):
        return UNet2DConditionModel(**PUBLISHED[family])


@pytest.fixture(params=PUBLISHED)
def unet(request):
    return published(request.param)


def files_weights(network, places):
    return written(network.state_dict(), places)


def shapes(weights, prefix):
    return {name.removeprefix(prefix): tuple(weight.shape) for name, weight in weights.items()}


def test_every_weight_of_a_published_unet_has_the_name_that_diffusers_expects(unet):
    weights = files_weights(unet, places_of_unet(unet.state_dict(), 2))

    theirs = convert_ldm_unet_checkpoint(dict(weights), unet.config)

    assert {key: weight.shape for key, weight in theirs.items()} == {key: weight.shape for key, weight in unet.state_dict().items()}
    assert len(weights) == (1680 if family_of(unet.config) == "sdxl" else 686)


def test_the_settings_of_a_published_unet_show_in_its_shapes(unet):
    family = family_of(unet.config)
    weights = files_weights(unet, places_of_unet(unet.state_dict(), 2))

    found = unet_config(shapes(weights, UNET), family, pooled=1280)

    depth = unet.config["transformer_layers_per_block"]
    theirs = {**unet.config, "transformer_layers_per_block": [depth] * 4 if isinstance(depth, int) else depth}
    for key, value in found.items():
        assert value == (list(theirs[key]) if isinstance(value, list) else theirs[key]), key


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight", "input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight"),
        ("up_blocks.0.attentions.1.proj_in.weight", "output_blocks.1.1.proj_in.weight"),
        ("mid_block.resnets.1.conv2.bias", "middle_block.2.out_layers.3.bias"),
        ("down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.2.conv.weight"),
        ("add_embedding.linear_1.weight", "label_emb.0.0.weight"),
    ],
)
def test_names_are_those_by_which_lora_files_of_sdxl_call_its_modules(place, name):
    assert places_of_unet(published("sdxl").state_dict(), 2)[place].name == UNET + name


def test_every_weight_of_the_autoencoder_has_the_name_and_form_that_diffusers_expects():
    settings = {
        "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 4,         "up_block_types": ["UpDecoderBlock2D"] * 4,
    }  # fmt: skip
    with torch.device("meta"):
        vae = AutoencoderKL(**settings)
    weights = files_weights(vae, places_of_vae(vae.state_dict(), 4))

    theirs = convert_ldm_vae_checkpoint(dict(weights), vae.config)
    found = vae_config(shapes(weights, VAE), "sdxl")

    assert {key: weight.shape for key, weight in theirs.items()} == {key: weight.shape for key, weight in vae.state_dict().items()}
    assert weights["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (512, 512, 1, 1)
    assert len(weights) == 248
    assert {key: found[key] for key in settings} == settings
    assert (found["mid_block_add_attention"], found["scaling_factor"]) == (True, 0.13025)


def test_every_weight_of_the_second_encoder_of_sdxl_has_the_name_and_form_that_diffusers_expects():
    settings = {
        "vocab_size": 49408, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
        "projection_dim": 1280, "hidden_act": "gelu", "bos_token_id": 49406, "eos_token_id": 49407,
    }  # fmt: skip
    with torch.device("meta"):
        encoder = CLIPTextModelWithProjection(CLIPTextConfig(**settings))
    prefix = TEXT["sdxl"][1]
    weights = files_weights(encoder, places_of_text(encoder.state_dict(), prefix))

    theirs = convert_open_clip_checkpoint(encoder, dict(weights), prefix)
    found = text_config(shapes(weights, prefix), is_open=True, drop_last=False)

    assert {key: weight.shape for key, weight in theirs.items()} == {key: weight.shape for key, weight in encoder.state_dict().items()}
    assert weights[f"{prefix}transformer.resblocks.31.attn.in_proj_weight"].shape == (3840, 1280)
    assert len(weights) == 32 * 12 + 5
    assert {key: found[key] for key in settings} == settings


@pytest.mark.parametrize(("stored", "used"), [(24, 23), (23, 23), (3, 2)])
def test_the_last_layer_of_sd_2_is_left_out_unless_it_was_left_out_before(stored, used):
    shapes = {"token_embedding.weight": (49408, 1024), "positional_embedding": (77, 1024)}
    shapes |= {f"transformer.resblocks.{layer}.mlp.c_fc.weight": (4096, 1024) for layer in range(stored)}

    assert text_config(shapes, is_open=True, drop_last=True)["num_hidden_layers"] == used


def test_a_weight_without_a_name_in_the_layout_has_no_place():
    assert places_of_unet(["add_embedding.pool.positional_embedding"], 1) == {}
