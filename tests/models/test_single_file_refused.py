from __future__ import annotations

import pytest
import torch
from checkpoints import bare_file, beside, cut_off, shrunken
from safetensors.torch import load_file, save_file

from synthaug.errors import SettingError, UnusableFileError
from synthaug.models.load import load_base


@pytest.mark.parametrize("channels", [5, 7, 8])
def test_a_unet_that_is_shown_something_else_is_refused(tmp_path, channels):
    path = bare_file(shrunken("sd1", tmp_path, in_channels=channels), tmp_path / "depth.safetensors")

    with pytest.raises(
        UnusableFileError, match=rf"must be shown 4 channels, or 9 if it fills in, .* one that is shown {channels} channels"
    ):
        load_base(str(path))


def test_weights_that_are_no_numbers_with_a_point_are_refused(sd1, tmp_path):
    path = beside(sd1[1], sd1[0], tmp_path)
    save_file({name: weight.to(torch.int8) for name, weight in load_file(path).items()}, path)

    with pytest.raises(UnusableFileError, match=r"must be floating-point numbers, those of .* are torch.int8; take an fp16 file"):
        load_base(str(path))


@pytest.mark.parametrize(
    ("part", "start", "said"),
    [
        (
            "unet",
            "model.diffusion_model.middle_block.2",
            r"the UNet2DConditionModel of .* lacks 10 \(model.diffusion_model.middle_block.2.emb",
        ),
        (
            "vae",
            "first_stage_model.decoder.mid.attn_1.k",
            r"the AutoencoderKL of .* lacks 2 \(first_stage_model.decoder.mid.attn_1.k.bias, ",
        ),
        ("text", "cond_stage_model.transformer.text_model.final", r"the CLIPTextModel of .* lacks 2 \(cond_stage_model.transformer"),
        ("unet", "model.diffusion_model.input_blocks.0.0", r"the file of .* lacks 1 \(input_blocks.0.0.weight\)"),
    ],
)
def test_missing_weights_are_counted_and_named(sd1, tmp_path, part, start, said):
    path = beside(sd1[1], sd1[0], tmp_path, drop=start)

    with pytest.raises(UnusableFileError, match=said):
        load_base(str(path), parts=(part,))


def test_weights_without_a_place_are_counted_and_named(sd1, tmp_path):
    extra = {f"model.diffusion_model.adapter.{i}.weight": torch.zeros(1) for i in range(5)}
    path = beside(sd1[1], sd1[0], tmp_path, **extra)

    with pytest.raises(
        UnusableFileError,
        match=r"the UNet2DConditionModel of .*knows no place for 5 \(model.diffusion_model.adapter.0.weight, .*, …\); it is damaged",
    ):
        load_base(str(path))


def test_a_weight_of_another_shape_is_named_with_both(sd1, tmp_path):
    name = "model.diffusion_model.time_embed.2.weight"
    path = beside(sd1[1], sd1[0], tmp_path, **{name: torch.zeros(128, 96)})

    with pytest.raises(UnusableFileError, match=r"time_embed.2.weight of .* is \(128, 96\) where \(128, 128\) is needed"):
        load_base(str(path))


def test_a_file_that_was_cut_short_is_named(sd1, tmp_path):
    path = beside(sd1[1], sd1[0], tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])

    with pytest.raises(UnusableFileError, match=r"model.safetensors is not a whole safetensors file .*; it was cut short"):
        load_base(str(path))


def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    cut_off(monkeypatch)

    with pytest.raises(SettingError, match=r"there is no base file .*gone.safetensors; check the path"):
        load_base(str(tmp_path / "gone.safetensors"))


@pytest.mark.parametrize(
    ("names", "looks"),
    [
        (["lora_unet_mid_block_attentions_0.lora_down.weight"], "a LoRA"),
        (["unet.mid_block.attentions.0.to_q.lora_A.weight"], "a LoRA"),
        (["first_stage_model.encoder.conv_in.weight"], "a VAE"),
        (["encoder.conv_in.weight", "decoder.conv_in.weight"], "a VAE"),
        (["model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale"], "a Flux checkpoint"),
        (["model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight", "first_stage_model.x"], "a Stable Diffusion 3 checkpoint"),
        (["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"], r"a part of a diffusers folder \(give the folder\)"),
        (["control_model.input_hint_block.0.weight"], "a ControlNet"),
        (
            ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.x", "conditioner.embedders.0.model.ln_final.bias"],
            "the refiner",
        ),
        (["model.diffusion_model.input_blocks.0.0.weight"], "a UNet alone"),
        (["weight"], "something else"),
    ],
)
def test_a_file_that_is_no_base_is_refused_with_what_it_looks_like(tmp_path, names, looks):
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "model.safetensors")

    with pytest.raises(UnusableFileError, match=rf"must hold UNet, VAE and text encoder .* has no .*; it looks like {looks}"):
        load_base(str(tmp_path / "model.safetensors"))


def test_a_base_trained_by_edm_is_refused(sd1, tmp_path):
    path = beside(sd1[1], sd1[0], tmp_path, edm_mean=torch.zeros(1, 4, 1, 1))

    with pytest.raises(UnusableFileError, match=r"must predict epsilon or v, .* was trained by EDM"):
        load_base(str(path))


def test_metadata_of_ours_that_are_no_json_are_refused(sd1, tmp_path):
    path = beside(sd1[1], sd1[0], tmp_path)
    save_file(load_file(path), path, {"synthaug.base": "{"})

    with pytest.raises(UnusableFileError, match=r"metadata synthaug.base of a base must be JSON, those of .* are not"):
        load_base(str(path))


def test_metadata_of_ours_that_are_something_else_are_refused(sd1, tmp_path):
    path = beside(sd1[1], sd1[0], tmp_path)
    save_file(load_file(path), path, {"synthaug.base": "[1]"})

    with pytest.raises(UnusableFileError, match=r"must be a JSON object, those of .* are \[1\]; download it again"):
        load_base(str(path))
