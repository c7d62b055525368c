"""Words from files of textual inversion: every tool's layout, and what is refused."""

from __future__ import annotations

import hashlib
import pickle

import pytest
import torch
from conftest import make_tiny_lora
from safetensors.torch import load_file, save_file
from torch import nn

from synthaug import Sampler
from synthaug.errors import UnusableFileError, WrongBaseModelError
from synthaug.generation.embeddings import bundled_embeddings, embedding_hash, read_embedding
from synthaug.lora.algebra import merge
from synthaug.lora.file import LoraFile
from synthaug.records import LoraUse

ONE, TWO = torch.arange(48.0).reshape(3, 16), torch.arange(72.0).reshape(3, 24)


class FakeTexts:
    """Learns words as the text states do, and tells what it was told."""

    def __init__(self):
        self.words, self.dropped, self.forgotten = {}, 0, 0

    def add_embedding(self, name, vectors):
        self.words[name] = vectors

    def drop_embeddings(self):
        self.words, self.dropped = {}, self.dropped + 1

    def forget(self):
        self.forgotten += 1


@pytest.fixture
def wardrobe(tiny_base, monkeypatch):
    sampler = Sampler(str(tiny_base))
    monkeypatch.setattr(sampler.networks, "texts", FakeTexts())
    return sampler._load()[1]


def old_parameters():
    return nn.ParameterDict({"*": nn.Parameter(ONE.clone())})


FILES = {
    "a1111.pt": lambda path: torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": ONE}, "name": "x", "step": 5}, path),
    "original.pt": lambda path: torch.save({"string_to_token": {"*": 265}, "string_to_param": old_parameters()}, path),
    "a1111.safetensors": lambda path: save_file({"emb_params": ONE}, path),
    "half.safetensors": lambda path: save_file({"emb_params": ONE.half()}, path),
    "learned_embeds.bin": lambda path: torch.save({"<iriko>": ONE}, path),
    "learned_embeds.safetensors": lambda path: save_file({"<iriko>": ONE}, path),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_one_word_is_read_from_the_file_of_every_tool(tmp_path, name):
    FILES[name](tmp_path / name)

    found = read_embedding(tmp_path / name)

    assert found.name == name.partition(".")[0]
    assert [vectors.dtype for vectors in found.vectors] == [torch.float32]
    assert torch.equal(found.vectors[0], ONE)
    assert not found.vectors[0].requires_grad


def test_a_word_of_one_vector_may_come_without_its_second_axis(tmp_path):
    torch.save({"<iriko>": ONE[0]}, tmp_path / "iriko.bin")

    assert torch.equal(read_embedding(tmp_path / "iriko.bin").vectors[0], ONE[:1])


@pytest.mark.parametrize("end", ["pt", "safetensors"])
def test_a_word_of_sdxl_has_vectors_for_each_encoder_in_their_order(tmp_path, end):
    {"pt": torch.save, "safetensors": save_file}[end]({"clip_g": TWO, "clip_l": ONE}, tmp_path / f"iriko.{end}")

    first, second = read_embedding(tmp_path / f"iriko.{end}").vectors

    assert torch.equal(first, ONE)
    assert torch.equal(second, TWO)


class Trap:
    """A pickle that runs something when it is read carelessly."""

    def __reduce__(self):
        return pytest.fail, ("it ran",)


BAD = {
    "trap.pt": (lambda path: torch.save({"string_to_param": {"*": ONE}, "extra": Trap()}, path), r"trap.pt is damaged or something else"),
    "pickle.bin": (lambda path: path.write_bytes(pickle.dumps(Trap())), r"pickle.bin is damaged or something else"),
    "cut.pt": (lambda path: path.write_bytes(b"PK\x03\x04 cut"), r"cut.pt is damaged or something else; get it again as safetensors"),
    "cut.safetensors": (lambda path: path.write_bytes(b"cut"), r"cut.safetensors is damaged or something else"),
    "lora.safetensors": (
        lambda path: save_file({"lora_unet_x.lora_down.weight": ONE, "lora_unet_x.lora_up.weight": TWO}, path),
        r"must hold one word as emb_params, .*lora.safetensors holds lora_unet_x.lora_down.weight, lora_unet_x.lora_up.weight",
    ),
    "list.pt": (lambda path: torch.save([1, 2], path), r"list.pt holds list; check that it is one"),
    "cube.safetensors": (lambda path: save_file({"emb_params": torch.ones(2, 2, 2)}, path), r"cube.safetensors has \[\(2, 2, 2\)\]"),
    "uneven.safetensors": (
        lambda path: save_file({"clip_l": ONE, "clip_g": TWO[:2].clone()}, path), r"for each text encoder, .* has \[\(3, 16\), \(2, 24\)\]",
    ),
    "nan.safetensors": (lambda path: save_file({"emb_params": ONE / 0}, path), r"numbers must be finite, .*nan.safetensors has NaN"),
    "nowhere.pt": (lambda path: path.parent.mkdir(exist_ok=True), r"there is no embedding file .*nowhere.pt; check the path"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_word_is_refused_in_a_sentence_and_never_run(tmp_path, name):
    make, sentence = BAD[name]
    make(tmp_path / name)

    with pytest.raises(UnusableFileError, match=sentence):
        read_embedding(tmp_path / name)


def test_the_hash_is_that_of_the_whole_file(tmp_path):
    save_file({"emb_params": ONE}, tmp_path / "a.safetensors")

    assert embedding_hash(tmp_path / "a.safetensors") == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    with pytest.raises(UnusableFileError, match=r"nowhere.pt cannot be read \(No such file or directory\); check the path"):
        embedding_hash("nowhere.pt")


def bundle(base, path):
    """A LoRA that brings two words along."""
    words = {"bundle_emb.iriko.string_to_param.*": ONE, "bundle_emb.big fish.clip_l": ONE + 1, "bundle_emb.big fish.clip_g": TWO}
    make_tiny_lora(base).write(path)
    save_file({**load_file(path), **words}, path)


def test_a_lora_brings_its_words_along_and_keeps_them_when_written_again(tiny_base, tmp_path):
    bundle(tiny_base, tmp_path / "a.safetensors")

    file = LoraFile.read(tmp_path / "a.safetensors")
    file.write(tmp_path / "b.safetensors")
    merge([file, make_tiny_lora(tiny_base)], [1.0, 0.5]).write(tmp_path / "c.safetensors")

    for name in "abc":
        big, small = bundled_embeddings(LoraFile.read(tmp_path / f"{name}.safetensors"))
        assert (big.name, small.name) == ("big fish", "iriko")
        assert torch.equal(big.vectors[1], TWO)
        assert torch.equal(small.vectors[0], ONE)
    assert len(file.layers) == 48
    with pytest.raises(UnusableFileError, match=r"only kohya's layout holds bundled words, a.safetensors brings 3"):
        file.write(tmp_path / "d.safetensors", layout="diffusers")


def test_words_are_taught_with_the_costume_and_dropped_with_it(wardrobe, tiny_base, tmp_path):
    texts = wardrobe._networks.texts
    save_file({"emb_params": ONE + 1}, tmp_path / "iriko.safetensors")
    save_file({"emb_params": ONE + 2}, tmp_path / "screw.safetensors")
    plain = tmp_path / "lora.safetensors"
    make_tiny_lora(tiny_base).write(plain)
    save_file({**load_file(plain), "bundle_emb.iriko.string_to_param.*": ONE}, tmp_path / "brings.safetensors")
    brings, lora = LoraUse(path=str(tmp_path / "brings.safetensors")), LoraUse(path=str(plain))
    iriko, screw = str(tmp_path / "iriko.safetensors"), str(tmp_path / "screw.safetensors")

    wardrobe.wear((lora,))
    assert (texts.dropped, texts.forgotten) == (0, 0)
    wardrobe.wear((brings,), (screw,))
    assert {name: float(vectors[0][0, 0]) for name, vectors in texts.words.items()} == {"iriko": 0.0, "screw": 2.0}
    wardrobe.wear((brings,), (screw,))
    assert (texts.dropped, texts.forgotten) == (1, 1)
    wardrobe.wear((brings,), (iriko,))
    assert {name: float(vectors[0][0, 0]) for name, vectors in texts.words.items()} == {"iriko": 1.0}
    wardrobe.wear((lora,))
    assert texts.words == {}
    assert texts.forgotten == 3


def test_a_word_of_another_width_is_refused_with_both_and_nothing_changes(wardrobe, tiny_lora, tmp_path):
    save_file({"emb_params": torch.ones(2, 768)}, tmp_path / "iriko.safetensors")
    save_file({"clip_l": ONE, "clip_g": TWO}, tmp_path / "two.safetensors")
    before = {name: weight.clone() for name, weight in wardrobe._networks.unet.state_dict().items()}

    for name, said in (("iriko", "iriko has 768 and .* 16"), ("two", r"two has 16 \+ 24 and .* 16")):
        with pytest.raises(WrongBaseModelError, match=rf"as wide as the base's text encoders, {said}; take one made for this base"):
            wardrobe.wear((LoraUse(path=str(tiny_lora)),), (str(tmp_path / f"{name}.safetensors"),))

    assert wardrobe._networks.texts.words == {}
    assert all(torch.equal(weight, before[name]) for name, weight in wardrobe._networks.unet.state_dict().items())


def test_sdxl_takes_words_with_vectors_for_both_encoders(tiny_sdxl_base, tmp_path, monkeypatch):
    save_file({"clip_l": ONE, "clip_g": TWO}, tmp_path / "two.safetensors")
    sampler = Sampler(str(tiny_sdxl_base))
    monkeypatch.setattr(sampler.networks, "texts", FakeTexts())

    sampler._load()[1].wear((), (str(tmp_path / "two.safetensors"),))

    assert [tuple(vectors.shape) for vectors in sampler.networks.texts.words["two"]] == [(3, 16), (3, 24)]
