from __future__ import annotations

import json
import struct

import pytest
import torch
from checkpoints import FAMILIES, SIDES, UNETS, assert_same_weights, bare_file, beside, cut_off, networks, shrunken
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from synthaug.models.ldm import ldm_weights, write_ldm
from synthaug.models.load import load_base


@pytest.fixture(scope="module", params=FAMILIES)
def base(request, tmp_path_factory):
    return shrunken(request.param, tmp_path_factory.mktemp(request.param))


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


def test_a_file_comes_in_the_precision_that_is_asked_for(sd1, tmp_path):
    found = load_base(str(beside(sd1[1], sd1[0], tmp_path)), dtype=torch.float16)

    assert {weight.dtype for network in networks(found).values() for weight in network.parameters()} == {torch.float16}


def test_a_network_of_mixed_precision_takes_the_one_that_most_values_have(sd1, tmp_path):
    path = beside(sd1[1], sd1[0], tmp_path)
    weights = load_file(path)
    save_file({name: weight.half() if weight.ndim > 1 else weight for name, weight in weights.items()}, path)

    assert {weight.dtype for weight in load_base(str(path), parts=("unet",)).unet.parameters()} == {torch.float16}


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
