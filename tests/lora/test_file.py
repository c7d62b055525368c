from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace

import pytest
import torch
from conftest import make_tiny_lora
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from synthaug.errors import OutputError, SettingError, UnusableFileError, WrongBaseModelError
from synthaug.lora.file import LoraFile, SeenPhoto, require_caption
from synthaug.lora.layers import LoraLayer
from synthaug.models.load import load_base


def small_lora(**metadata):
    torch.manual_seed(0)
    layers = {
        "lora_unet_a": LoraLayer(down=torch.randn(2, 5), up=torch.randn(3, 2), alpha=2.0),
        "lora_unet_b": LoraLayer(down=torch.randn(4, 3, 3, 3), up=torch.randn(6, 4, 1, 1), alpha=0.3),
    }
    return LoraFile(layers=layers, metadata=metadata)


def test_what_is_written_is_read_back_with_an_alpha_of_its_own_for_each_module(tmp_path):
    lora = small_lora(ss_network_dim="4", **{"synthaug.caption": "a photo of いりこ"})

    lora.write(tmp_path / "new" / "iriko.safetensors", dtype=torch.float32)
    back = LoraFile.read(tmp_path / "new" / "iriko.safetensors")

    assert {name: layer.alpha for name, layer in back.layers.items()} == pytest.approx({"lora_unet_a": 2.0, "lora_unet_b": 0.3})
    assert all(torch.equal(back.layers[name].down, layer.down) for name, layer in lora.layers.items())
    assert all(torch.equal(back.layers[name].up, layer.up) for name, layer in lora.layers.items())
    assert back.caption == "a photo of いりこ"
    assert back.rank == 4
    assert lora.metadata.items() <= back.metadata.items()


def test_keys_are_those_of_kohya_and_matrices_are_fp16(tmp_path):
    small_lora().write(tmp_path / "a.safetensors")

    tensors = load_file(tmp_path / "a.safetensors")

    parts = ("lora_down.weight", "lora_up.weight", "alpha")
    assert set(tensors) == {f"lora_unet_{module}.{part}" for module in "ab" for part in parts}
    assert {tensors[f"lora_unet_a.{part}"].dtype for part in parts[:2]} == {torch.float16}
    assert tensors["lora_unet_b.alpha"].shape == ()


def test_the_model_hash_is_of_the_tensors_alone(tmp_path):
    small_lora(ss_seed="1").write(tmp_path / "a.safetensors")
    small_lora(ss_seed="1", **{"modelspec.title": "another"}).write(tmp_path / "b.safetensors")

    raw = (tmp_path / "a.safetensors").read_bytes()
    data = raw[8 + struct.unpack("<Q", raw[:8])[0] :]

    assert LoraFile.read(tmp_path / "a.safetensors").content_hash == hashlib.sha256(data).hexdigest()
    assert LoraFile.read(tmp_path / "a.safetensors").content_hash == LoraFile.read(tmp_path / "b.safetensors").content_hash


def test_a_file_says_what_it_is_for_and_what_it_has_seen(tiny_lora, tiny_base):
    lora = LoraFile.read(tiny_lora)

    assert (lora.base, lora.caption, lora.size) == (str(tiny_base), "a photo of iriko", (32, 32))
    assert [photo.group for photo in lora.photos] == ["photo_0", "photo_1", "photo_2"]
    assert lora.photos[0] == SeenPhoto(sha256="00" * 16, group="photo_0")
    with safe_open(tiny_lora, "pt") as opened:
        assert len(json.loads(opened.metadata()["synthaug.photos"])) == 3


def test_a_file_of_another_tool_has_its_trigger_phrase_for_a_caption_and_rank_for_a_missing_alpha(tmp_path):
    tensors = {"lora_unet_a.lora_down.weight": torch.zeros(2, 5), "lora_unet_a.lora_up.weight": torch.zeros(3, 2)}
    save_file(tensors, tmp_path / "a.safetensors", {"modelspec.trigger_phrase": "xyz fish"})

    lora = LoraFile.read(tmp_path / "a.safetensors")

    assert lora.caption == "xyz fish"
    assert lora.layers["lora_unet_a"].alpha == 2.0
    assert (lora.base, lora.size, lora.photos, lora.content_hash) == (None, None, (), "")


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_a_truncated_file_is_refused_with_its_name(tiny_lora, tmp_path, kept):
    (tmp_path / "cut.safetensors").write_bytes(tiny_lora.read_bytes()[:kept])

    with pytest.raises(UnusableFileError, match=r"cut.safetensors is not a whole safetensors file .*copy or download it again"):
        LoraFile.read(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".pkl"])
def test_a_pickle_is_refused_without_being_read(tmp_path, suffix):
    path = tmp_path / f"lora{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")

    with pytest.raises(UnusableFileError, match=r"must be a .safetensors file, .* is a pickle, which can run any program"):
        LoraFile.read(path)


def test_a_pickle_under_the_name_of_safetensors_is_refused(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "lora.safetensors")

    with pytest.raises(UnusableFileError, match="not a whole safetensors file"):
        LoraFile.read(tmp_path / "lora.safetensors")


def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(UnusableFileError, match=r"there is no LoRA file .*iriko.safetensors; train one with: synthaug fit"):
        LoraFile.read(tmp_path / "iriko.safetensors")


def test_a_file_without_a_single_lora_key_is_refused_with_an_example(tmp_path):
    save_file({"model.weight": torch.zeros(2)}, tmp_path / "a.safetensors")

    with pytest.raises(UnusableFileError, match=r"has 1 tensors such as 'model.weight'"):
        LoraFile.read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("up", [None, torch.zeros(3, 4)])
def test_half_a_layer_is_refused_with_its_name(tmp_path, up):
    tensors = {"lora_unet_a.lora_down.weight": torch.zeros(2, 5)} | ({} if up is None else {"lora_unet_a.lora_up.weight": up})
    save_file(tensors, tmp_path / "a.safetensors")

    with pytest.raises(UnusableFileError, match=r"incomplete: lora_unet_a has no lora_up.weight of rank 2"):
        LoraFile.read(tmp_path / "a.safetensors")


@pytest.mark.parametrize(("keep", "found"), [(0, "0 of 48"), (3, "3 of 48")])
def test_a_file_whose_modules_are_not_in_the_base_is_refused_with_the_count(tiny_base, keep, found):
    lora = make_tiny_lora(tiny_base)
    renamed = {name if row < keep else f"lora_unet_input_blocks_{row}": layer for row, (name, layer) in enumerate(lora.layers.items())}
    unet = load_base(str(tiny_base), parts=("unet",)).unet

    with pytest.raises(UnusableFileError, match=f"matches {found} .*another kind of base model"):
        replace(lora, layers=renamed).fuse_into({"unet": unet}, 1.0)


def test_another_base_is_refused_with_both_names_and_the_way_out(tiny_base, other_base):
    lora = make_tiny_lora(tiny_base)
    other = load_base(str(other_base), parts=("unet",))

    with pytest.raises(WrongBaseModelError, match=r"made for base .*tiny.* but .*other.* is loaded; pass --base .*tiny, or train again"):
        lora.check_base(other.name, other.fingerprint)


def test_its_own_base_and_files_that_know_none_are_let_through(tiny_base):
    lora, base = make_tiny_lora(tiny_base), load_base(str(tiny_base), parts=("unet",))

    lora.check_base("any name", base.fingerprint)
    replace(lora, metadata={}).check_base("any name", "0" * 64)


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(OutputError, match=r"a.safetensors could not be written .*choose another folder"):
        small_lora().write(tmp_path / "file" / "a.safetensors")


def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    small_lora(ss_seed="1").write(path)
    before = path.read_bytes()

    def full(self, data):
        with self.open("wb") as out:
            out.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        small_lora(ss_seed="2").write(path)

    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_file_without_a_caption_asks_for_a_prompt():
    with pytest.raises(SettingError, match="does not say which caption brings it out; give a prompt"):
        require_caption(small_lora())
