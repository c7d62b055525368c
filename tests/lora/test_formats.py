from __future__ import annotations

import json

import pytest
import torch
from conftest import make_tiny_lora
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from synthaug.errors import UnusableFileError
from synthaug.lora.algebra import resize
from synthaug.lora.codec import read_updates
from synthaug.lora.file import LoraFile
from synthaug.lora.formats import grouped
from synthaug.lora.layers import LoraLayer, fuse, target_paths
from synthaug.lora.layouts import dotted_path
from synthaug.lora.naming import kohya_name, modules_by_name
from synthaug.lora.updates import Decomposed, HadamardLayer, KroneckerLayer, TuckerLayer
from synthaug.models.load import load_base

ATTENTION = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def uneven(base):
    """A LoRA on UNet and text encoder whose ranks and alphas differ from module to module."""
    file = make_tiny_lora(base)
    layers = {}
    for row, (name, layer) in enumerate(file.layers.items()):
        keep = 1 + row % layer.rank
        layers[name] = LoraLayer(down=layer.down[:keep], up=torch.randn_like(layer.up[:, :keep]), alpha=0.3 + row % 5)
    return LoraFile(layers=layers, metadata=file.metadata)


def changes(file):
    return {name: update.change(torch.zeros(update.shape)) for name, update in file.layers.items()}


@pytest.mark.parametrize("layouts", [("kohya",), ("diffusers",), ("diffusers", "kohya"), ("kohya", "diffusers", "kohya", "diffusers")])
def test_a_lora_with_an_alpha_of_its_own_for_each_module_survives_every_way_through_the_formats(tiny_base, tmp_path, layouts):
    file = first = uneven(tiny_base)

    for number, layout in enumerate(layouts):
        file.write(tmp_path / f"{number}.safetensors", dtype=torch.float32, layout=layout)
        file = LoraFile.read(tmp_path / f"{number}.safetensors")

    before, after = changes(first), changes(file)
    assert before.keys() == after.keys()
    assert max(float((before[name] - after[name]).abs().max()) for name in before) < 1e-6


def test_the_diffusers_layout_is_loaded_by_diffusers_with_the_very_same_weights(tiny_base, tmp_path):
    file = uneven(tiny_base)
    unet_only = LoraFile(layers={name: layer for name, layer in file.layers.items() if name.startswith("lora_unet_")}, metadata={})
    unet_only.write(tmp_path / "pytorch_lora_weights.safetensors", dtype=torch.float32, layout="diffusers")
    ours = load_base(str(tiny_base), parts=("unet",)).unet
    fuse(modules_by_name(ours, "unet"), unet_only.layers, 1.0)

    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    pipe.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    pipe.fuse_lora()

    theirs = {name.replace(".base_layer", ""): weight for name, weight in pipe.unet.named_parameters() if "lora_" not in name}
    for name, weight in ours.named_parameters():
        assert torch.allclose(weight, theirs[name], atol=1e-5), name


def test_what_peft_saves_is_read_with_its_settings(tiny_base, tmp_path):
    unet = UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet")
    paths = target_paths(unet, "transformer")
    special = paths[0]
    config = LoraConfig(r=3, lora_alpha=6.0, target_modules=paths, init_lora_weights=False, alpha_pattern={special: 1.5})
    model = get_peft_model(unet, config)
    model.save_pretrained(tmp_path)

    file = LoraFile.read(tmp_path / "adapter_model.safetensors")

    assert set(file.layers) == {kohya_name(path, "unet") for path in paths}
    for path in paths:
        layer = model.base_model.model.get_submodule(path)
        expected = layer.get_delta_weight("default")
        assert torch.allclose(file.layers[kohya_name(path, "unet")].change(torch.zeros(expected.shape)), expected, atol=1e-6)
    assert file.layers[kohya_name(special, "unet")].alpha == 1.5


@pytest.mark.parametrize(
    ("key", "name", "part"),
    [
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.lora.down.weight", ATTENTION, "lora_down.weight"),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight", ATTENTION, "lora_up.weight"),
        ("base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight", ATTENTION, "lora_down.weight"),
        ("unet.base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight", ATTENTION, "lora_up.weight"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight", TEXT, "lora_up.weight"),
        ("text_encoder.encoder.layers.0.self_attn.q_proj.lora_A.weight", TEXT, "lora_down.weight"),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", TEXT, "lora_down.weight"),
        ("lora_te_encoder_layers_0_self_attn_q_proj.alpha", TEXT, "alpha"),
        ("lora_unet_middle_block_1_transformer_blocks_0_attn1_to_out_0.alpha", ATTENTION, "alpha"),
        ("lora_unet_input_blocks_4_1_proj_in.alpha", "lora_unet_down_blocks_1_attentions_0_proj_in", "alpha"),
        ("lora_unet_input_blocks_5_0_in_layers_2.alpha", "lora_unet_down_blocks_1_resnets_1_conv1", "alpha"),
        ("lora_unet_input_blocks_3_0_op.alpha", "lora_unet_down_blocks_0_downsamplers_0_conv", "alpha"),
        ("lora_unet_output_blocks_2_2_conv.alpha", "lora_unet_up_blocks_0_upsamplers_0_conv", "alpha"),
        ("lora_unet_output_blocks_7_0_skip_connection.alpha", "lora_unet_up_blocks_2_resnets_1_conv_shortcut", "alpha"),
        ("lora_unet_middle_block_2_emb_layers_1.alpha", "lora_unet_mid_block_resnets_1_time_emb_proj", "alpha"),
    ],
)  # fmt: skip
def test_keys_of_every_tool_are_understood(key, name, part):
    assert grouped({key: torch.zeros(1)}) == {name: {part: torch.zeros(1)}}


def test_with_two_text_encoders_the_first_keeps_its_number():
    keys = ["lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight"]

    names = set(grouped(dict.fromkeys(keys, torch.zeros(1))))

    assert names == {"lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_te2_text_model_encoder_layers_0_mlp_fc1"}


def test_every_module_of_a_base_has_its_path_back_from_its_name(tiny_base):
    base = load_base(str(tiny_base))

    for kind, network in (("unet", base.unet), ("text_encoder", base.text_encoder)):
        for path in target_paths(network, "everything"):
            component, back = dotted_path(kohya_name(path, kind))
            assert (component, back.removeprefix("text_model.")) == (kind, path.removeprefix("text_model."))


def test_all_kinds_of_updates_are_read_and_written_again(tmp_path):
    x, rank = "lora_unet_mid_block_resnets_0_conv1", 2
    tensors = {
        f"{x}_a.lora_down.weight": torch.randn(rank, 3, 1, 1), f"{x}_a.lora_mid.weight": torch.randn(rank, rank, 3, 3),
        f"{x}_a.lora_up.weight": torch.randn(4, rank, 1, 1), f"{x}_a.alpha": torch.tensor(1.0),
        **{f"{x}_b.hada_w{k}_{s}": torch.randn(4, rank) if s == "a" else torch.randn(rank, 6) for k in (1, 2) for s in "ab"},
        f"{x}_c.lokr_w1": torch.randn(2, 2), f"{x}_c.lokr_w2_a": torch.randn(2, rank), f"{x}_c.lokr_w2_b": torch.randn(rank, 3),
        f"{x}_d.diff": torch.randn(4, 6),
        f"{x}_e.lora_down.weight": torch.randn(rank, 6), f"{x}_e.lora_up.weight": torch.randn(4, rank),
        f"{x}_e.dora_scale": torch.rand(4, 1),
    }  # fmt: skip
    save_file(tensors, tmp_path / "a.safetensors")

    file = LoraFile.read(tmp_path / "a.safetensors")
    file.write(tmp_path / "b.safetensors", dtype=torch.float32)
    again = LoraFile.read(tmp_path / "b.safetensors")

    kinds = [type(file.layers[f"{x}_{letter}"]) for letter in "abce"]
    assert kinds == [TuckerLayer, HadamardLayer, KroneckerLayer, Decomposed]
    weight = torch.randn(4, 6)
    for name, update in file.layers.items():
        here = weight if update.shape == (4, 6) else torch.zeros(update.shape)
        assert torch.equal(update.change(here), again.layers[name].change(here)), name
    assert set(tensors) <= set(load_file(tmp_path / "b.safetensors"))
    assert file.summary()["zero-effect layers"] == 0


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"lora_unet_x.on_input": 1, "lora_unet_x.weight": 1}, "holds IA3 for lora_unet_x, which is not read"),
        ({"lora_unet_x.oft_blocks": 1}, "holds OFT or BOFT for lora_unet_x"),
        ({"lora_unet_x.hada_w1_a": 1, "lora_unet_x.hada_w1_b": 1}, "is incomplete: lora_unet_x has no hada_w2_a"),
        ({"lora_unet_x.lokr_w1": 1}, "is incomplete: lora_unet_x has no lokr_w2_a"),
        ({"lora_unet_x.alpha": 1}, "is incomplete: lora_unet_x has no lora_down.weight"),
        ({"lora_unet_x.diff": 1, "lora_unet_x.surprise": 1}, "has a tensor surprise for lora_unet_x that no full change has"),
        ({"unet.mid_block.lora.sideways.weight": 1}, "'unet.mid_block.lora.sideways.weight' is none of them"),
    ],
)
def test_what_cannot_be_read_is_said_with_the_module(tensors, sentence, tmp_path):
    with pytest.raises(UnusableFileError, match=sentence):
        read_updates({key: torch.ones(2, 2) for key in tensors}, {}, tmp_path / "a.safetensors")


def test_an_update_that_diffusers_cannot_name_is_refused(tmp_path):
    parts = {name: torch.randn(2, 2) for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")}
    file = LoraFile(layers={ATTENTION: HadamardLayer(parts=parts, alpha=1.0)}, metadata={})

    with pytest.raises(UnusableFileError, match=r"diffusers' layout holds plain LoRAs and DoRAs alone, .* has hada_w1_a"):
        file.write(tmp_path / "a.safetensors", layout="diffusers")
    assert not list(tmp_path.iterdir())


def test_the_settings_that_diffusers_reads_are_in_the_metadata(tiny_base, tmp_path):
    file = uneven(tiny_base)
    file.write(tmp_path / "a.safetensors", layout="diffusers")

    settings = json.loads(LoraFile.read(tmp_path / "a.safetensors").metadata["lora_adapter_metadata"])

    ranks = {kohya_name(path, "unet"): rank for path, rank in settings["unet.rank_pattern"].items()}
    assert ranks == {name: layer.rank for name, layer in file.layers.items() if name.startswith("lora_unet_")}


def test_changes_of_norms_and_biases_are_read_and_written_again_but_have_no_rank_to_change(tmp_path):
    norm, linear = "lora_unet_mid_block_resnets_0_norm1", "lora_te_text_model_encoder_layers_0_mlp_fc1"
    tensors = {
        "lora_unet_middle_block_0_in_layers_0.w_norm": torch.randn(4), "lora_unet_middle_block_0_in_layers_0.b_norm": torch.randn(4),
        f"{linear}.diff": torch.randn(3, 2), f"{linear}.diff_b": torch.randn(3),
    }  # fmt: skip
    save_file(tensors, tmp_path / "a.safetensors")

    file = LoraFile.read(tmp_path / "a.safetensors")
    file.write(tmp_path / "b.safetensors", dtype=torch.float32)

    again = load_file(tmp_path / "b.safetensors")
    wanted = {key.replace("lora_unet_middle_block_0_in_layers_0", norm): tensor for key, tensor in tensors.items()}
    assert again.keys() == wanted.keys()
    assert all(torch.equal(again[key], wanted[key]) for key in wanted)
    assert file.summary()["kinds"] == {"full change with bias": 2}
    with pytest.raises(UnusableFileError, match=r"changes of weights alone have a rank, lora_\S+ has one of a bias or a norm; take a file"):
        resize(file, rank=1)
