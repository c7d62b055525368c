from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from synthaug.lora.naming import kohya_name, modules_by_name


@pytest.fixture(scope="module")
def sd15_unet() -> nn.Module:
    """The UNet of SD 1.5 in full size, without memory behind its weights."""
    with torch.device("meta"):
        return UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        ),
        (
            "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0",
        ),
        (
            "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj",
            "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj",
        ),
        ("down_blocks.2.attentions.1.proj_in", "lora_unet_down_blocks_2_attentions_1_proj_in"),
    ],
)
def test_modules_of_sd15_have_the_names_that_kohya_writes(sd15_unet, path, name):
    modules = modules_by_name(sd15_unet, "unet")

    assert kohya_name(path, "unet") == name
    assert modules[name] is sd15_unet.get_submodule(path)


def test_every_layer_of_sd15_is_found_again_by_its_name(sd15_unet):
    leaves = {path: module for path, module in sd15_unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}

    modules = modules_by_name(sd15_unet, "unet")

    assert len(modules) == len(leaves)
    assert all(modules[kohya_name(path, "unet")] is module for path, module in leaves.items())


def test_text_encoder_names_are_the_same_with_and_without_the_old_prefix():
    path = "encoder.layers.3.self_attn.q_proj"

    names = {kohya_name(path, "text_encoder"), kohya_name(f"text_model.{path}", "text_encoder")}

    assert names == {"lora_te_text_model_encoder_layers_3_self_attn_q_proj"}
