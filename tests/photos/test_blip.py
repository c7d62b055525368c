from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from conftest import make_photo

from synthaug.errors import MissingExtraError, SettingError, UnusableFileError
from synthaug.photos.blip import Captioner
from synthaug.photos.caption import caption
from synthaug.pixels import read_image

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fish", "on", "paper", "big", "grey", "photo", "of", "white"]
SIGNS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
EYES = {**SIZES, "image_size": 32, "patch_size": 8}


def tiny_blip():
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    words = {**SIZES, **SIGNS, "vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 64, "sep_token_id": 3}
    config = BlipConfig(text_config=words, vision_config=EYES, projection_dim=16, image_text_hidden_size=16)
    return BlipForConditionalGeneration(config), lambda words: BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), words)


def tiny_blip_2():
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

    between = {**SIZES, "vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 64}
    words = {
        "model_type": "opt", "vocab_size": 16, "hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 128, "word_embed_proj_dim": 16, **SIGNS,
    }  # fmt: skip
    config = Blip2Config(vision_config=EYES, qformer_config=between, text_config=words, num_query_tokens=4, image_token_index=len(WORDS))
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    return Blip2ForConditionalGeneration(config), lambda words: Blip2Processor(images, words, num_query_tokens=4)


def tiny_git():
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    config = GitConfig(vision_config=EYES, vocab_size=len(WORDS), max_position_embeddings=64, **SIZES, **SIGNS)
    side = {"height": 32, "width": 32}
    return GitForCausalLM(config), lambda words: GitProcessor(CLIPImageProcessor(size=side, crop_size=side), words)


def pictures():
    colours = ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 80, 255))
    return [torch.tensor(c, dtype=torch.uint8)[:, None, None].expand(3, 30 + index, 41).contiguous() for index, c in enumerate(colours)]


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    """Makes folders of captioners with random weights that tell some colours apart."""
    from transformers import BertTokenizer

    spelling = tmp_path_factory.mktemp("words")
    (spelling / "vocab.txt").write_text("\n".join(WORDS))

    def make(kind=tiny_blip):
        model, processor_of = kind()
        for seed in range(30):
            torch.manual_seed(seed)
            for weight in model.parameters():
                torch.nn.init.normal_(weight, std=0.5)
            folder = tmp_path_factory.mktemp("captioner")
            model.save_pretrained(folder)
            processor_of(BertTokenizer.from_pretrained(spelling)).save_pretrained(folder)
            if len(set(Captioner(str(folder))(pictures()))) > 1:
                return folder
        raise AssertionError("no seed makes a network that looks at the picture")

    return make


@pytest.fixture(scope="module")
def blip(captioner):
    return captioner()


@pytest.mark.parametrize("kind", [tiny_blip, tiny_blip_2, tiny_git])
def test_every_kind_says_something_of_a_picture_that_depends_on_it_alone(captioner, kind):
    says = Captioner(str(captioner(kind)))

    together = says(pictures())

    assert len(together) == 4
    assert set(" ".join(together).split()) <= set(WORDS)
    assert len(set(together)) > 1
    assert together == [says([picture])[0] for picture in pictures()]
    assert together == says(pictures())


def test_photos_without_a_caption_are_described_inside_the_template(blip, photo_folder, capsys):
    folder = photo_folder(5)
    (folder / "photo_01.txt").write_text("mine\n", encoding="utf-8")

    caption(photos=folder, model=str(blip), template="a photo of {trigger}, {auto}", trigger="iriko", suffix=", on paper", batch_size=3)

    said = Captioner(str(blip))([read_image(folder / f"photo_0{index}.jpg") for index in range(5)])
    texts = [(folder / f"photo_0{index}.txt").read_text().strip() for index in range(5)]
    assert texts[0] == f"a photo of iriko, {said[0]}, on paper"
    assert texts[1] == "mine, on paper"
    assert texts[4] == f"a photo of iriko, {said[4]}, on paper"
    assert "5 of 5 captions written" in capsys.readouterr().out


def test_a_second_run_neither_changes_anything_nor_needs_the_network(blip, photo_folder, capsys, monkeypatch):
    folder = photo_folder(5)
    caption(photos=folder, model=str(blip))
    first = {file.name: file.read_bytes() for file in folder.glob("*.txt")}
    monkeypatch.setattr("synthaug.photos.caption.Captioner", lambda _: pytest.fail("nothing is left to say"))
    capsys.readouterr()

    caption(photos=folder, model=str(blip))

    assert {file.name: file.read_bytes() for file in folder.glob("*.txt")} == first
    assert len(first) == 5
    assert "0 of 5 captions changed" in capsys.readouterr().out


def test_overwrite_describes_them_anew_and_a_dry_run_only_says_so(blip, photo_folder, capsys):
    folder = photo_folder(2)
    for index in range(2):
        (folder / f"photo_0{index}.txt").write_text("mine\n", encoding="utf-8")

    caption(photos=folder, model=str(blip), overwrite=True, dry_run=True)
    assert (folder / "photo_00.txt").read_text() == "mine\n"
    shown = capsys.readouterr().out
    caption(photos=folder, model=str(blip), overwrite=True)

    assert f"photo_00.txt: {(folder / 'photo_00.txt').read_text()}" in shown
    assert "2 of 2 captions would be written" in shown


def test_what_was_said_before_a_stop_is_kept(blip, photo_folder, monkeypatch):
    folder, says = photo_folder(5), Captioner(str(blip))
    answers = iter([True, False])

    def stopped(pictures):
        if not next(answers):
            raise KeyboardInterrupt
        return says(pictures)

    monkeypatch.setattr("synthaug.photos.caption.Captioner", lambda _: stopped)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        caption(photos=folder, model="x", batch_size=2)

    assert sorted(file.name for file in folder.glob("*.txt")) == ["photo_00.txt", "photo_01.txt"]


@pytest.mark.parametrize("broken", [1, 5])
def test_a_photo_that_cannot_be_read_is_named_and_the_others_are_described(blip, photo_folder, capsys, broken):
    folder = photo_folder(5)
    make_photo(seed=9).save(folder / "photo_05.jpg")
    (folder / f"photo_0{broken}.jpg").write_bytes(b"no photo")

    caption(photos=folder, model=str(blip), batch_size=2)

    out = capsys.readouterr().out
    assert f"skipped photo_0{broken}.jpg: " in out
    assert "5 of 6 captions written" in out
    assert len(list(folder.glob("*.txt"))) == 5


def test_a_photo_of_which_nothing_is_said_is_named_and_left_without_a_caption(photo_folder, capsys, monkeypatch):
    folder = photo_folder(2)
    monkeypatch.setattr("synthaug.photos.caption.Captioner", lambda _: lambda _: ["a fish", ""])

    caption(photos=folder, model="x", template="iriko, {auto}")

    assert "skipped photo_01.jpg: the model has nothing to say of it" in capsys.readouterr().out
    assert [file.read_text() for file in folder.glob("*.txt")] == ["iriko, a fish\n"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"template": "a {auto}"}, r"model must be given when the template has \{auto\}"),
        ({"template": "a fish", "model": "x"}, r"template must have \{auto\}, the place of what the model says, got 'a fish'"),
        ({"template": "a fish", "batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_template_and_model_need_each_other(photo_folder, settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        caption(photos=photo_folder(1), **settings)


def damaged(blip, folder, how):
    shutil.copytree(blip, folder)
    if how == "tokenizer":
        for name in ("tokenizer.json", "vocab.txt"):
            (folder / name).unlink(missing_ok=True)
    elif how == "weights":
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        del weights["vision_model.post_layernorm.weight"]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    elif how == "kind":
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**content, "model_type": "clip"}))
    elif how == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    else:
        (folder / how).unlink()
    return folder


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("kind", r"a captioner must be of the kind blip, blip-2, git, .* is of the kind 'clip'; give another --model"),
        ("config.json", r"the captioner .* cannot be loaded: .*; download it again, with config\.json"),
        ("model.safetensors", r"the captioner .* cannot be loaded: .*model\.safetensors"),
        ("pickle", r"the captioner .* cannot be loaded: .*safetensors"),
        ("weights", r"the captioner .* lacks 1 weights, the first is vision_model\.post_layernorm\.weight; download it again"),
        ("tokenizer", r"the captioner .*(has 14 words, its tokenizer knows|cannot be loaded)"),
    ],
)
def test_a_folder_that_is_no_captioner_is_a_sentence(blip, tmp_path, how, sentence):
    with pytest.raises(UnusableFileError, match=sentence):
        Captioner(str(damaged(blip, tmp_path / "broken", how)))


def test_photos_are_no_captioner(photo_folder):
    with pytest.raises(UnusableFileError, match=r"the captioner .*photos cannot be loaded"):
        Captioner(str(photo_folder(1)))


def test_a_missing_library_is_named_with_the_command_that_installs_it(blip, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)

    with pytest.raises(MissingExtraError, match=r"automatic captions need transformers 4\.57 .*; run pip install 'synthaug\[caption\]'"):
        Captioner(str(blip))
