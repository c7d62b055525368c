"""Files for SDXL: numbered blocks, two text encoders. diffusers stands for the programs that read them."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import make_tiny_base
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from synthaug.errors import UnusableFileError, WrongBaseModelError
from synthaug.lora.blocks import diffusers_block, numbered_block
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import LoraLayer, target_paths
from synthaug.lora.naming import kohya_name, modules_by_name

KINDS = ("unet", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def tiny_xl(tmp_path_factory):
    """A diffusers folder of SDXL's layout: three levels, two residual blocks each, two text encoders."""
    folder = tmp_path_factory.mktemp("xl")
    make_tiny_base(folder / "words", seed=0)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "words", subfolder="tokenizer")
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=4, block_out_channels=(4, 8, 8), layers_per_block=2, norm_num_groups=2, attention_head_dim=(1, 2, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 1, 2),
        use_linear_projection=True, cross_attention_dim=24, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 16,
    )  # fmt: skip
    vae = AutoencoderKL(block_out_channels=(4, 4), norm_num_groups=2, down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2)  # fmt: skip
    widths = [
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=20, projection_dim=16, num_hidden_layers=2,
            num_attention_heads=2, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
        for width in (8, 16)
    ]  # fmt: skip
    StableDiffusionXLPipeline(
        vae=vae, unet=unet, scheduler=EulerDiscreteScheduler(), tokenizer=tokenizer, tokenizer_2=tokenizer,
        text_encoder=CLIPTextModel(widths[0]), text_encoder_2=CLIPTextModelWithProjection(widths[1]), add_watermarker=False,
    ).save_pretrained(folder / "tiny-xl")  # fmt: skip
    return folder / "tiny-xl"


def pipeline(folder):
    return StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)


def lora_for(pipe, *, even, metadata=None):
    """Layers on all three networks, convolutions included, with alphas of their own unless ``even``."""
    torch.manual_seed(5)
    found = {}
    for kind in KINDS:
        network, layers = getattr(pipe, kind), {}
        for row, path in enumerate(target_paths(network, "everything")):
            weight = network.get_submodule(path).weight
            rank = 3 if even else 1 + row % 3
            up = torch.randn(weight.shape[0], rank, *[1] * (weight.ndim - 2))
            layers[path] = LoraLayer(down=torch.randn(rank, *weight.shape[1:]), up=up, alpha=1.5 if even else 0.5 + row % 4)
        found[kind] = layers
    return LoraFile.of(found["unet"], found["text_encoder"], metadata or {}, text_encoder_2=found["text_encoder_2"], two_encoders=True)


def networks(pipe):
    return {kind: getattr(pipe, kind) for kind in KINDS}


@pytest.mark.parametrize(("layout", "even"), [("kohya", True), ("diffusers", False)])
def test_diffusers_loads_all_three_networks_with_the_very_same_weights(tiny_xl, tmp_path, layout, even):
    ours, theirs = pipeline(tiny_xl), pipeline(tiny_xl)
    file = lora_for(ours, even=even)
    file.write(tmp_path / "pytorch_lora_weights.safetensors", dtype=torch.float32, layout=layout)

    theirs.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    theirs.fuse_lora()
    before = file.fuse_into(networks(ours), 1.0)

    assert before.keys() == file.layers.keys()
    for kind in KINDS:
        found = {name.replace(".base_layer", ""): w for name, w in getattr(theirs, kind).named_parameters() if "lora_" not in name}
        for name, weight in getattr(ours, kind).named_parameters():
            assert torch.allclose(weight, found[name], atol=1e-5), f"{kind} {name}"


def test_files_have_the_numbered_blocks_that_kohyas_scripts_read(tiny_xl, tmp_path):
    lora_for(pipeline(tiny_xl), even=True).write(tmp_path / "a.safetensors")

    names = {key.partition(".")[0] for key in load_file(tmp_path / "a.safetensors")}

    wanted = {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", "lora_unet_middle_block_1_transformer_blocks_1_ff_net_0_proj",
        "lora_unet_output_blocks_0_1_proj_in", "lora_unet_input_blocks_3_0_op", "lora_unet_output_blocks_2_2_conv",
        "lora_unet_input_blocks_4_0_skip_connection", "lora_unet_output_blocks_8_0_emb_layers_1",
        "lora_te1_text_model_encoder_layers_1_mlp_fc1", "lora_te2_text_model_encoder_layers_0_self_attn_q_proj",
    }  # fmt: skip
    assert wanted <= names
    assert not [name for name in names if re.search("down_blocks|up_blocks|mid_block|lora_te_", name)]


def test_every_layer_of_sdxl_has_its_name_back_from_its_number():
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280), layers_per_block=2, transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True, cross_attention_dim=2048,
            addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        )  # fmt: skip

    names = list(modules_by_name(unet, "unet"))
    numbers = [numbered_block(name) for name in names]

    assert len(set(numbers)) == len(names)
    assert [diffusers_block(number) for number in numbers] == names
    assert not [number for number in numbers if re.search("down_blocks|up_blocks|mid_block|conv_in|embedding", number)]
    assert sum("transformer_blocks" in name or "attentions" in name for name in names) == 722, "kohya's count"
    assert len(target_paths(unet, "everything")) == 722 + 66


def test_the_first_encoder_alone_keeps_its_number_because_the_file_says_what_it_is_for(tiny_xl, tmp_path):
    pipe = pipeline(tiny_xl)
    whole = lora_for(pipe, even=False)
    few = {name: layer for name, layer in whole.layers.items() if name.startswith("lora_te1_")}
    file = LoraFile(layers=few, metadata=LoraFile.of({}, {}, {}, two_encoders=True).metadata)

    for layout in ("kohya", "diffusers", "peft"):
        file.write(tmp_path / layout, layout=layout)
        back = LoraFile.read(tmp_path / layout)
        assert back.family == "sdxl"
        assert back.layers.keys() == few.keys()
        assert back.fuse_into(networks(pipeline(tiny_xl)), 1.0).keys() == few.keys()


def test_training_goes_on_from_each_network_of_a_file(tiny_xl):
    pipe = pipeline(tiny_xl)
    file = lora_for(pipe, even=False)

    found = {kind: file.layers_on(getattr(pipe, kind), kind) for kind in KINDS}

    assert sum(map(len, found.values())) == len(file.layers)
    assert all(file.layers[kohya_name(path, kind, two_encoders=True)] is layer for kind in KINDS for path, layer in found[kind].items())


def test_a_lora_for_sdxl_on_another_base_is_refused_with_its_family(tiny_xl, tiny_base):
    file = lora_for(pipeline(tiny_xl), even=True)
    small = UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet")

    with pytest.raises(UnusableFileError, match=r"matches \d+ of \d+ .* another kind of base model, sdxl"):
        file.fuse_into({"unet": small}, 1.0)
    with pytest.raises(WrongBaseModelError, match="LoRA is for sdxl, 'pocket' is sd1; take another base"):
        file.check_base("pocket", "", "sd1")
    file.check_base("any", "", "sdxl")


@pytest.mark.parametrize(
    ("name", "width", "metadata", "family"),
    [
        ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", 768, {"ss_base_model_version": "sdxl_base_v1-0"}, "sd1"),
        ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", 1024, {}, "sd2"),
        ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v", 2048, {}, "sdxl"),
        ("lora_unet_mid_block_attentions_0_transformer_blocks_4_attn1_to_k", 9, {}, "sdxl"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", 9, {}, "sdxl"),
        ("lora_unet_double_blocks_0_img_attn_proj", 9, {}, "flux"),
        ("lora_unet_transformer_transformer_blocks_0_attn_to_q", 9, {}, "sd3"),
        ("lora_unet_x", 9, {"ss_v2": "True"}, "sd2"),
        ("lora_unet_x", 9, {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ("lora_unet_x", 9, {}, None),
    ],
)
def test_the_family_is_read_from_the_layers_and_else_from_the_metadata(name, width, metadata, family):
    layer = LoraLayer(down=torch.zeros(1, width), up=torch.zeros(2, 1), alpha=1.0)

    assert LoraFile(layers={name: layer}, metadata=metadata).family == family
