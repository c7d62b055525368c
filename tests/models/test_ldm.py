from __future__ import annotations

import errno
import json

import pytest
import torch
from checkpoints import FAMILIES, assert_same_weights, cut_off, networks, shrunken
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from synthaug.errors import OutputError, SettingError
from synthaug.models.base import Base, fingerprint
from synthaug.models.ldm import ldm_weights, write_ldm
from synthaug.models.ldm_names import TEXT
from synthaug.models.load import load_base
from synthaug.pocket.words import train_tokenizer


@pytest.fixture(scope="module", params=FAMILIES)
def base(request, tmp_path_factory):
    return shrunken(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=["tiny_base", "tiny_inpaint_base", "tiny_sdxl_base"])
def folder(request):
    return request.getfixturevalue(request.param)


def same(theirs, network):
    """Whether a state made by diffusers is the network's."""
    ours = {key.removeprefix("text_model."): weight for key, weight in network.state_dict().items()}
    found = {key.removeprefix("text_model."): weight for key, weight in theirs.items()}
    assert ours.keys() <= found.keys()
    return all(torch.equal(ours[key], found[key]) for key in ours)


def test_diffusers_finds_every_weight_of_unet_and_vae_in_what_is_written(base):
    weights = ldm_weights(base)

    unet, vae = convert_ldm_unet_checkpoint(dict(weights), base.unet.config), convert_ldm_vae_checkpoint(dict(weights), base.vae.config)

    assert (unet.keys(), vae.keys()) == (base.unet.state_dict().keys(), base.vae.state_dict().keys())
    assert same(unet, base.unet)
    assert same(vae, base.vae)


def test_diffusers_finds_every_weight_of_the_text_encoders_in_what_is_written(base):
    weights = ldm_weights(base)

    for prefix, encoder in zip(TEXT[base.family], (base.text_encoder, base.text_encoder_2), strict=False):
        convert = convert_open_clip_checkpoint if prefix.endswith(".model.") else None
        theirs = convert(encoder, dict(weights), prefix) if convert else convert_ldm_clip_checkpoint(dict(weights))
        assert same(theirs, encoder)


def test_a_base_comes_back_from_a_file_as_it_was(base, tmp_path, monkeypatch):
    cut_off(monkeypatch)
    base.tokenizer.save_pretrained(tmp_path / "tokenizer")

    write_ldm(base, tmp_path / "new" / "base.safetensors")
    (tmp_path / "tokenizer").rename(tmp_path / "new" / "tokenizer")
    found = load_base(str(tmp_path / "new" / "base.safetensors"))

    assert_same_weights(base, found)
    assert (found.family, found.size, found.fingerprint) == (base.family, base.size, base.fingerprint)


def test_a_folder_becomes_a_file_and_a_file_the_same_file_again(folder, tmp_path):
    base = load_base(str(folder))
    base.tokenizer.save_pretrained(tmp_path / "tokenizer")

    write_ldm(base, tmp_path / "once.safetensors")
    again = load_base(str(tmp_path / "once.safetensors"))
    write_ldm(again, tmp_path / "twice.safetensors")

    assert_same_weights(base, again)
    assert (again.family, again.inpaints, again.size) == (base.family, base.inpaints, base.size)
    assert again.fingerprint == base.fingerprint
    once, twice = load_file(tmp_path / "once.safetensors"), load_file(tmp_path / "twice.safetensors")
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_the_second_tokenizer_of_sdxl_fills_up_with_word_0_though_the_first_lies_beside_the_file(tiny_sdxl_base, tmp_path):
    base = load_base(str(tiny_sdxl_base))
    base.tokenizer.save_pretrained(tmp_path / "tokenizer")
    write_ldm(base, tmp_path / "base.safetensors")

    found = load_base(str(tmp_path / "base.safetensors"), parts=("text",))

    assert (found.tokenizer.pad_token_id, found.tokenizer_2.pad_token_id) == (found.tokenizer.eos_token_id, 0)


def test_half_precision_halves_the_file(base, tmp_path):
    write_ldm(base, tmp_path / "whole.safetensors")
    write_ldm(base, tmp_path / "half.safetensors", dtype=torch.float16)

    assert {weight.dtype for weight in load_file(tmp_path / "half.safetensors").values()} == {torch.float16}
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "whole.safetensors").stat().st_size


def test_the_text_encoder_of_sd_2_has_the_layer_that_nobody_uses(tmp_path):
    base = shrunken("sd2", tmp_path)

    layers = {name.split(".")[4] for name in ldm_weights(base) if name.startswith("cond_stage_model.model.transformer.resblocks.")}

    assert base.text_encoder.config.num_hidden_layers == 2
    assert layers == {"0", "1", "2"}


@pytest.mark.parametrize(("kind", "rescaled", "marks"), [("epsilon", False, set()), ("v_prediction", True, {"v_pred", "ztsnr"})])
def test_other_tools_are_told_what_is_predicted(tmp_path, kind, rescaled, marks):
    base = shrunken("sdxl", tmp_path)
    base.schedule |= {"prediction_type": kind, "rescale_betas_zero_snr": rescaled}

    write_ldm(base, tmp_path / "base.safetensors", metadata={"synthaug.baked": "iriko"})
    found = load_base(str(tmp_path / "base.safetensors"), parts=())
    with safe_open(tmp_path / "base.safetensors", "pt") as opened:
        metadata, names = opened.metadata(), set(opened.keys())

    assert names & {"v_pred", "ztsnr"} == marks
    assert metadata["modelspec.prediction_type"] == ("v" if marks else "epsilon")
    assert metadata["modelspec.resolution"] == "1024x1024"
    assert metadata["synthaug.baked"] == "iriko"
    assert (found.prediction_type, found.schedule["rescale_betas_zero_snr"]) == (kind, rescaled)


def test_a_file_names_no_folder_of_the_machine_it_was_written_on(tiny_sdxl_base, tmp_path):
    write_ldm(load_base(str(tiny_sdxl_base)), tmp_path / "base.safetensors")

    with safe_open(tmp_path / "base.safetensors", "pt") as opened:
        assert str(tiny_sdxl_base.parent) not in json.dumps(opened.metadata())


def test_a_base_with_a_part_missing_is_not_written(tiny_base, tmp_path):
    with pytest.raises(SettingError, match=r"must be whole to be written, .* was loaded without VAE; load all parts of it"):
        write_ldm(load_base(str(tiny_base), parts=("unet", "text")), tmp_path / "base.safetensors")


def test_a_base_with_weights_that_other_tools_have_no_name_for_is_not_written(tmp_path):
    with pytest.raises(SettingError, match=r"pocket has \d+ others \(add_embedding.*\); keep it as a diffusers folder"):
        write_ldm(load_base("pocket"), tmp_path / "base.safetensors")

    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_not_written(tiny_base, tmp_path):
    with pytest.raises(SettingError, match=r"is written as .safetensors, got .*base.ckpt; give base.safetensors"):
        write_ldm(load_base(str(tiny_base)), tmp_path / "base.ckpt")


def test_a_disk_that_is_full_leaves_no_half_file_and_the_old_one_whole(tiny_base, tmp_path, monkeypatch):
    def fill(weights, path, metadata):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "base.safetensors").write_bytes(b"old")
    monkeypatch.setattr("synthaug.models.ldm.save_file", fill)

    with pytest.raises(OutputError, match=r"base.safetensors could not be written .*No space left.*; free some space"):
        write_ldm(load_base(str(tiny_base)), tmp_path / "base.safetensors")

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def as_many_words_as_clip(folder):
    """A tokenizer of the full size; most of its words are never spelled."""
    train_tokenizer(["a fish"], folder)
    path = folder / "vocab.json"
    spelled = [word for word in json.loads(path.read_text()) if not word.startswith("<|")]
    words = [*spelled, *(f"word{i}" for i in range(49406 - len(spelled))), "<|startoftext|>", "<|endoftext|>"]
    path.write_text(json.dumps({word: number for number, word in enumerate(words)}))


@pytest.mark.slow
def test_a_base_of_the_full_shape_of_sd_1_5_comes_back_bit_for_bit(tmp_path):
    """Random weights in fp16; 1.1 billion of them."""
    torch.manual_seed(0)
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
    text = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_attention_heads=12))
    for network in (unet, vae):
        network.to_empty(device="cpu").half()
    for network in (unet, vae, text.half()):
        for weight in network.parameters():
            torch.nn.init.normal_(weight.requires_grad_(requires_grad=False))
    base = Base(name="random", schedule={"prediction_type": "epsilon"}, size=(512, 512), unet=unet, vae=vae, text_encoder=text)

    as_many_words_as_clip(tmp_path / "tokenizer")

    write_ldm(base, tmp_path / "base.safetensors")
    found = load_base(str(tmp_path / "base.safetensors"))

    assert found.fingerprint == fingerprint(unet)
    assert_same_weights(base, found)
    assert sum(len(network.state_dict()) for network in networks(found).values()) == 686 + 248 + 196
