from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from safetensors.torch import load_file, save

from synthaug.errors import SettingError
from synthaug.generation.lora_tags import file_hash, lora_files, lora_hash_of
from synthaug.generation.plan import Plan
from synthaug.lora.file import LoraFile
from synthaug.records import LoraUse


def test_loras_are_found_at_any_depth_and_a_name_of_two_files_is_left_out(tmp_path):
    for name in ("a.safetensors", "deep/er/b.safetensors", "one/last.safetensors", "two/last.safetensors", "deep/note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert lora_files([tmp_path]) == {"a": str(tmp_path / "a.safetensors"), "b": str(tmp_path / "deep" / "er" / "b.safetensors")}


def test_each_image_wears_the_loras_that_its_own_words_call():
    plan = Plan(
        prompts=("a fish <lora:a:0.5> {<lora:b:1>|<lora:b:0.2:0.8>}", "a screw"), count=12, loras=(LoraUse(path="own"),),
        lora_files={"a": "x/a", "b": "x/b"},
    )  # fmt: skip

    assert {request.prompt for request in plan} == {"a fish", "a screw"}
    assert {request.loras for request in plan if request.prompt == "a screw"} == {(LoraUse(path="own"),)}
    worn = {request.loras[2] for request in plan if request.prompt == "a fish"}
    assert worn == {LoraUse(path="x/b"), LoraUse(path="x/b", weight=0.8, text_weight=0.2)}
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_an_unknown_lora_is_refused_with_the_known_ones():
    with pytest.raises(SettingError, match=r"got <lora:c:1> in 'x <lora:c:1>', known are: a, b; name the folder it lies in"):
        Plan(prompts=("x <lora:c:1>",), lora_files={"a": "x/a", "b": "x/b"}).request(0)


def test_the_hash_of_a_file_that_does_not_say_it_is_that_of_its_tensors(tiny_lora, tmp_path):
    tensors = load_file(tiny_lora)
    bare = save(tensors, {"ss_tag": "x"})
    (tmp_path / "bare.safetensors").write_bytes(bare)
    (tmp_path / "edited.safetensors").write_bytes(save(tensors, {"ss_tag": "something longer"}))
    shutil.copy(tiny_lora, tmp_path / "told.safetensors")

    hashes = {name: lora_hash_of(str(tmp_path / f"{name}.safetensors")) for name in ("bare", "edited", "told")}

    length = int.from_bytes(bare[:8], "little")
    assert hashes["bare"] == hashes["edited"] == hashlib.sha256(bare[8 + length :]).hexdigest()
    assert hashes["told"] == LoraFile.read(tiny_lora).content_hash != ""


def test_the_hash_of_an_embedding_is_that_of_its_file_and_its_absence_is_named(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"abc")

    assert file_hash(str(tmp_path / "a.pt")).startswith("ba7816bf")
    with pytest.raises(SettingError, match=r"the embedding .*b\.pt cannot be read \(No such file or directory\)"):
        file_hash(str(tmp_path / "b.pt"))
