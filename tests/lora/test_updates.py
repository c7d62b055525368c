from __future__ import annotations

import pytest
import torch

from synthaug.lora.layers import LoraLayer
from synthaug.lora.updates import Decomposed, FullChange, HadamardLayer, KroneckerLayer, TuckerLayer


def by_hand(out, rest, entry):
    """A matrix whose entries are computed one at a time."""
    return torch.tensor([[float(entry(o, i)) for i in range(rest)] for o in range(out)])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_tucker_is_up_core_down_at_every_place_of_the_kernel():
    layer = TuckerLayer(down=torch.randn(2, 3, 1, 1), mid=torch.randn(2, 2, 3, 3), up=torch.randn(4, 2, 1, 1), alpha=1.0)

    change = layer.change(torch.zeros(4, 3, 3, 3))

    for h in range(3):
        for w in range(3):
            expected = 0.5 * layer.up.flatten(1) @ layer.mid[:, :, h, w] @ layer.down.flatten(1)
            assert torch.allclose(change[:, :, h, w], expected, atol=1e-6)
    assert (layer.shape, layer.rank) == ((4, 3, 3, 3), 2)


def test_loha_multiplies_entry_by_entry():
    parts = {name: torch.randn(4, 2) if name.endswith("_a") else torch.randn(2, 6) for name in
             ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")}  # fmt: skip
    layer = HadamardLayer(parts=parts, alpha=3.0)
    one = by_hand(4, 6, lambda o, i: sum(parts["hada_w1_a"][o, r] * parts["hada_w1_b"][r, i] for r in range(2)))
    two = by_hand(4, 6, lambda o, i: sum(parts["hada_w2_a"][o, r] * parts["hada_w2_b"][r, i] for r in range(2)))

    assert torch.allclose(layer.change(torch.zeros(4, 6)), 1.5 * one * two, atol=1e-5)
    assert torch.allclose(layer.change(torch.zeros(4, 6, 1, 1)).flatten(1), 1.5 * one * two, atol=1e-5)
    assert layer.shape == (4, 6)


def test_loha_in_tucker_form_has_a_core_for_each_factor():
    parts = {}
    for k in (1, 2):
        parts |= {f"hada_t{k}": torch.randn(2, 2, 3, 3), f"hada_w{k}_a": torch.randn(2, 5), f"hada_w{k}_b": torch.randn(2, 4)}
    layer = HadamardLayer(parts=parts, alpha=2.0)

    change = layer.change(torch.zeros(5, 4, 3, 3))

    at = {k: parts[f"hada_w{k}_a"].T @ parts[f"hada_t{k}"][:, :, 1, 2] @ parts[f"hada_w{k}_b"] for k in (1, 2)}
    assert torch.allclose(change[:, :, 1, 2], at[1] * at[2], atol=1e-5)
    assert layer.shape == (5, 4, 3, 3)


@pytest.mark.parametrize("whole", [True, False])
def test_lokr_sets_a_scaled_copy_of_the_second_factor_for_every_entry_of_the_first(whole):
    first, a, b = torch.randn(2, 3), torch.randn(4, 2), torch.randn(2, 5)
    parts = {"lokr_w1": first, **({"lokr_w2": a @ b} if whole else {"lokr_w2_a": a, "lokr_w2_b": b})}
    layer = KroneckerLayer(parts=parts, alpha=1.0)

    change = layer.change(torch.zeros(8, 15))

    scale = 1.0 if whole else 0.5
    assert torch.allclose(change[4:8, 5:10], scale * first[1, 1] * (a @ b), atol=1e-5)
    assert layer.shape == (8, 15)


def test_lokr_of_a_convolution_keeps_the_kernel_with_the_second_factor():
    parts = {"lokr_w1": torch.randn(2, 3), "lokr_w2_a": torch.randn(4, 2), "lokr_w2_b": torch.randn(2, 5 * 9)}
    layer = KroneckerLayer(parts=parts, alpha=2.0)

    change = layer.change(torch.zeros(8, 15, 3, 3))

    small = (parts["lokr_w2_a"] @ parts["lokr_w2_b"]).reshape(4, 5, 3, 3)
    assert torch.allclose(change[:4, 10:], parts["lokr_w1"][0, 2] * small, atol=1e-5)


def test_dora_gives_every_output_the_length_it_says_whatever_the_direction():
    weight = torch.randn(4, 3, 3, 3)
    direction = LoraLayer(down=torch.randn(2, 3, 3, 3), up=torch.randn(4, 2, 1, 1), alpha=2.0)
    magnitude = torch.rand(4, 1, 1, 1) + 1

    moved = weight + Decomposed(direction=direction, magnitude=magnitude).change(weight)

    assert torch.allclose(moved.flatten(1).norm(dim=1), magnitude.flatten(), atol=1e-5)
    straight = (weight + direction.delta()).flatten(1)
    assert torch.allclose(torch.nn.functional.cosine_similarity(moved.flatten(1), straight), torch.ones(4), atol=1e-5)


def test_dora_of_the_bases_own_lengths_and_no_direction_changes_nothing():
    weight = torch.randn(4, 6)
    nothing = LoraLayer(down=torch.randn(2, 6), up=torch.zeros(4, 2), alpha=2.0)

    for magnitude in (weight.norm(dim=1, keepdim=True), weight.norm(dim=1), weight.norm(dim=0, keepdim=True)):
        assert Decomposed(direction=nothing, magnitude=magnitude).change(weight).abs().max() < 1e-6


def test_a_full_change_is_what_it_is():
    assert torch.equal(FullChange(diff=torch.ones(2, 3)).change(torch.zeros(2, 3, 1, 1)), torch.ones(2, 3, 1, 1))
    assert (FullChange(diff=torch.ones(2, 3)).shape, FullChange(diff=torch.ones(2, 3)).rank) == ((2, 3), 2)
