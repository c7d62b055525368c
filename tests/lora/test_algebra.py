from __future__ import annotations

import copy

import pytest
import torch

from synthaug.errors import SettingError, UnusableFileError
from synthaug.lora.algebra import extract, merge, resize
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import LoraLayer, fuse, target_paths
from synthaug.lora.naming import kohya_name, modules_by_name
from synthaug.lora.updates import Decomposed, FullChange
from synthaug.models.load import load_base


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def layer(rank, alpha, *, out=6, into=5, kernel=()):
    return LoraLayer(down=torch.randn(rank, into, *kernel), up=torch.randn(out, rank, *[1] * len(kernel)), alpha=alpha)


def change(file, name):
    return file.layers[name].change(torch.zeros(file.layers[name].shape))


def test_merged_without_a_rank_is_the_weighted_sum_exactly_whatever_ranks_and_alphas():
    one = LoraFile(layers={"a": layer(2, 1.0), "b": layer(3, 6.0, kernel=(3, 3))}, metadata={"ss_v2": "False", "ss_seed": "1"})
    two = LoraFile(layers={"a": layer(4, 0.5), "c": layer(1, 1.0)}, metadata={"ss_v2": "False", "ss_seed": "2"})

    both = merge([one, two], [0.7, -0.4])

    assert torch.allclose(change(both, "a"), 0.7 * change(one, "a") - 0.4 * change(two, "a"), atol=1e-5)
    assert torch.allclose(change(both, "b"), 0.7 * change(one, "b"), atol=1e-5)
    assert torch.allclose(change(both, "c"), -0.4 * change(two, "c"), atol=1e-5)
    assert both.layers["a"].rank == 6
    assert both.metadata == {"ss_v2": "False"}, "what the files do not agree on is not claimed"


def test_merged_to_a_rank_is_the_best_approximation_of_that_rank():
    one, two = (LoraFile(layers={"a": layer(3, 3.0, kernel=(3, 3))}, metadata={}) for _ in range(2))
    exact = (change(one, "a") + change(two, "a")).flatten(1)

    small = merge([one, two], [1.0, 1.0], rank=2)

    assert small.layers["a"].rank == 2
    left = torch.linalg.svdvals(exact)[2:].square().sum().sqrt()
    assert float((change(small, "a").flatten(1) - exact).norm()) == pytest.approx(float(left), rel=1e-4)


def test_resizing_keeps_the_share_that_was_asked_for_and_no_more_directions_than_that_takes():
    file = LoraFile(layers={"a": layer(5, 2.0), "b": LoraLayer(down=torch.eye(3, 5), up=torch.eye(6, 3) * 1.0, alpha=3.0)}, metadata={})

    small = resize(file, energy=0.9)

    singular = torch.linalg.svdvals(change(file, "a")).square()
    kept = small.layers["a"].rank
    assert singular[:kept].sum() >= 0.9 * singular.sum() > singular[: kept - 1].sum()
    assert small.layers["b"].rank == 3, "three equal directions: two keep only two thirds"
    assert resize(file, rank=2, energy=0.9).layers["b"].rank == 2
    assert torch.allclose(change(resize(file, energy=1.0), "a"), change(file, "a"), atol=1e-5)


def test_a_full_change_becomes_a_lora():
    diff = torch.randn(6, 2) @ torch.randn(2, 5)

    small = resize(LoraFile(layers={"a": FullChange(diff=diff)}, metadata={}), rank=2)

    assert isinstance(small.layers["a"], LoraLayer)
    assert torch.allclose(change(small, "a"), diff, atol=1e-5)


def test_what_was_fused_is_extracted_again(tiny_base):
    base = load_base(str(tiny_base))
    tuned = copy.deepcopy(base)
    path = target_paths(base.unet, "everything")[3]
    weight = base.unet.get_submodule(path).weight
    lora = LoraLayer(down=torch.randn(2, *weight.shape[1:]), up=torch.randn(weight.shape[0], 2, *[1] * (weight.ndim - 2)), alpha=1.0)
    fuse(modules_by_name(tuned.unet, "unet"), {kohya_name(path, "unet"): lora}, 1.0)

    found = extract(
        {"unet": base.unet, "text_encoder": base.text_encoder}, {"unet": tuned.unet, "text_encoder": tuned.text_encoder}, rank=2
    )

    assert list(found.layers) == [kohya_name(path, "unet")]
    assert torch.allclose(change(found, kohya_name(path, "unet")), lora.delta(), atol=1e-4)
    with pytest.raises(SettingError, match="do not differ in any layer"):
        extract({"unet": base.unet}, {"unet": copy.deepcopy(base.unet)}, rank=2)


def test_mistakes_are_sentences():
    file = LoraFile(layers={"a": layer(2, 1.0)}, metadata={})
    dora = LoraFile(layers={"a": Decomposed(direction=layer(2, 1.0), magnitude=torch.ones(6, 1))}, metadata={})
    other = LoraFile(layers={"a": layer(2, 1.0, into=4)}, metadata={})

    with pytest.raises(SettingError, match="one weight for each file, got '1 for 2'"):
        merge([file, file], [1.0])
    with pytest.raises(SettingError, match="at least one file"):
        merge([], [])
    with pytest.raises(SettingError, match="needs a rank or an energy"):
        resize(file)
    with pytest.raises(SettingError, match="rank must be at least 1, got 0"):
        resize(file, rank=0)
    with pytest.raises(SettingError, match="energy must be above 0"):
        resize(file, energy=1.5)
    with pytest.raises(UnusableFileError, match="a DoRA's change depends on the base's weights, a is one"):
        merge([file, dora], [1.0, 1.0])
    with pytest.raises(UnusableFileError, match="files to merge must be for one base, a has shapes"):
        merge([file, other], [1.0, 1.0])
