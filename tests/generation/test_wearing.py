"""LoRAs worn: every layout and kind of update draws what its formula says, and a change leaves nothing behind."""

from __future__ import annotations

import gc
import os
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_tiny_lora
from safetensors.torch import save_file

from synthaug import Request, Sampler
from synthaug.errors import UnusableFileError, WrongBaseModelError
from synthaug.generation.wearing import KEEP, Worn
from synthaug.lora.blocks import numbered_block
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import LoraLayer, target_paths
from synthaug.lora.layouts import dotted_path
from synthaug.models.load import load_base
from synthaug.records import LoraUse

KINDS = ("unet", "text_encoder")
UNET = "lora_unet_mid_block_attentions_0_transformer_blocks_0_"
TEXT = "lora_te_text_model_encoder_layers_0_"


@pytest.fixture(scope="module")
def sampler(tiny_base):
    return Sampler(str(tiny_base))


@pytest.fixture
def wardrobe(sampler):
    """The sampler's own, with nothing on and nothing remembered."""
    found = sampler._load()[1]
    found.wear(())
    found._files.clear()
    return found


@pytest.fixture(scope="module")
def both(tiny_base):
    """Layers on UNet and text encoder, convolutions included, with ranks and alphas of their own."""
    base = load_base(str(tiny_base))
    torch.manual_seed(11)
    found = {}
    for kind in KINDS:
        network, layers = getattr(base, kind), {}
        for row, path in enumerate(target_paths(network, "everything")):
            weight, rank = network.get_submodule(path).weight, 1 + row % 3
            up = 0.3 * torch.randn(weight.shape[0], rank, *[1] * (weight.ndim - 2))
            layers[path] = LoraLayer(down=0.3 * torch.randn(rank, *weight.shape[1:]), up=up, alpha=0.5 + row % 4)
        found[kind] = layers
    return LoraFile.of(found["unet"], found["text_encoder"], {})


def request(*uses, **fields):
    loras = tuple(use if isinstance(use, LoraUse) else LoraUse(path=str(use)) for use in uses)
    return Request(**{"prompt": "a photo of a fish", "seed": 7, "steps": 3, "size": (32, 40), "loras": loras, **fields})


def apart(a, b):
    return int((a.int() - b.int()).abs().max())


def kohya(file):
    return {f"{name}.{part}": tensor for name, update in file.layers.items() for part, tensor in update.tensors().items()}


def renamed(file, change):
    return {f"{change(name)}.{part}": t for name, update in file.layers.items() for part, t in update.tensors().items()}


def dotted(file, *, unet="unet.", text="text_encoder.", ends=("lora_A.weight", "lora_B.weight"), old=False):
    """Keys of dotted names, with alpha folded into up, as tools without one write them."""
    found = {}
    for name, layer in file.layers.items():
        kind, path = dotted_path(name)
        up = layer.up * (layer.alpha / layer.rank)
        for end, tensor in zip(ends, (layer.down, up), strict=True):
            key = f"{unet if kind == 'unet' else text}{path}.{end}"
            if old and kind == "unet" and ".attn" in path:
                module, _, which = path.removesuffix(".0").rpartition(".")
                key = f"{unet}{module}.processor.{which}_lora.{end.split('.')[1]}.weight"
            found[key] = tensor.contiguous()
    return found


LAYOUTS = {
    "block numbers": lambda file: renamed(file, numbered_block),
    "OneTrainer": lambda file: renamed(file, lambda name: name.replace("lora_te_", "lora_te1_")),
    "SimpleTuner": lambda file: renamed(file, lambda name: name.replace("lora_unet_", "lycoris_")),
    "diffusers": lambda file: dotted(file, ends=("lora.down.weight", "lora.up.weight")),
    "diffusers' linear layers": lambda file: dotted(file, ends=("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")),
    "diffusers before 0.22": lambda file: dotted(file, ends=("lora.down.weight", "lora.up.weight"), old=True),
    "diffusers with PEFT": dotted,
    "PEFT's own": lambda file: dotted(file, unet="base_model.model.", text="text_encoder.base_model.model."),
    "ComfyUI": lambda file: dotted(file, unet="diffusion_model.", ends=("lora_down.weight", "lora_up.weight")),
    "the whole difference": lambda file: {f"{n}.diff": layer.change(torch.zeros(layer.shape)) for n, layer in file.layers.items()},
    "a scale instead of alpha": lambda file: {
        key.replace(".alpha", ".scale"): tensor / file.layers[key.partition(".")[0]].rank if key.endswith(".alpha") else tensor
        for key, tensor in kohya(file).items()
    },
}  # fmt: skip
"""Tool or form -> how it names one and the same LoRA."""


@pytest.mark.parametrize("layout", [*LAYOUTS, "PEFT's folder", "our diffusers layout"])
def test_one_lora_draws_one_picture_in_every_layout(sampler, both, tmp_path, layout):
    save_file(kohya(both), tmp_path / "kohya.safetensors")
    path = tmp_path / "other.safetensors"
    if layout == "PEFT's folder":
        path = tmp_path / "peft"
        both.write(path, dtype=torch.float32, layout="peft")
    elif layout == "our diffusers layout":
        both.write(path, dtype=torch.float32, layout="diffusers")
    else:
        save_file(LAYOUTS[layout](both), path)

    bare, usual, other = (sampler([one])[0] for one in (request(), request(tmp_path / "kohya.safetensors"), request(path)))

    assert apart(usual, other) <= 1
    assert apart(usual, bare) > 5
    assert sampler._load()[1].report == (Worn(name=path.name, matched=len(both.layers), unmatched=(), without_effect=0),)


def test_every_kind_of_update_draws_what_its_formula_says(sampler, tmp_path):
    torch.manual_seed(2)
    base = load_base(sampler.base_name)
    conv, q, k, out = "lora_unet_mid_block_resnets_0_conv1", f"{UNET}attn1_to_q", f"{UNET}attn1_to_k", f"{UNET}attn1_to_out_0"
    norm, text = f"{UNET}norm1", f"{TEXT}mlp_fc1"
    weight = base.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_out[0].weight.detach()
    mid, up, down = torch.randn(2, 2, 3, 3), 0.3 * torch.randn(16, 2, 1, 1), 0.3 * torch.randn(2, 16, 1, 1)
    a, b, c, d = (0.5 * torch.randn(*shape) for shape in ((16, 3), (3, 16), (16, 2), (2, 16)))
    w1, w2a, w2b = 0.5 * torch.randn(4, 2), 0.5 * torch.randn(4, 2), 0.5 * torch.randn(2, 8)
    lengths = weight.norm(dim=1, keepdim=True) * 1.5
    bias, shift, scale = 0.4 * torch.randn(32), 0.3 * torch.randn(16), 0.3 * torch.randn(16)
    whole = 0.2 * torch.randn(32, 16)
    moved = weight + 0.5 * c @ d
    kinds = {
        f"{conv}.lora_down.weight": down, f"{conv}.lora_mid.weight": mid, f"{conv}.lora_up.weight": up, f"{conv}.alpha": torch.tensor(1.0),
        f"{q}.hada_w1_a": a, f"{q}.hada_w1_b": b, f"{q}.hada_w2_a": c, f"{q}.hada_w2_b": d, f"{q}.alpha": torch.tensor(6.0),
        f"{k}.lokr_w1": w1, f"{k}.lokr_w2_a": w2a, f"{k}.lokr_w2_b": w2b, f"{k}.alpha": torch.tensor(2.0),
        f"{out}.lora_down.weight": d, f"{out}.lora_up.weight": c, f"{out}.alpha": torch.tensor(1.0), f"{out}.dora_scale": lengths,
        f"{norm}.w_norm": scale, f"{norm}.b_norm": shift, f"{text}.diff": whole, f"{text}.diff_b": bias,
    }  # fmt: skip
    plain = {
        f"{conv}.diff": 0.5 * torch.einsum("oa,abhw,bi->oihw", up[..., 0, 0], mid, down[..., 0, 0]),
        f"{q}.diff": 2.0 * (a @ b) * (c @ d), f"{k}.diff": torch.kron(w1, w2a @ w2b),
        f"{out}.diff": lengths * moved / moved.norm(dim=1, keepdim=True) - weight,
        f"{norm}.diff": scale, f"{norm}.diff_b": shift, f"{text}.diff": whole, f"{text}.diff_b": bias,
    }  # fmt: skip
    for name, tensors in (("kinds", kinds), ("plain", plain)):
        save_file(
            {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()}, tmp_path / f"{name}.safetensors"
        )
    bare, ours, wanted = (
        sampler([one])[0] for one in (request(), request(tmp_path / "kinds.safetensors"), request(tmp_path / "plain.safetensors"))
    )

    assert apart(ours, wanted) <= 1
    assert apart(ours, bare) > 5


def test_a_dora_does_not_depend_on_what_is_worn_besides(sampler, wardrobe, tmp_path):
    torch.manual_seed(4)
    name, weight = f"{UNET}attn1_to_q", sampler.base.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight
    up, down, diff = torch.randn(16, 2), torch.randn(2, 16), torch.randn(16, 16)
    lengths, bare = torch.rand(16, 1) + 0.5, weight.clone()
    save_file(
        {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.dora_scale": lengths}, tmp_path / "dora.safetensors"
    )
    save_file({f"{name}.diff": diff}, tmp_path / "full.safetensors")
    moved = bare + up @ down
    wanted = bare + diff + 0.5 * (lengths * moved / moved.norm(dim=1, keepdim=True) - bare)
    full, dora = LoraUse(path=str(tmp_path / "full.safetensors")), LoraUse(path=str(tmp_path / "dora.safetensors"), weight=0.5)

    for uses in ((full, dora), (dora, full)):
        wardrobe.wear(uses)
        assert torch.allclose(weight, wanted, atol=1e-5)


def test_weights_on_unet_and_text_encoder_are_apart(sampler, both, tmp_path):
    path = tmp_path / "both.safetensors"
    both.write(path, dtype=torch.float32)
    for kind, start in (("unet", "lora_unet_"), ("text", "lora_te_")):
        layers = {name: layer for name, layer in both.layers.items() if name.startswith(start)}
        replace(both, layers=layers).write(tmp_path / f"{kind}.safetensors", dtype=torch.float32)
    unet, text = tmp_path / "unet.safetensors", tmp_path / "text.safetensors"

    pictures = {
        (weight, text_weight): sampler([request(LoraUse(path=str(path), weight=weight, text_weight=text_weight))])[0]
        for weight, text_weight in ((0.7, 0.4), (0.7, 0.0), (0.0, 0.4), (0.7, 0.7), (0.7, None))
    }

    assert apart(pictures[0.7, 0.4], sampler([request(LoraUse(path=str(unet), weight=0.7), LoraUse(path=str(text), weight=0.4))])[0]) <= 1
    assert apart(pictures[0.7, 0.0], sampler([request(LoraUse(path=str(unet), weight=0.7))])[0]) <= 1
    assert apart(pictures[0.0, 0.4], sampler([request(LoraUse(path=str(text), weight=0.4))])[0]) <= 1
    assert apart(pictures[0.7, 0.7], pictures[0.7, None]) == 0
    assert apart(pictures[0.7, 0.4], pictures[0.7, 0.0]) > 1


def test_a_base_that_is_shown_masks_takes_a_lora_of_four_channels(tiny_inpaint_base, tmp_path):
    torch.manual_seed(0)
    down, up = torch.randn(2, 4, 3, 3), torch.randn(8, 2, 1, 1)
    save_file({"lora_unet_conv_in.lora_down.weight": down, "lora_unet_conv_in.lora_up.weight": up}, tmp_path / "a.safetensors")
    save_file({"lora_unet_conv_in.diff": torch.randn(8, 5, 3, 3)}, tmp_path / "five.safetensors")
    sampler = Sampler(str(tiny_inpaint_base))
    weight = sampler.base.unet.conv_in.weight
    before, wardrobe = weight.clone(), sampler._load()[1]

    wardrobe.wear((LoraUse(path=str(tmp_path / "a.safetensors"), weight=0.5),))

    change = 0.5 * torch.einsum("or,rihw->oihw", up[..., 0, 0], down)
    assert torch.allclose(weight[:, :4], before[:, :4] + change, atol=1e-6)
    assert torch.equal(weight[:, 4:], before[:, 4:])
    wardrobe.wear(())
    assert torch.equal(weight, before)
    with pytest.raises(UnusableFileError, match=r"conv_in has shape \(8, 5, 3, 3\), the base's weight \(8, 9, 3, 3\)"):
        wardrobe.wear((LoraUse(path=str(tmp_path / "five.safetensors")),))


def test_a_change_of_a_bias_that_the_base_does_not_have_is_refused(wardrobe, tmp_path):
    name = f"{UNET}attn1_to_q"
    save_file({f"{name}.diff": torch.ones(16, 16), f"{name}.diff_b": torch.ones(16)}, tmp_path / "a.safetensors")

    with pytest.raises(UnusableFileError, match=rf"update for {name}.bias has shape \(16,\), the base's weight none; it was made for"):
        wardrobe.wear((LoraUse(path=str(tmp_path / "a.safetensors")),))


def test_layers_without_a_module_are_left_out_with_one_warning_and_counted(wardrobe, both, tmp_path):
    path = tmp_path / "odd.safetensors"
    layers = dict(list(both.layers.items())[:5])
    first = next(iter(layers))
    layers[first] = replace(layers[first], up=torch.zeros_like(layers[first].up))
    layers |= {f"lora_unet_mid_block_strange_{row}": LoraLayer(down=torch.ones(1, 4), up=torch.ones(4, 1), alpha=1.0) for row in range(4)}
    LoraFile(layers=layers, metadata={}).write(path)
    strange = tuple(f"lora_unet_mid_block_strange_{row}" for row in range(4))

    with pytest.warns(UserWarning, match=rf"^4 of 9 layers of odd.safetensors have no module .* \({', '.join(strange[:3])}, …\)") as said:
        wardrobe.wear((LoraUse(path=str(path)),))

    assert len(said) == 1
    assert wardrobe.report == (Worn(name="odd.safetensors", matched=5, unmatched=strange, without_effect=1),)
    wardrobe.wear((LoraUse(path=str(path), weight=0.0, text_weight=0.5),))  # said once, or this would be an error
    assert wardrobe.report[0].without_effect == 5


def test_a_lora_at_weight_zero_has_no_effect_and_says_so(wardrobe, both, tmp_path):
    both.write(tmp_path / "both.safetensors")

    wardrobe.wear((LoraUse(path=str(tmp_path / "both.safetensors"), weight=0.0),))

    assert wardrobe.report[0].without_effect == wardrobe.report[0].matched == len(both.layers)
    assert not wardrobe._bare


def test_a_lora_of_zeros_is_told_of(wardrobe, both, tmp_path):
    layers = {name: replace(layer, up=torch.zeros_like(layer.up)) for name, layer in both.layers.items()}
    replace(both, layers=layers).write(tmp_path / "zeros.safetensors")

    with pytest.warns(UserWarning, match=r"zeros.safetensors changes nothing, all of its layers hold zeros; train it for longer"):
        wardrobe.wear((LoraUse(path=str(tmp_path / "zeros.safetensors")),))


@pytest.mark.parametrize("part", ["up", "dora_scale"])
def test_a_lora_with_nan_is_refused_with_the_layer_and_nothing_changes(sampler, wardrobe, both, tiny_lora, tmp_path, part):
    name = next(reversed(both.layers))
    tensors = {key: tensor.clone() for key, tensor in kohya(replace(both, layers={name: both.layers[name]})).items()}
    tensors[f"{name}.dora_scale"] = torch.ones(len(tensors[f"{name}.lora_up.weight"]), 1)
    tensors[f"{name}.{part}" if part == "dora_scale" else f"{name}.lora_up.weight"].view(-1)[0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    before = sampler([request(tiny_lora)])

    with pytest.raises(UnusableFileError, match=rf"numbers must be finite, nan.safetensors has NaN or infinity in {name}"):
        sampler([request(tiny_lora, tmp_path / "nan.safetensors")])

    assert torch.equal(sampler([request(tiny_lora)]), before)


def test_a_file_is_read_again_when_it_has_changed_and_not_when_its_weight_has(wardrobe, tiny_base, tmp_path, monkeypatch):
    path, reads = tmp_path / "a.safetensors", []
    make_tiny_lora(tiny_base, seed=1).write(path)
    read = LoraFile.read
    monkeypatch.setattr(LoraFile, "read", lambda where: reads.append(where) or read(where))

    for weight in (0.8, 1.0, 0.8):
        wardrobe.wear((LoraUse(path=str(path), weight=weight),))
        wardrobe.wear(())
    assert len(reads) == 1
    make_tiny_lora(tiny_base, seed=2).write(path)
    wardrobe.wear((LoraUse(path=str(path)),))
    assert len(reads) == 2
    folder = tmp_path / "folder"
    make_tiny_lora(tiny_base, seed=1).write(folder, layout="peft")
    wardrobe.wear((LoraUse(path=str(folder)),))
    make_tiny_lora(tiny_base, seed=2).write(folder, layout="peft")
    wardrobe.wear((LoraUse(path=str(folder)),))
    assert len(reads) == 4


def test_only_what_changes_is_computed_and_text_states_stay_while_the_encoder_does(
    sampler, wardrobe, tiny_base, both, tmp_path, monkeypatch
):
    make_tiny_lora(tiny_base, seed=1).write(tmp_path / "unet.safetensors")
    name = f"{TEXT}mlp_fc1"
    replace(both, layers={name: both.layers[name]}).write(tmp_path / "text.safetensors")
    unet, text = (LoraUse(path=str(tmp_path / f"{part}.safetensors")) for part in ("unet", "text"))
    forgotten, computed = [], []
    monkeypatch.setattr(sampler.networks.texts, "forget", lambda: forgotten.append(1))
    from synthaug.generation import wearing

    usual = wearing.summed
    monkeypatch.setattr(wearing, "summed", lambda bare, worn: computed.append(len(worn)) or usual(bare, worn))

    wardrobe.wear((unet,))
    assert (len(computed), len(forgotten)) == (48, 0)
    wardrobe.wear((unet, text))
    assert (len(computed), len(forgotten)) == (49, 1)
    wardrobe.wear((text,))
    assert (len(computed), len(forgotten)) == (49, 1)
    assert set(wardrobe._bare) == {name}


def test_a_change_that_is_cut_short_leaves_the_bare_base(sampler, wardrobe, tiny_lora, monkeypatch):
    before = {name: weight.clone() for name, weight in sampler.base.unet.state_dict().items()}
    from synthaug.generation import wearing

    usual, done = wearing.summed, []

    def fails(bare, worn):
        if len(done) == 20:
            raise torch.OutOfMemoryError
        done.append(1)
        return usual(bare, worn)

    monkeypatch.setattr(wearing, "summed", fails)
    with pytest.raises(torch.OutOfMemoryError):
        wardrobe.wear((LoraUse(path=str(tiny_lora)),))

    assert all(torch.equal(weight, before[name]) for name, weight in sampler.base.unet.state_dict().items())
    monkeypatch.setattr(wearing, "summed", usual)
    wardrobe.wear((LoraUse(path=str(tiny_lora)),))
    assert any(not torch.equal(weight, before[name]) for name, weight in sampler.base.unet.state_dict().items())


def test_in_half_precision_loras_are_summed_before_they_are_rounded(tiny_base, both, tmp_path):
    both.write(tmp_path / "both.safetensors", dtype=torch.float32)
    sampler = Sampler(str(tiny_base), precision="bf16")
    weight = sampler.base.unet.mid_block.resnets[0].conv1.weight
    layer, bare = both.layers["lora_unet_mid_block_resnets_0_conv1"], weight.clone()

    sampler._load()[1].wear(tuple(LoraUse(path=str(tmp_path / "both.safetensors"), weight=0.1 + 0.01 * row) for row in range(6)))

    change = torch.einsum("or,rihw->oihw", layer.up[..., 0, 0], layer.down) * layer.alpha / layer.rank
    assert torch.equal(weight, (bare.float() + sum(0.1 + 0.01 * row for row in range(6)) * change).bfloat16())
    sampler._load()[1].wear(())
    assert torch.equal(weight, bare)


def test_in_a_batch_every_costume_is_put_on_once_and_the_one_that_is_on_goes_first(sampler, wardrobe, tiny_base, tmp_path, monkeypatch):
    for seed in (1, 2):
        make_tiny_lora(tiny_base, seed=seed).write(tmp_path / f"{seed}.safetensors")
    one, two = request(tmp_path / "1.safetensors", steps=1), request(tmp_path / "2.safetensors", steps=1)
    sampler([two])
    worn, dress = [], wardrobe._dress
    monkeypatch.setattr(wardrobe, "_dress", lambda on, modules: worn.append(on) or dress(on, modules))

    sampler([one, two, one, two, one])

    assert len(worn) == 1


def resident():
    """Bytes in memory, and bytes of all tensors that anybody holds."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if isinstance(t, torch.Tensor)}
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), sum(storages.values())


def changes_of_lora(sampler, files, count):
    """Put on one LoRA after another, drawing now and then, and take the last one off."""
    for row in range(count):
        use = LoraUse(path=str(files[row % len(files)]), weight=0.5 + row % 3 / 4)
        sampler._load()[1].wear((use,))
        if row % 5 == 0:
            sampler([request(use, steps=1, size=sampler.base.size)])
    sampler([request(steps=1, size=sampler.base.size)])


def test_memory_is_flat_over_fifty_changes_of_lora(tiny_base, both, tmp_path):
    sampler, files = Sampler(str(tiny_base)), [tmp_path / f"{seed}.safetensors" for seed in range(40)]
    for seed, path in enumerate(files):
        replace(both, layers={name: replace(layer, alpha=1.0 + seed) for name, layer in both.layers.items()}).write(path)
    changes_of_lora(sampler, files[: KEEP + 2], 12)
    memory, tensors = resident()

    changes_of_lora(sampler, files, 50)

    later, more = resident()
    assert abs(more / tensors - 1) < 0.02
    assert later < 1.02 * memory


@pytest.mark.slow
def test_memory_is_flat_over_fifty_changes_of_lora_on_pocket(tmp_path):
    from synthaug.lora.layers import put_on, trained_layers

    sampler, files = Sampler("pocket"), [tmp_path / f"{seed}.safetensors" for seed in range(16)]
    for seed, path in enumerate(files):
        unet = load_base("pocket", parts=("unet",)).unet
        torch.manual_seed(seed)
        for weight in put_on(unet, rank=8, alpha=8.0):
            torch.nn.init.normal_(weight, std=0.02)
        LoraFile.of(trained_layers(unet), {}, {}).write(path)
    changes_of_lora(sampler, files[: KEEP + 2], 12)
    memory, tensors = resident()

    changes_of_lora(sampler, files, 50)

    later, more = resident()
    assert abs(more / tensors - 1) < 0.02
    assert later < 1.02 * memory


def test_the_wrong_base_is_refused_and_what_was_worn_stays(sampler, tiny_lora, other_base, tmp_path):
    make_tiny_lora(other_base).write(tmp_path / "other.safetensors")
    before = sampler([request(tiny_lora)])
    with pytest.raises(WrongBaseModelError, match=r"other.safetensors was made for base"):
        sampler([request(tiny_lora, tmp_path / "other.safetensors")])

    assert torch.equal(sampler([request(tiny_lora)]), before)
