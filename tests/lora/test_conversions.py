"""Every layout to every other, with the same change of the weights at the end; peft itself loads what is written for it."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from synthaug.errors import OutputError, SettingError, UnusableFileError
from synthaug.lora.algebra import resize
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import LoraLayer, target_paths
from synthaug.lora.updates import Decomposed, FullChange, HadamardLayer, KroneckerLayer, TuckerLayer

LAYOUTS = ("kohya", "diffusers", "peft")
ATTENTION = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0"
CONV = "lora_unet_mid_block_resnets_0_conv1"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def tiny_networks(tiny_base):
    unet = UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet")
    return {"unet": unet.eval(), "text_encoder": CLIPTextModel.from_pretrained(tiny_base, subfolder="text_encoder").eval()}


def uneven(networks, *, dora, targets="everything"):
    """LoRA, LoCon and, if asked for, DoRA on both networks, each module with a rank and an alpha of its own."""
    found = {}
    for kind, network in networks.items():
        found[kind] = {}
        for row, path in enumerate(target_paths(network, targets)):
            weight = network.get_submodule(path).weight
            rank, kernel = 1 + row % 3, [1] * (weight.ndim - 2)
            up = torch.randn(weight.shape[0], rank, *kernel) / 4
            layer = LoraLayer(down=torch.randn(rank, *weight.shape[1:]) / 4, up=up, alpha=0.3 + row % 5)
            lengths = torch.rand(weight.shape[0], 1, *kernel) + 0.5
            found[kind][path] = Decomposed(direction=layer, magnitude=lengths) if dora else layer
    return LoraFile.of(found["unet"], found["text_encoder"], {"synthaug.caption": "a photo of iriko"})


def place(tmp_path, name, layout):
    return tmp_path / (name if layout == "peft" else f"{name}.safetensors")


def weights_of(file):
    """A weight of the base for each module, the same for the same name."""
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(update.shape, generator=generator) for name, update in sorted(file.layers.items())}


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize(("first", "second"), list(product(LAYOUTS, LAYOUTS)))
def test_every_pair_of_layouts_keeps_the_change_of_every_weight(tiny_networks, tmp_path, first, second, dora):
    file = uneven(tiny_networks, dora=dora)
    weights = weights_of(file)

    file.write(place(tmp_path, "one", first), dtype=torch.float32, layout=first)
    between = LoraFile.read(place(tmp_path, "one", first))
    between.write(place(tmp_path, "two", second), dtype=torch.float32, layout=second)
    back = LoraFile.read(place(tmp_path, "two", second))

    assert back.layers.keys() == file.layers.keys()
    assert back.caption == "a photo of iriko"
    for name, weight in weights.items():
        assert torch.allclose(back.layers[name].change(weight), file.layers[name].change(weight), atol=1e-6), name
        assert back.layers[name].rank == file.layers[name].rank


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks diffusers
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_peft_loads_the_folder_of_each_network_and_answers_as_the_fused_network(tiny_networks, tiny_base, tmp_path, dora):
    file = uneven(tiny_networks, dora=dora)
    file.write(tmp_path / "folder", dtype=torch.float32, layout="peft")
    bare = UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet").eval()
    encoder = CLIPTextModel.from_pretrained(tiny_base, subfolder="text_encoder").eval()
    picture, states, ids = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16), torch.arange(6)[None]
    before = bare(picture, 3, states).sample

    theirs = PeftModel.from_pretrained(bare, tmp_path / "folder" / "unet").eval()
    their_text = PeftModel.from_pretrained(encoder, tmp_path / "folder" / "text_encoder").eval()
    file.fuse_into(tiny_networks, 1.0)

    with torch.no_grad():
        ours = tiny_networks["unet"](picture, 3, states).sample
        assert torch.allclose(theirs(picture, 3, states).sample, ours, atol=1e-5)
        assert (ours - before).abs().max() > 0.01, "the LoRA must show, or the test shows nothing"
        assert torch.allclose(their_text(ids)[0], tiny_networks["text_encoder"](ids)[0], atol=1e-5)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_diffusers_loads_both_networks_from_its_layout_with_the_very_same_weights(tiny_networks, tiny_base, tmp_path, dora):
    file = uneven(tiny_networks, dora=dora)
    file.write(tmp_path / "a.safetensors", dtype=torch.float32, layout="diffusers")
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)

    pipe.load_lora_weights(tmp_path, weight_name="a.safetensors")
    pipe.fuse_lora()
    file.fuse_into(tiny_networks, 1.0)

    for kind, network in tiny_networks.items():
        theirs = {name.replace(".base_layer", ""): w for name, w in getattr(pipe, kind).named_parameters() if "lora_" not in name}
        for name, weight in network.named_parameters():
            assert torch.allclose(weight, theirs[name], atol=1e-5), name


def test_peft_takes_the_tensors_into_a_model_of_its_own(tiny_networks, tiny_base, tmp_path):
    file = uneven(tiny_networks, dora=False)
    file.write(tmp_path, dtype=torch.float32, layout="peft")
    unet = UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet")
    model = get_peft_model(unet, PeftConfig.from_pretrained(tmp_path / "unet"))

    answer = set_peft_model_state_dict(model, load_file(tmp_path / "unet" / "adapter_model.safetensors"))

    assert not answer.unexpected_keys
    layer = model.base_model.model.mid_block.resnets[0].conv1
    assert torch.allclose(layer.get_delta_weight("default"), file.layers[CONV].delta(), atol=1e-6)


def test_a_doras_lengths_have_the_axes_of_their_weight_in_kohyas_layout_whatever_they_came_from(tiny_networks, tmp_path):
    uneven(tiny_networks, dora=True).write(tmp_path / "folder", layout="peft")

    LoraFile.read(tmp_path / "folder").write(tmp_path / "a.safetensors")

    tensors = load_file(tmp_path / "a.safetensors")
    assert tensors[f"{CONV}.dora_scale"].shape == (16, 1, 1, 1)
    assert tensors[f"{ATTENTION}.dora_scale"].shape == (16, 1)


def test_one_network_of_a_folder_is_read_by_itself(tiny_networks, tmp_path):
    file = uneven(tiny_networks, dora=False)
    file.write(tmp_path / "both", layout="peft")
    (tmp_path / "both" / "text_encoder").rename(tmp_path / "moved")

    names = {name for name in file.layers if name.startswith("lora_te_")}
    assert LoraFile.read(tmp_path / "moved").layers.keys() == names
    assert LoraFile.read(tmp_path / "moved" / "adapter_model.safetensors").layers.keys() == names
    assert LoraFile.read(tmp_path / "both").layers.keys() == file.layers.keys() - names


def test_patterns_are_looked_up_as_peft_does_the_first_that_fits_counts(tiny_networks, tmp_path):
    file = uneven(tiny_networks, dora=False, targets="attention")
    file.write(tmp_path, layout="peft")
    config = tmp_path / "unet" / "adapter_config.json"
    settings = json.loads(config.read_text())
    settings["alpha_pattern"] = {r"mid_block\..*to_out\.0": 7.0, "to_out.0": 8.0, "^mid_block.*attn2.to_[qk]": 9.0}
    settings["lora_alpha"] = 0.25
    config.write_text(json.dumps(settings))

    layers = LoraFile.read(tmp_path).layers

    alphas = {name.removeprefix("lora_unet_"): layer.alpha for name, layer in layers.items() if name.startswith("lora_unet_")}
    inside = {name: alpha for name, alpha in alphas.items() if name.startswith("mid_block")}
    assert {alpha for name, alpha in inside.items() if name.endswith("to_out_0")} == {7.0}
    assert {alpha for name, alpha in alphas.items() if name.endswith("to_out_0") and name not in inside} == {8.0}
    assert {alpha for name, alpha in inside.items() if name.endswith(("attn2_to_q", "attn2_to_k"))} == {9.0}
    assert {alpha for name, alpha in alphas.items() if name.endswith("to_v")} == {0.25}


def test_a_kohya_file_with_an_alpha_for_each_module_changes_weights_as_the_formula_says(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"lora_unet_a": (6, 5, 2), "lora_unet_b": (4, 7, 3), "lora_te_text_model_encoder_layers_0_mlp_fc1": (8, 3, 1)}
    alphas = dict(zip(shapes, (1.0, 2.0, 3.0), strict=True))
    down = {name: rng.normal(size=(rank, into)).astype(np.float32) for name, (_, into, rank) in shapes.items()}
    up = {name: rng.normal(size=(out, rank)).astype(np.float32) for name, (out, _, rank) in shapes.items()}
    kernel = rng.normal(size=(2, 3, 3, 3)).astype(np.float32), rng.normal(size=(5, 2, 1, 1)).astype(np.float32)
    tensors = {f"{name}.lora_down.weight": torch.from_numpy(down[name]) for name in shapes}
    tensors |= {f"{name}.lora_up.weight": torch.from_numpy(up[name]) for name in shapes}
    tensors |= {f"{name}.alpha": torch.tensor(alpha) for name, alpha in alphas.items()}
    tensors |= {"lora_unet_c.lora_down.weight": torch.from_numpy(kernel[0]), "lora_unet_c.lora_up.weight": torch.from_numpy(kernel[1])}
    save_file({**tensors, "lora_unet_c.alpha": torch.tensor(0.7)}, tmp_path / "a.safetensors")

    layers = LoraFile.read(tmp_path / "a.safetensors").layers

    for name, (out, into, rank) in shapes.items():
        formula = np.zeros((out, into))
        for row, column, inner in np.ndindex(out, into, rank):
            formula[row, column] += alphas[name] / rank * float(up[name][row, inner]) * float(down[name][inner, column])
        assert np.allclose(layers[name].change(torch.zeros(out, into)).numpy(), formula, atol=1e-6)
    formula = 0.7 / 2 * np.einsum("or,rihw->oihw", kernel[1][:, :, 0, 0].astype(float), kernel[0].astype(float))
    assert np.allclose(layers["lora_unet_c"].change(torch.zeros(5, 3, 3, 3)).numpy(), formula, atol=1e-6)


def strange_updates():
    hada = {f"hada_w{k}_{s}": torch.randn(4, 2) if s == "a" else torch.randn(2, 6) for k in (1, 2) for s in "ab"}
    kron = {"lokr_w1": torch.randn(2, 2), "lokr_w2": torch.randn(2, 3)}
    tucker = TuckerLayer(down=torch.randn(2, 3, 1, 1), mid=torch.randn(2, 2, 3, 3), up=torch.randn(4, 2, 1, 1), alpha=1.0)
    return {
        "hada_w1_a": (ATTENTION, HadamardLayer(parts=hada, alpha=1.0)),
        "lokr_w1": (ATTENTION, KroneckerLayer(parts=kron, alpha=1.0)),
        "lora_mid.weight": (CONV, tucker),
        "diff": (ATTENTION, FullChange(diff=torch.randn(4, 6))),
    }


@pytest.mark.parametrize("layout", ["diffusers", "peft"])
@pytest.mark.parametrize("part", ["hada_w1_a", "lokr_w1", "lora_mid.weight", "diff"])
def test_what_a_layout_cannot_carry_is_refused_and_carried_once_it_is_a_lora(tmp_path, part, layout):
    name, update = strange_updates()[part]
    file = LoraFile(layers={name: update}, metadata={})
    path = place(tmp_path, "a", layout)

    with pytest.raises(UnusableFileError, match=f"layout holds plain LoRAs and DoRAs alone, {name} has {part}; .*resize first"):
        file.write(path, layout=layout)
    assert not list(tmp_path.iterdir())
    resize(file, energy=1.0).write(path, dtype=torch.float32, layout=layout)

    zero = torch.zeros(update.shape)
    assert torch.allclose(LoraFile.read(path).layers[name].change(zero), update.change(zero), atol=1e-5)


@pytest.mark.parametrize("layout", ["diffusers", "peft"])
def test_doras_that_a_layout_cannot_carry_are_refused(tmp_path, layout):
    layer = LoraLayer(down=torch.randn(2, 4), up=torch.randn(4, 2), alpha=1.0)
    by_input = LoraFile(layers={ATTENTION: Decomposed(direction=layer, magnitude=torch.ones(1, 4))}, metadata={})
    other = ATTENTION.replace("attn1", "attn2")
    mixed = LoraFile(layers={ATTENTION: Decomposed(direction=layer, magnitude=torch.ones(4, 1)), other: layer}, metadata={})

    with pytest.raises(UnusableFileError, match=r"a length for every output, .* has lengths of shape \(1, 4\); write kohya's layout"):
        by_input.write(tmp_path / "a", layout=layout)
    with pytest.raises(UnusableFileError, match=r"unet has a DoRA on mid_block.*attn1.* and none on mid_block.*attn2"):
        mixed.write(tmp_path / "a", layout=layout)
    mixed.write(tmp_path / "b.safetensors", dtype=torch.float32)
    assert LoraFile.read(tmp_path / "b.safetensors").layers.keys() == mixed.layers.keys()


def test_a_layout_that_there_is_not_is_refused_with_those_that_there_are(tmp_path):
    file = LoraFile(layers={ATTENTION: LoraLayer(down=torch.randn(2, 4), up=torch.randn(4, 2), alpha=1.0)}, metadata={})

    with pytest.raises(SettingError, match="unknown layout 'comfy'; choose one of: diffusers, kohya, peft"):
        file.write(tmp_path / "a.safetensors", layout="comfy")
    with pytest.raises(SettingError, match="PEFT's layout is a folder for each network, got the name of a file"):
        file.write(tmp_path / "a.safetensors", layout="peft")


def test_an_earlier_loras_network_is_not_left_in_a_folder(tiny_networks, tmp_path):
    file = uneven(tiny_networks, dora=False, targets="attention")
    file.write(tmp_path, layout="peft")
    unet_only = LoraFile(layers={name: layer for name, layer in file.layers.items() if "_te_" not in name}, metadata={})

    with pytest.raises(OutputError, match=r"must not mix with an earlier one, .* has a text_encoder that this one lacks"):
        unet_only.write(tmp_path, layout="peft")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"must have their settings beside them, there is no .*adapter_config.json; copy it too"),
        ("{", r"settings must be JSON, .*adapter_config.json is not .*; copy or download it again"),
        ("[]", r"settings must be a table, .*adapter_config.json is a list"),
        ('{"peft_type": "LOHA"}', "of PEFT's kinds only LORA is read, .* has LOHA"),
        ('{"lora_alpha": "much"}', "must give a number as alpha, those for lora_unet_.* do not"),
        ('{"lora_alpha": 1, "alpha_pattern": {"(": 2}}', "must give a number as alpha"),
    ],
)
def test_damaged_settings_of_peft_are_named(tiny_networks, tmp_path, content, sentence):
    uneven(tiny_networks, dora=False, targets="attention").write(tmp_path, layout="peft")
    config = tmp_path / "unet" / "adapter_config.json"
    config.unlink()
    if content is not None:
        config.write_text(content)

    with pytest.raises(UnusableFileError, match=sentence):
        LoraFile.read(tmp_path)


def test_a_folder_without_a_lora_and_damaged_metadata_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    save_file({"unet.x.lora_A.weight": torch.zeros(1, 2)}, tmp_path / "a.safetensors", {"lora_adapter_metadata": "{"})

    with pytest.raises(UnusableFileError, match=r"folder must hold adapter_model.safetensors, .* has none of them"):
        LoraFile.read(tmp_path / "empty")
    with pytest.raises(UnusableFileError, match=r"must be JSON, lora_adapter_metadata of .*a.safetensors is not"):
        LoraFile.read(tmp_path / "a.safetensors")
