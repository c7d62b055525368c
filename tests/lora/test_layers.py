from __future__ import annotations

import pytest
import torch
from torch import nn

from synthaug.errors import SettingError, UnusableFileError
from synthaug.lora.layers import LoraLayer, fuse, put_on, target_paths, trained_layers, unfuse
from synthaug.lora.naming import kohya_name, modules_by_name
from synthaug.lora.updates import Decomposed
from synthaug.models.load import load_base


@pytest.fixture
def unet(tiny_base):
    return load_base(str(tiny_base), parts=("unet",)).unet


def some_inputs():
    torch.manual_seed(3)
    return torch.randn(2, 4, 4, 6), torch.tensor([10, 900]), torch.randn(2, 77, 16)


def answer(unet):
    with torch.inference_mode():
        return unet(*some_inputs()).sample


def some_layers(unet, *, rank=3, alpha=1.5):
    """Random layers on every module that the preset picks, by kohya name."""
    torch.manual_seed(5)
    modules = modules_by_name(unet, "unet")
    picked = {n: m for n, m in modules.items() if "to_q" in n or "conv1" in n}
    return modules, {
        name: LoraLayer(
            down=torch.randn(rank, *m.weight.shape[1:]),
            up=torch.randn(m.weight.shape[0], rank, *[1] * (m.weight.ndim - 2)),
            alpha=alpha,
        )
        for name, m in picked.items()
    }


def test_putting_layers_on_leaves_the_output_as_it_was(unet):
    before = answer(unet)

    put_on(unet, rank=4, alpha=4.0)

    assert torch.equal(answer(unet), before)


def test_only_the_new_weights_are_trained_and_they_are_fp32(unet):
    unet.to(torch.float16)

    new = put_on(unet, rank=4, alpha=4.0)

    assert {id(p) for p in unet.parameters() if p.requires_grad} == {id(p) for p in new}
    assert {p.dtype for p in new} == {torch.float32}
    assert len(new) == 2 * len(target_paths_of_tiny())


def target_paths_of_tiny():
    """Attention, feed-forward and projections of the tiny base's three transformer blocks, 12 each, cross-attention included."""
    per_block = 8 + 2 + 2
    return range(4 * per_block)


def test_trained_layers_compute_what_the_wrapped_network_computes(unet, tiny_base):
    for weight in put_on(unet, rank=3, alpha=1.5, targets="everything"):
        nn.init.normal_(weight, std=0.1)
    bare = load_base(str(tiny_base), parts=("unet",)).unet
    layers = trained_layers(unet)

    fuse({path: bare.get_submodule(path) for path in layers}, layers, 1.0)

    assert {layer.alpha for layer in layers.values()} == {1.5}
    assert torch.allclose(answer(bare), answer(unet), atol=1e-4)


def test_the_update_is_alpha_over_rank_times_up_times_down():
    layer = LoraLayer(down=torch.tensor([[1.0, 2.0], [0.0, 1.0]]), up=torch.tensor([[1.0, 0.0], [0.0, 3.0], [1.0, 1.0]]), alpha=4.0)

    assert torch.equal(layer.delta(), 2.0 * torch.tensor([[1.0, 2.0], [0.0, 3.0], [1.0, 3.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_unfusing_puts_every_weight_back_bit_for_bit(unet, dtype):
    unet.to(dtype)
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    modules, layers = some_layers(unet)

    bare = fuse(modules, layers, 0.7)
    changed = [name for name, weight in unet.state_dict().items() if not torch.equal(weight, before[name])]
    unfuse(modules, bare)

    assert len(changed) == len(layers)
    assert all(torch.equal(weight, before[name]) for name, weight in unet.state_dict().items())


def test_an_update_of_another_shape_is_refused_before_any_weight_is_changed(unet):
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    modules, layers = some_layers(unet)
    last = list(layers)[-1]
    layers[last] = LoraLayer(down=torch.zeros(1, 5), up=torch.zeros(7, 1), alpha=1.0)

    with pytest.raises(UnusableFileError, match=rf"update for {last} has shape \(7, 5\).*another base model"):
        fuse(modules, layers, 1.0)

    assert all(torch.equal(weight, before[name]) for name, weight in unet.state_dict().items())


def test_presets_pick_more_and_more_modules(unet):
    attention, transformer, everything = (set(target_paths(unet, name)) for name in ("attention", "transformer", "everything"))

    assert attention < transformer < everything
    assert all("attn" in path for path in attention)
    assert any(path.endswith("ff.net.0.proj") for path in transformer - attention)
    assert any("resnets" in path for path in everything - transformer)


def test_a_regular_expression_picks_modules(unet):
    assert all(path.endswith("to_k") for path in target_paths(unet, r"attn2\.to_k$"))


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [("atention", "unknown choice of LoRA targets 'atention'; choose one of: attention"), (r"nothing\.here", "matches none of UNet2D")],
)
def test_targets_that_match_nothing_are_refused(unet, targets, sentence):
    with pytest.raises(SettingError, match=sentence):
        target_paths(unet, targets)


def test_a_rank_below_one_is_refused(unet):
    with pytest.raises(SettingError, match="rank of a LoRA must be at least 1, got 0"):
        put_on(unet, rank=0, alpha=1.0)


def test_convolutions_larger_than_one_pixel_have_a_rank_and_alpha_of_their_own(unet):
    put_on(unet, rank=4, alpha=2.0, targets="everything", conv_rank=2, conv_alpha=0.5)

    layers = trained_layers(unet)

    wide = {path for path, layer in layers.items() if layer.down.ndim == 4 and layer.down.shape[-1] > 1}
    assert wide
    assert {(layers[path].rank, layers[path].alpha) for path in wide} == {(2, 0.5)}
    assert {(layer.rank, layer.alpha) for path, layer in layers.items() if path not in wide} == {(4, 2.0)}


def test_a_trained_dora_adds_what_peft_computes(unet, tiny_base):
    torch.manual_seed(1)
    bare = load_base(str(tiny_base), parts=("unet",)).unet
    put_on(unet, rank=2, alpha=2.0, targets="everything", dora=True)
    for name, weight in unet.named_parameters():
        if "lora_B" in name or "magnitude" in name:
            weight.data += 0.3 * torch.rand_like(weight)
    layers = trained_layers(unet)

    fuse({path: bare.get_submodule(path) for path in layers}, layers, 1.0)

    assert all(isinstance(layer, Decomposed) for layer in layers.values())
    with torch.inference_mode():
        assert torch.allclose(answer(bare), answer(unet), atol=1e-4)


def test_a_start_brings_its_targets_ranks_alphas_and_values(unet):
    paths = {kohya_name(path, "unet"): path for path, _ in unet.named_modules()}
    start = {paths[name]: layer for number, (name, layer) in enumerate(some_layers(unet)[1].items()) if number % 2}
    first = next(iter(start))
    start[first] = LoraLayer(down=start[first].down[:2], up=start[first].up[:, :2], alpha=0.25)

    trained = put_on(unet, rank=8, alpha=8.0, start=start)
    layers = trained_layers(unet)

    assert layers.keys() == start.keys()
    assert all(torch.equal(layers[path].down, layer.down) and torch.equal(layers[path].up, layer.up) for path, layer in start.items())
    assert (layers[first].rank, layers[first].alpha) == (2, 0.25)
    assert len(trained) == 2 * len(start)
