from __future__ import annotations

import copy
import json

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


def test_each_block_can_be_worn_with_a_strength_of_its_own_and_the_first_that_fits_counts():
    names = ["lora_unet_down_blocks_0_x", "lora_unet_mid_block_x", "lora_unet_up_blocks_0_x", "lora_unet_up_blocks_1_x", "lora_te_x"]
    file = LoraFile(layers={name: layer(2, 1.0) for name in names}, metadata={})

    worn = merge([file], [{"down": 0.5, "up_blocks_1": -1.0, "up": 2.0, "text": 0.0}])

    strengths = [float(change(worn, name)[0, 0] / change(file, name)[0, 0]) for name in names]
    assert strengths == pytest.approx([0.5, 1.0, 2.0, -1.0, 0.0])
    with pytest.raises(SettingError, match="a weight must fit a module, 'side' fits none of LoRA; use down, mid, up, text"):
        merge([file], [{"side": 1.0}])
    with pytest.raises(SettingError, match=r"or a regular expression, '\(' is none"):
        merge([file], [{"(": 1.0}])


def test_a_ratio_leaves_out_what_is_so_many_times_weaker_than_the_strongest():
    strong = LoraLayer(down=torch.diag(torch.tensor([8.0, 4.0, 1.0])), up=torch.eye(3), alpha=3.0)
    file = LoraFile(layers={"a": strong, "b": layer(2, 0.0)}, metadata={"ss_network_dim": "3", "ss_network_alpha": "3.0"})

    small = resize(file, ratio=2.0)

    assert torch.allclose(change(small, "a"), torch.diag(torch.tensor([8.0, 4.0, 0.0])), atol=1e-6)
    assert resize(file, ratio=1.9).layers["a"].rank == 1
    assert resize(file, ratio=8.0, rank=2).layers["a"].rank == 2
    assert torch.equal(change(small, "b"), torch.zeros(6, 5)), "nothing has no strongest direction"
    assert resize(file, rank=1).metadata == {"ss_network_dim": "1", "ss_network_alpha": "1.0"}
    assert resize(file, ratio=8.0).metadata["ss_network_dim"] == "Dynamic", "kohya's word for ranks that differ"


def test_with_the_base_a_dora_is_merged_and_resized_as_what_it_adds(tiny_base):
    base = load_base(str(tiny_base))
    path = target_paths(base.unet, "everything")[0]
    weight, name = base.unet.get_submodule(path).weight, kohya_name(path, "unet")
    up, down = torch.randn(weight.shape[0], 2, *[1] * (weight.ndim - 2)), torch.randn(2, *weight.shape[1:])
    lengths = torch.rand(weight.shape[0], *[1] * (weight.ndim - 1)) + 0.5
    dora = LoraFile(layers={name: Decomposed(direction=LoraLayer(down=down, up=up, alpha=1.0), magnitude=lengths)}, metadata={})
    moved = weight + (up.flatten(1) @ down.flatten(1)).reshape(weight.shape) / 2
    expected = lengths * moved / moved.flatten(1).norm(dim=1).reshape(lengths.shape) - weight

    doubled = merge([dora, dora], [1.0, 0.5], base={"unet": base.unet})
    small = resize(dora, rank=2, base={"unet": base.unet})

    assert torch.allclose(doubled.layers[name].change(weight), 1.5 * expected, atol=1e-5)
    left = torch.linalg.svdvals(expected.flatten(1))[2:].square().sum().sqrt()
    assert float((small.layers[name].change(weight) - expected).norm()) == pytest.approx(float(left), rel=1e-3)
    with pytest.raises(UnusableFileError, match=f"the base has no {name}; give its unet"):
        resize(dora, rank=2, base={"text_encoder": base.text_encoder})
    odd = LoraFile(layers={name: Decomposed(direction=layer(2, 1.0), magnitude=torch.ones(6, 1))}, metadata={})
    with pytest.raises(UnusableFileError, match=r"a DoRA must fit its base, .* has shape \(6, 5\)"):
        resize(odd, rank=2, base={"unet": base.unet})


def test_a_merged_file_has_seen_every_photo_that_one_of_them_has():
    rows = [{"sha256": letter * 64, "group": letter} for letter in "abc"]
    one, two = (
        LoraFile(layers={"a": layer(2, 1.0)}, metadata={"synthaug.photos": json.dumps(seen), "synthaug.size": size})
        for seen, size in ((rows[:2], "8x8"), (rows[1:], "8x16"))
    )

    both = merge([one, two], [1.0, 1.0])

    assert [photo.group for photo in both.photos] == ["a", "b", "c"]
    assert both.size is None


def test_files_for_two_families_are_not_merged():
    one, two = (LoraFile(layers={"a": layer(2, 1.0)}, metadata={"ss_base_model_version": v}) for v in ("sd_v1", "sdxl_base_v1-0"))

    with pytest.raises(UnusableFileError, match="must be for one family of bases, these are for sd1 and sdxl"):
        merge([one, two], [1.0, 1.0])


def test_extracting_takes_every_network_and_a_rank_for_convolutions(tiny_base):
    base = {kind: getattr(load_base(str(tiny_base)), part) for kind, part in (("unet", "unet"), ("text_encoder", "text_encoder"))}
    base["text_encoder_2"] = copy.deepcopy(base["text_encoder"])
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        for network in tuned.values():
            for weight in network.parameters():
                weight += 0.1 * torch.randn_like(weight)

    file = extract(base, tuned, rank=3, conv_rank=2)

    ranks = {name: update.rank for name, update in file.layers.items()}
    assert {ranks[name] for name, update in file.layers.items() if max(update.shape[2:], default=1) > 1} == {2}
    assert max(ranks.values()) == 3
    assert {name.split("_")[1] for name in ranks} == {"unet", "te1", "te2"}
    assert file.family == "sdxl"
    with pytest.raises(SettingError, match="both checkpoints must have the same networks, got"):
        extract(base, {"unet": tuned["unet"]}, rank=2)
    with pytest.raises(SettingError, match="conv_rank must be at least 1, got 0"):
        extract(base, tuned, rank=2, conv_rank=0)


def test_mistakes_are_sentences():
    file = LoraFile(layers={"a": layer(2, 1.0)}, metadata={})
    dora = LoraFile(layers={"a": Decomposed(direction=layer(2, 1.0), magnitude=torch.ones(6, 1))}, metadata={})
    other = LoraFile(layers={"a": layer(2, 1.0, into=4)}, metadata={})

    with pytest.raises(SettingError, match="one weight for each file, got '1 for 2'"):
        merge([file, file], [1.0])
    with pytest.raises(SettingError, match="at least one file"):
        merge([], [])
    with pytest.raises(SettingError, match="needs a rank, an energy to keep or a ratio"):
        resize(file)
    with pytest.raises(SettingError, match="rank must be at least 1, got 0"):
        resize(file, rank=0)
    with pytest.raises(SettingError, match=r"ratio must be at least 1, got 0.5"):
        resize(file, ratio=0.5)
    with pytest.raises(SettingError, match="energy must be above 0"):
        resize(file, energy=1.5)
    with pytest.raises(UnusableFileError, match="a DoRA's change depends on the base's weights, a is one; give base="):
        merge([file, dora], [1.0, 1.0])
    with pytest.raises(UnusableFileError, match="files to merge must be for one base, a has shapes"):
        merge([file, other], [1.0, 1.0])
