from __future__ import annotations

import json
import shutil

import pytest
import torch
from checkpoints import cut_off
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from synthaug.errors import SettingError, UnusableFileError
from synthaug.models.load import fingerprint, load_base, resolve
from synthaug.pocket import WEIGHTS


@pytest.fixture
def copied_base(tiny_base, tmp_path):
    """A base that may be damaged."""
    return shutil.copytree(tiny_base, tmp_path / "copied")


def test_pocket_is_a_folder_inside_the_package_and_its_configuration_is_read_without_weights():
    base = load_base("pocket", parts=())

    assert resolve("pocket") == str(WEIGHTS)
    assert (base.unet, base.vae, base.text_encoder, base.tokenizer) == (None, None, None, None)
    assert base.size == (128, 128)
    assert base.prediction_type == "v_prediction"
    assert base.schedule["rescale_betas_zero_snr"]
    assert (base.schedule["beta_start"], base.schedule["beta_end"]) == (0.00085, 0.012)


def test_only_the_parts_that_are_asked_for_are_loaded_still_and_frozen(tiny_base):
    base = load_base(str(tiny_base), parts=("vae", "text"))

    assert base.unet is None
    assert base.fingerprint == ""
    assert not base.vae.training
    assert not any(weight.requires_grad for part in (base.vae, base.text_encoder) for weight in part.parameters())
    assert base.size == (32, 32)


def test_the_fingerprint_is_the_same_in_either_precision_and_format(tiny_base, tmp_path):
    unet = load_base(str(tiny_base), parts=("unet",)).unet
    unet.half().save_pretrained(tmp_path / "half", variant="fp16")
    half = UNet2DConditionModel.from_pretrained(tmp_path / "half", variant="fp16", torch_dtype=torch.float16)

    assert fingerprint(half) == load_base(str(tiny_base), parts=("unet",)).fingerprint
    assert fingerprint(half.float()) == fingerprint(half.half())


def test_the_fingerprint_tells_bases_of_the_same_shapes_apart(tiny_base, other_base):
    marks = {load_base(str(base), parts=("unet",)).fingerprint for base in (tiny_base, other_base)}

    assert len(marks) == 2


def test_one_changed_block_changes_the_fingerprint(tiny_base):
    base = load_base(str(tiny_base), parts=("unet",))

    base.unet.mid_block.resnets[0].conv1.weight.mul_(1.01)

    assert fingerprint(base.unet) != base.fingerprint


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "some/where/model.bin"])
def test_a_pickle_is_refused_without_being_looked_for(name):
    with pytest.raises(UnusableFileError, match=r"must be safetensors, .* is a pickle, which can run any program"):
        load_base(name)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_folder_that_lacks_a_part_is_refused_with_its_name(copied_base, part):
    shutil.rmtree(copied_base / part)

    with pytest.raises(UnusableFileError, match=rf"must hold unet, vae, .*copied has no {part}; check the path, or copy it again"):
        load_base(str(copied_base))


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")  # diffusers 0.42 with huggingface_hub 1
def test_a_name_that_nothing_answers_to_is_refused_with_the_choices(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(SettingError, match=r"no base 'nobody/nothing' was found here or on the hub .*give 'pocket'"):
        load_base("nobody/nothing")


@pytest.mark.parametrize(
    ("base", "family", "fills_in"), [("tiny_base", "sd1", False), ("tiny_sdxl_base", "sdxl", False), ("tiny_inpaint_base", "sd1", True)]
)
@pytest.mark.parametrize("parts", [(), ("vae",), ("unet", "vae", "text")])
def test_a_folder_is_known_for_what_it_is_whichever_parts_are_loaded(request, monkeypatch, base, family, fills_in, parts):
    cut_off(monkeypatch)

    found = load_base(str(request.getfixturevalue(base)), parts=parts)

    assert (found.family, found.inpaints) == (family, fills_in)
    second = family == "sdxl" and "text" in parts
    assert ((found.text_encoder_2 is not None), (found.tokenizer_2 is not None)) == (second, second)


@pytest.mark.parametrize(("stated", "expected"), [(6, (48, 48)), ([4, 6], (32, 48)), (None, (32, 32))])
def test_the_size_of_a_folder_is_its_unets_or_else_its_autoencoders(copied_base, stated, expected):
    path = copied_base / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sample_size": stated}))

    assert load_base(str(copied_base), parts=()).size == expected


def test_pocket_is_of_the_first_family():
    base = load_base("pocket", parts=())

    assert (base.family, base.inpaints) == ("sd1", False)


@pytest.mark.parametrize("part", ["text_encoder_2", "tokenizer_2"])
def test_a_folder_of_sdxl_must_have_both_encoders(tiny_sdxl_base, tmp_path, part):
    shutil.rmtree(shutil.copytree(tiny_sdxl_base, tmp_path / "copied") / part)

    with pytest.raises(UnusableFileError, match=rf"must hold .*text_encoder_2, tokenizer_2, .*copied has no {part}"):
        load_base(str(tmp_path / "copied"), parts=())


def rewrite(folder, change):
    """Change the weights of one part of a folder."""
    [path] = folder.glob("*.safetensors")
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("folder", "lost", "part"),
    [("unet", "mid_block.resnets.1.", "unet"), ("vae", "decoder.conv_in.", "vae"), ("text_encoder", "final_layer_norm.", "text"),
     ("text_encoder_2", "text_projection.", "text")],
)  # fmt: skip
def test_weights_that_a_folder_lacks_are_counted_and_named(tiny_sdxl_base, tmp_path, folder, lost, part):
    base = shutil.copytree(tiny_sdxl_base, tmp_path / "copied")
    rewrite(base / folder, lambda weights: [weights.pop(key) for key in list(weights) if lost in key])

    with pytest.raises(UnusableFileError, match=rf"the {folder} of .*copied lacks \d+ \((text_model\.)?{lost}"):
        load_base(str(base), parts=(part,))


@pytest.mark.parametrize(("folder", "part"), [("unet", "unet"), ("vae", "vae"), ("text_encoder", "text")])
def test_weights_of_a_folder_without_a_place_are_counted_and_named(copied_base, folder, part):
    rewrite(copied_base / folder, lambda weights: weights.update({f"adapter.{i}": torch.zeros(2) for i in range(4)}))

    with pytest.raises(UnusableFileError, match=rf"the {folder} of .*copied knows no place for 4 \(adapter.0, adapter.1, adapter.2, …\)"):
        load_base(str(copied_base), parts=(part,))


def test_positions_that_older_folders_store_are_no_weights(copied_base):
    rewrite(copied_base / "text_encoder", lambda weights: weights.update({"text_model.embeddings.position_ids": torch.arange(77)[None]}))

    assert load_base(str(copied_base), parts=("text",)).text_encoder is not None


def test_a_folder_of_half_precision_alone_is_found(copied_base, tiny_base):
    for path in copied_base.glob("*/*.safetensors"):
        path.rename(path.with_suffix(".fp16.safetensors"))

    assert load_base(str(copied_base)).fingerprint == load_base(str(tiny_base), parts=("unet",)).fingerprint


@pytest.mark.parametrize("base", ["tiny_base", "tiny_sdxl_base"])
def test_a_folder_comes_in_the_precision_that_is_asked_for(request, base):
    found = load_base(str(request.getfixturevalue(base)), dtype=torch.bfloat16)

    parts = [part for part in (found.unet, found.vae, found.text_encoder, found.text_encoder_2) if part is not None]
    assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.bfloat16}


def test_a_unet_with_something_else_to_look_at_is_refused(copied_base):
    path = copied_base / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "class_embed_type": "timestep"}))

    with pytest.raises(
        UnusableFileError, match=r"nothing but text; .*copied has one with class_embed_type, as upscalers, .*have; take SD 1.x"
    ):
        load_base(str(copied_base), parts=())


def cut_short(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def not_safetensors(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.unlink()
    torch.save({}, path.with_suffix(".bin"))


def broken_config(folder):
    (folder / "unet" / "config.json").write_text("{")


def other_shapes(folder):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cross_attention_dim": 24}))


def without_words(folder):
    for path in (folder / "tokenizer").iterdir():
        path.unlink()


@pytest.mark.parametrize("damage", [cut_short, not_safetensors, broken_config, other_shapes, without_words])
def test_a_damaged_folder_is_named_with_what_to_do(copied_base, damage):
    damage(copied_base)

    with pytest.raises(UnusableFileError, match=r"the base .*copied cannot be loaded: .*; download or copy it again"):
        load_base(str(copied_base))


def test_a_base_moves_with_every_part_it_has(tiny_sdxl_base):
    base = load_base(str(tiny_sdxl_base), parts=("unet", "text")).to("cpu", torch.float16)

    parts = (base.unet, base.text_encoder, base.text_encoder_2)
    assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.float16}
