from __future__ import annotations

import pytest
import torch
from conftest import make_tiny_lora
from diffusers import StableDiffusionPipeline

from synthaug.errors import OutputError, SettingError, WrongBaseModelError
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import LoraLayer, target_paths
from synthaug.models.bake import bake, extracted, networks_of, write_base
from synthaug.models.load import load_base


def picture(folder, lora=None):
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    if lora is not None:
        pipe.load_lora_weights(lora)
    return pipe("a fish", num_inference_steps=2, height=32, width=32, generator=torch.Generator().manual_seed(0), output_type="pt").images


def test_a_baked_base_draws_bare_what_the_base_draws_with_the_lora(tiny_base, tiny_lora, tmp_path):
    baked = bake(LoraFile.read(tiny_lora), load_base(str(tiny_base)))

    write_base(baked, tmp_path / "new" / "baked")

    assert torch.allclose(picture(tmp_path / "new" / "baked"), picture(tiny_base, tiny_lora), atol=2e-3)
    assert (picture(tiny_base) - picture(tiny_base, tiny_lora)).abs().max() > 0.05, "the LoRA must show, or the test shows nothing"
    again = load_base(str(tmp_path / "new" / "baked"))
    assert again.fingerprint == baked.fingerprint != load_base(str(tiny_base), parts=("unet",)).fingerprint
    assert again.schedule["beta_start"] == baked.schedule["beta_start"]
    assert not [path for path in (tmp_path / "new").iterdir() if path.name != "baked"]


def test_what_was_baked_in_is_extracted_again(tiny_base):
    lora = make_tiny_lora(tiny_base)
    base = load_base(str(tiny_base))

    found = extracted(base, bake(lora, load_base(str(tiny_base)), 0.5), rank=2)

    assert found.layers.keys() == lora.layers.keys()
    for name, update in lora.layers.items():
        zero = torch.zeros(update.shape)
        assert torch.allclose(found.layers[name].change(zero), 0.5 * update.change(zero), atol=1e-5)
    assert (found.base, found.size) == (str(tiny_base), (32, 32))
    found.check_base("x", base.fingerprint)


def test_one_file_holds_the_baked_weights_too(tiny_base, tiny_lora, tmp_path):
    baked = bake(LoraFile.read(tiny_lora), load_base(str(tiny_base)))

    write_base(baked, tmp_path / "baked.safetensors")

    assert load_base(str(tmp_path / "baked.safetensors"), parts=("unet",)).fingerprint == baked.fingerprint


@pytest.mark.parametrize("kind", ["tiny_sdxl_base", "tiny_inpaint_base"])
def test_bases_of_other_kinds_are_baked_on_every_network_and_written_as_what_they_are(kind, request, tmp_path):
    folder = str(request.getfixturevalue(kind))
    base = load_base(folder)
    two = base.family == "sdxl"
    on = {part: dict.fromkeys(target_paths(network, "attention")) for part, network in networks_of(base).items()}
    for part, paths in on.items():
        for path in paths:
            out, into = networks_of(base)[part].get_submodule(path).weight.shape
            paths[path] = LoraLayer(down=torch.ones(1, into), up=torch.ones(out, 1), alpha=0.25)
    lora = LoraFile.of(on["unet"], on["text_encoder"], {}, text_encoder_2=on.get("text_encoder_2"), two_encoders=two)

    write_base(bake(lora, base), tmp_path / "baked")

    again, bare = load_base(str(tmp_path / "baked")), load_base(folder)
    assert (again.family, again.inpaints) == (base.family, base.inpaints)
    for part, network in networks_of(again).items():
        for path in on[part]:
            moved = network.get_submodule(path).weight - networks_of(bare)[part].get_submodule(path).weight
            assert torch.allclose(moved, torch.full_like(moved, 0.25), atol=1e-6)


def test_a_lora_for_another_base_is_not_baked(tiny_base, other_base):
    with pytest.raises(WrongBaseModelError, match="was made for base"):
        bake(make_tiny_lora(tiny_base), load_base(str(other_base)))


def test_a_base_is_written_whole_and_to_a_new_place(tiny_base, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("not a folder")
    base = load_base(str(tiny_base))

    with pytest.raises(SettingError, match="was loaded without its vae; load every part"):
        write_base(load_base(str(tiny_base), parts=("unet", "text")), tmp_path / "a")
    with pytest.raises(SettingError, match=r"written to a new folder, .*there is already there"):
        write_base(base, tmp_path / "there")
    with pytest.raises(OutputError, match=r"a could not be written .*choose another folder"):
        write_base(base, tmp_path / "file" / "a")


def test_only_networks_that_were_loaded_are_there(tiny_base):
    assert set(networks_of(load_base(str(tiny_base), parts=("unet",)))) == {"unet"}
    assert set(networks_of(load_base(str(tiny_base)))) == {"unet", "text_encoder"}
