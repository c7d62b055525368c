from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from conftest import make_tiny_lora
from safetensors.torch import save_file

from synthaug.cli import COMMANDS
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import LoraLayer
from synthaug.lora.updates import Decomposed, FullChange, HadamardLayer
from synthaug.models.inspect import fit_on, inspect
from synthaug.models.load import load_base

UP = "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"


@pytest.fixture
def foreign(tmp_path):
    """A file as kohya's scripts write it, with layers of several kinds."""
    tensors = {
        f"{UP}.lora_down.weight": 2 * torch.ones(2, 768), f"{UP}.lora_up.weight": torch.ones(3, 2), f"{UP}.alpha": torch.tensor(1.0),
        "lora_unet_mid_block_resnets_0_conv1.lora_down.weight": torch.zeros(4, 2, 3, 3),
        "lora_unet_mid_block_resnets_0_conv1.lora_up.weight": torch.ones(2, 4, 1, 1),
        f"{TEXT}.lora_down.weight": torch.ones(1, 4), f"{TEXT}.lora_up.weight": torch.ones(2, 1),
        f"{TEXT}.dora_scale": torch.ones(2, 1),
    }  # fmt: skip
    tags = {"10_iriko fish": {"iriko fish": 5, "white paper": 2}, "3_other": {"white paper": 9}}
    metadata = {
        "ss_sd_scripts_commit_hash": "48d368f", "ss_network_module": "networks.lora", "ss_sd_model_name": "v1-5.safetensors",
        "ss_tag_frequency": json.dumps(tags), "ss_base_model_version": "sd_v1",
    }  # fmt: skip
    save_file(tensors, tmp_path / "foreign.safetensors", metadata)
    return tmp_path / "foreign.safetensors"


def test_inspect_prints_what_the_file_says_of_itself(tiny_lora, capsys):
    inspect(file=tiny_lora)
    short = capsys.readouterr().out
    inspect(file=tiny_lora, all=True)
    long = capsys.readouterr().out

    assert "caption" in short
    assert "a photo of iriko" in short
    assert "photos seen" in short
    assert "synthaug.base_hash" not in short
    assert "synthaug.base_hash" in long
    assert COMMANDS["inspect"][0] == "synthaug.models.inspect:inspect"


def test_a_file_of_another_tool_is_described_in_json(foreign, capsys):
    inspect(file=foreign, json=True, all=True)
    found = json.loads(capsys.readouterr().out)

    assert found["kinds"] == {"LoCon": 1, "LoRA": 1, "DoRA on LoRA": 1}
    assert found["networks"] == {"unet": 2, "text_encoder": 1}
    assert (found["ranks"], found["alphas"], found["zero-effect layers"]) == ([1, 2, 4], [1.0, 4.0], 1)
    assert found["family"] == "sd1"
    assert found["made by"] == "kohya's sd-scripts"
    assert found["base"] == "v1-5.safetensors"
    assert found["trained words"] == {"white paper": 11, "iriko fish": 5}
    assert found["metadata"]["ss_sd_scripts_commit_hash"] == "48d368f"
    norm = (0.5 * 4 * torch.ones(3, 768)).norm().item()
    assert found["sizes by block (norm)"] == pytest.approx({"unet up 1": norm, "unet mid": 0.0, "text_encoder": 8**0.5}, abs=1e-3)
    assert found["largest update (norm)"] == pytest.approx(norm, abs=1e-3)


@pytest.mark.parametrize(
    ("metadata", "maker"),
    [
        ({"synthaug.version": "0.1.0"}, "synthaug 0.1.0"),
        ({"ss_network_module": "lycoris.kohya", "ss_sd_scripts_commit_hash": "1"}, "LyCORIS with kohya's sd-scripts"),
        ({"ot_branch": "master"}, "OneTrainer"),
        ({"ss_network_module": "None"}, None),
        ({}, None),
    ],
)
def test_the_tool_that_made_a_file_is_told_by_what_it_leaves_in_the_metadata(metadata, maker):
    file = LoraFile(layers={TEXT: LoraLayer(down=torch.ones(1, 2), up=torch.ones(2, 1), alpha=1.0)}, metadata=metadata)

    assert file.summary()["made by"] == maker


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 3}', '{"a": {"b": "many"}}'])
def test_tags_that_are_not_as_kohya_writes_them_do_not_stop_the_description(text):
    layer = LoraLayer(down=torch.ones(1, 2), up=torch.ones(2, 1), alpha=1.0)

    found = LoraFile(layers={TEXT: layer}, metadata={"ss_tag_frequency": text}).summary()

    assert found["trained words"] == "ss_tag_frequency is there, but not as kohya writes it"


def test_the_size_of_a_plain_layer_is_that_of_its_change_whatever_the_signs():
    torch.manual_seed(0)
    layer = LoraLayer(down=torch.randn(3, 5, 3, 3), up=torch.randn(4, 3, 1, 1), alpha=-0.7)
    hada = HadamardLayer(parts={f"hada_w{k}_{s}": torch.randn(*((4, 2) if s == "a" else (2, 6))) for k in (1, 2) for s in "ab"}, alpha=1.0)

    sizes = LoraFile(layers={UP: layer, TEXT: hada}, metadata={}).summary()["sizes by block (norm)"]

    assert sizes["unet up 1"] == pytest.approx(float(layer.delta().norm()), rel=1e-3)
    assert sizes["text_encoder"] == pytest.approx(float(hada.change(torch.zeros(4, 6)).norm()), rel=1e-3)


def test_on_a_base_is_counted_what_fits_and_how_much_it_changes(tiny_base, capsys, tmp_path):
    file = make_tiny_lora(tiny_base)
    first, second, third, *_ = sorted(file.layers)
    layers = {
        **file.layers,
        first: FullChange(diff=torch.zeros(file.layers[first].shape)),
        second: LoraLayer(down=torch.ones(1, 3), up=torch.ones(2, 1), alpha=1.0),
        third: Decomposed(direction=file.layers[third], magnitude=torch.ones(file.layers[third].shape[0], 1)),
        "lora_unet_elsewhere": file.layers[third],
    }
    base = load_base(str(tiny_base))

    fit = fit_on(replace(file, layers=layers), base)
    file.write(tmp_path / "a.safetensors")
    inspect(file=tmp_path / "a.safetensors", base=str(tiny_base))

    assert (fit["layers that fit"], fit["layers without a module"], fit["layers of another shape"]) == (len(file.layers) - 1, 1, 1)
    assert (fit["first without"], fit["first of another shape"]) == (["lora_unet_elsewhere"], [second])
    assert fit["layers without effect"] == 1
    assert fit["made for it"] is True
    assert fit["largest change, share of the weight"] > fit["median change, share of the weight"] > 0
    assert f"layers that fit                      {len(file.layers)}" in capsys.readouterr().out


def test_a_base_that_the_file_was_not_made_for_is_said(tiny_base, other_base):
    file = make_tiny_lora(tiny_base)

    assert fit_on(file, load_base(str(other_base)))["made for it"] is False
    assert fit_on(replace(file, metadata={}), load_base(str(other_base)))["made for it"] is None
