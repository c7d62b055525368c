from __future__ import annotations

import json
import shutil
import struct

import pytest
import torch
from checkpoints import FAMILIES, SIDES, UNETS, assert_same_weights, bare_file, cut_off, networks, shrunken
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from synthaug.errors import SettingError, UnusableFileError
from synthaug.models.ldm import ldm_weights, write_ldm
from synthaug.models.load import load_base


@pytest.fixture(scope="module", params=FAMILIES)
def base(request, tmp_path_factory):
    return shrunken(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    """A base and the folder with its tokenizer."""
    folder = tmp_path_factory.mktemp("sd1")
    return shrunken("sd1", folder), folder


def beside(folder, base, tmp_path, name="model.safetensors", **settings):
    """A bare file of a base, with its tokenizer beside it."""
    shutil.copytree(folder / "tokenizer", tmp_path / "tokenizer", dirs_exist_ok=True)
    return bare_file(base, tmp_path / name, **settings)


@pytest.fixture
def bare(base, tmp_path):
    base.tokenizer.save_pretrained(tmp_path / "tokenizer")
    return bare_file(base, tmp_path / "model.safetensors")


def test_what_a_bare_file_is_shows_in_the_shapes_of_its_weights(base, bare, monkeypatch):
    cut_off(monkeypatch)

    found = load_base(str(bare), prediction="epsilon" if base.family == "sd2" else None)

    assert_same_weights(base, found)
    assert (found.family, found.inpaints, found.prediction_type) == (base.family, False, "epsilon")
    assert found.fingerprint == base.fingerprint
    assert found.vae.config["scaling_factor"] == base.vae.config["scaling_factor"]
    assert found.schedule["beta_end"] == base.schedule["beta_end"]
    for key, value in UNETS[base.family].items():
        shown = found.unet.config[key]
        assert (tuple(shown) if isinstance(value, tuple) else shown) == value, key


def test_a_bare_file_says_the_same_of_an_image_and_a_text_as_its_base(base, bare):
    found = load_base(str(bare), prediction="epsilon" if base.family == "sd2" else None)
    ids = torch.tensor([[base.tokenizer.bos_token_id, 5, 6, base.tokenizer.eos_token_id, *[base.tokenizer.pad_token_id] * 73]])
    image = torch.linspace(-1, 1, 3 * 16 * 24).reshape(1, 3, 16, 24)

    with torch.inference_mode():
        for kind, network in networks(base).items():
            theirs = networks(found)[kind]
            if kind == "vae":
                assert torch.equal(theirs.encode(image).latent_dist.mean, network.encode(image).latent_dist.mean)
            elif kind != "unet":
                assert torch.equal(theirs(ids)[0], network.eval()(ids)[0])


def test_the_size_is_that_of_the_family_unless_the_file_says_another(base, bare, tmp_path):
    spec = {"modelspec.resolution": "640x896", "modelspec.prediction_type": "epsilon"}
    save_file(load_file(bare), tmp_path / "other.safetensors", spec)

    usual = load_base(str(bare), parts=(), prediction="v_prediction" if base.family == "sd2" else None)

    assert usual.size == (SIDES[base.family],) * 2
    assert load_base(str(tmp_path / "other.safetensors"), parts=()).size == (896, 640)


def test_a_bare_file_that_fills_in_is_known_by_its_nine_channels(tmp_path):
    base = shrunken("sd1", tmp_path, in_channels=9)

    found = load_base(str(bare_file(base, tmp_path / "inpaint.safetensors")))

    assert found.inpaints
    assert found.unet.config["in_channels"] == 9
    assert_same_weights(base, found)


@pytest.mark.parametrize("channels", [5, 7, 8])
def test_a_unet_that_is_shown_something_else_is_refused(tmp_path, channels):
    path = bare_file(shrunken("sd1", tmp_path, in_channels=channels), tmp_path / "depth.safetensors")

    with pytest.raises(
        UnusableFileError, match=rf"must be shown 4 channels, or 9 if it fills in, .* one that is shown {channels} channels"
    ):
        load_base(str(path))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float8_e4m3fn, torch.float16),
        (torch.float64, torch.float64),
    ],
)
def test_a_file_comes_in_its_own_precision(sd1, tmp_path, stored, expected):
    path = beside(sd1[1], sd1[0], tmp_path)
    save_file({name: weight.to(stored) for name, weight in load_file(path).items()}, path)

    found = load_base(str(path))

    assert {weight.dtype for network in networks(found).values() for weight in network.parameters()} == {expected}
    assert torch.equal(found.unet.conv_in.weight, sd1[0].unet.conv_in.weight.to(stored).to(expected))


def test_a_network_of_mixed_precision_takes_the_one_that_most_values_have(sd1, tmp_path):
    path = beside(sd1[1], sd1[0], tmp_path)
    weights = load_file(path)
    save_file({name: weight.half() if weight.ndim > 1 else weight for name, weight in weights.items()}, path)

    assert {weight.dtype for weight in load_base(str(path), parts=("unet",)).unet.parameters()} == {torch.float16}


def test_weights_that_are_no_numbers_with_a_point_are_refused(sd1, tmp_path):
    path = beside(sd1[1], sd1[0], tmp_path)
    save_file({name: weight.to(torch.int8) for name, weight in load_file(path).items()}, path)

    with pytest.raises(UnusableFileError, match=r"must be floating-point numbers, those of .* are torch.int8; take an fp16 file"):
        load_base(str(path))


def test_running_means_and_leftovers_of_training_are_left_aside(sd1, tmp_path, caplog):
    extra = {
        **{f"model_ema.diffusion_modelinput_blocks{i}0weight": torch.zeros(2) for i in range(120)},
        "betas": torch.zeros(3), "global_step": torch.tensor(470000), "first_stage_model.loss.logvar": torch.zeros(1),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "cond_stage_model.logit_scale": torch.ones(1),
    }  # fmt: skip

    found = load_base(str(beside(sd1[1], sd1[0], tmp_path, **extra)))

    assert_same_weights(sd1[0], found)
    assert caplog.messages == []


def test_weights_that_belong_to_no_part_are_left_aside_and_named(sd1, tmp_path, caplog):
    path = beside(sd1[1], sd1[0], tmp_path, **{"embedding_manager.x": torch.zeros(1), "extra.y": torch.zeros(1)})

    load_base(str(path), parts=())

    assert "has 2 weights that belong to no part of a base and are left aside: ['embedding_manager.x', 'extra.y']" in caplog.text


def test_the_older_names_of_the_text_encoder_are_known(sd1, tmp_path):
    path = beside(sd1[1], sd1[0], tmp_path)
    save_file({name.replace(".text_model.", "."): weight for name, weight in load_file(path).items()}, path)

    assert_same_weights(sd1[0], load_base(str(path)))


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


def overwrite_with_zeros(path, name):
    """Change a weight in place, where it lies in the file."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        begin, end = json.loads(file.read(length))[name]["data_offsets"]
        file.seek(8 + length + begin)
        file.write(bytes(end - begin))


def test_weights_stay_mapped_into_the_file_so_that_they_cost_no_memory_twice(sd1, tmp_path):
    path = beside(sd1[1], sd1[0], tmp_path)
    unet = load_base(str(path), parts=("unet",)).unet

    overwrite_with_zeros(path, "model.diffusion_model.input_blocks.0.0.weight")

    assert not unet.conv_in.weight.any()


def test_changing_a_weight_leaves_the_file_as_it_is(sd1, tmp_path):
    path = beside(sd1[1], sd1[0], tmp_path)
    before = path.read_bytes()
    unet = load_base(str(path), parts=("unet",)).unet

    unet.conv_in.weight.add_(1)

    assert path.read_bytes() == before
    assert torch.equal(unet.conv_in.weight, sd1[0].unet.conv_in.weight + 1)


def test_settings_that_weights_do_not_show_come_from_our_metadata(tiny_base, tmp_path):
    base = load_base(str(tiny_base))
    write_ldm(base, tmp_path / "tiny.safetensors")
    base.tokenizer.save_pretrained(tmp_path / "tokenizer")

    found = load_base(str(tmp_path / "tiny.safetensors"))

    assert_same_weights(base, found)
    assert (found.unet.config["norm_num_groups"], found.unet.config["attention_head_dim"]) == (4, 2)
    assert (found.size, found.fingerprint) == (base.size, base.fingerprint)


def test_metadata_of_ours_that_are_no_json_are_refused(sd1, tmp_path):
    path = beside(sd1[1], sd1[0], tmp_path)
    save_file(load_file(path), path, {"synthaug.base": "{"})

    with pytest.raises(UnusableFileError, match=r"metadata synthaug.base of a base must be JSON, those of .* are not"):
        load_base(str(path))


def test_weights_count_more_than_metadata_that_another_tool_left_behind(tiny_base, tmp_path):
    """As when a file is made into one that fills in."""
    base = load_base(str(tiny_base))
    write_ldm(base, tmp_path / "tiny.safetensors")
    base.tokenizer.save_pretrained(tmp_path / "tokenizer")
    with safe_open(tmp_path / "tiny.safetensors", "pt") as opened:
        metadata = opened.metadata()
    name = "model.diffusion_model.input_blocks.0.0.weight"
    wide = torch.cat([ldm_weights(base)[name], torch.zeros(8, 5, 3, 3)], 1)
    save_file({**load_file(tmp_path / "tiny.safetensors"), name: wide}, tmp_path / "wide.safetensors", metadata)

    found = load_base(str(tmp_path / "wide.safetensors"))

    assert json.loads(metadata["synthaug.base"])["unet"]["in_channels"] == 4
    assert found.inpaints
