from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from checkpoints import cut_off
from conftest import make_tiny_base, make_tiny_lora

from synthaug import Plan, Request, Sampler
from synthaug.errors import SettingError, UnusableFileError, WrongBaseModelError
from synthaug.generation.base_check import check_base
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import LoraLayer
from synthaug.models.ldm import write_ldm
from synthaug.models.load import load_base
from synthaug.records import LoraUse

NO_MASK = r".*inpaint fills a mask in and draws nothing else, and no mask is given; give image and mask"


def test_a_base_that_fills_masks_in_is_refused_without_one_before_anything_is_drawn(tiny_inpaint_base, tiny_sdxl_base):
    plan = Plan(base=str(tiny_inpaint_base), prompts=("a fish",))

    with pytest.raises(SettingError, match=NO_MASK):
        check_base(plan)
    check_base(replace(plan, image="photo.png", mask="mask.png"))
    check_base(replace(plan, base=str(tiny_sdxl_base)))


def test_the_sampler_refuses_a_request_without_a_mask_for_such_a_base(tiny_inpaint_base):
    sampler = Sampler(str(tiny_inpaint_base))

    with pytest.raises(SettingError, match=NO_MASK):
        sampler([Request(prompt="a fish", seed=1, steps=2, size=(32, 32))])


@pytest.mark.parametrize(("file", "base"), [("sdxl", "sd1"), ("sd1", "sdxl"), ("sd2", "sd1"), ("sd2", "sdxl")])
def test_a_lora_of_another_family_is_refused_although_its_file_says_nothing(request, tmp_path, file, base):
    width = {"sd1": 768, "sd2": 1024, "sdxl": 2048}[file]
    layer = LoraLayer(down=torch.ones(1, width), up=torch.ones(16, 1), alpha=1.0)
    path = tmp_path / "a.safetensors"
    LoraFile(layers={"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k": layer}, metadata={}).write(path)
    folder = str(request.getfixturevalue({"sd1": "tiny_base", "sdxl": "tiny_sdxl_base"}[base]))
    use = (LoraUse(path=str(path)),)

    with pytest.raises(WrongBaseModelError, match=rf"a.safetensors is for {file}, .* is {base}; take another base"):
        check_base(Plan(base=folder, prompts=("a fish",), loras=use))
    with pytest.raises(WrongBaseModelError, match=rf"a.safetensors is for {file}, .* is {base}"):
        Sampler(folder)([Request(prompt="a fish", seed=1, steps=1, size=(32, 32), loras=use)])


def test_an_embedding_that_is_not_there_is_found_out_before_anything_is_drawn(tiny_base):
    with pytest.raises(UnusableFileError, match=r"there is no embedding file nowhere.pt"):
        check_base(Plan(base=str(tiny_base), prompts=("a fish",), embeddings=("nowhere.pt",)))


def test_a_base_draws_the_same_from_one_file_as_from_its_folder(tmp_path, monkeypatch):
    make_tiny_base(tmp_path / "folder", seed=5)
    base = load_base(str(tmp_path / "folder"))
    write_ldm(base, tmp_path / "base.safetensors")
    base.tokenizer.save_pretrained(tmp_path / "tokenizer")
    cut_off(monkeypatch)
    request = Request(prompt="a photo of a fish", seed=1, steps=3, size=(32, 40))

    drawn = [Sampler(str(tmp_path / name))([request]) for name in ("folder", "base.safetensors")]

    assert drawn[0].equal(drawn[1])


def test_a_lora_tells_what_a_base_predicts_that_does_not_say(tiny_base, tmp_path):
    from checkpoints import bare_file, shrunken

    silent = bare_file(shrunken("sd2", tmp_path), tmp_path / "sd2.safetensors")
    file = make_tiny_lora(silent)
    loras = {}
    for said in ("epsilon", "v"):
        replace(file, metadata={**file.metadata, "modelspec.prediction_type": said}).write(tmp_path / f"{said}.safetensors")
        loras[said] = Plan.for_lora(tmp_path / f"{said}.safetensors", size=(64, 64), steps=2, count=1)

    samplers = {said: Sampler.for_drawing(plan.base, plan, device="cpu") for said, plan in loras.items()}

    assert [samplers[said].base.prediction_type for said in ("epsilon", "v")] == ["epsilon", "v_prediction"]
    with pytest.raises(WrongBaseModelError, match=r"says epsilon, .*sd2.safetensors is read as v_prediction; give Sampler\(prediction="):
        samplers["v"](list(loras["epsilon"]))
