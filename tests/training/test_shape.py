from __future__ import annotations

import pytest
from jsonargparse import ArgumentParser
from tiny_networks import tiny_encoder, tiny_unet

from synthaug.errors import SettingError
from synthaug.lora.layers import put_on, target_paths, trained_layers
from synthaug.training import LoraTraining
from synthaug.training.shape import PARTS, LoraShape, PartShape, sizes_of


def test_without_parts_every_layer_has_the_shape_and_wide_convolutions_their_own():
    unet = tiny_unet()

    sizes = sizes_of({"unet": unet}, LoraShape(rank=8, alpha=4.0, targets="everything", conv_rank=2, conv_alpha=1.0))["unet"]

    assert list(sizes) == target_paths(unet, "everything")
    assert sizes["down_blocks.0.resnets.0.conv1"] == (2, 1.0)
    assert sizes["down_blocks.0.resnets.0.time_emb_proj"] == (8, 4.0)


def test_each_part_has_its_rank_and_alpha_and_the_last_that_matches_counts():
    parts = {"attention": PartShape(rank=4, alpha=1.0), "feed_forward": PartShape(rank=2), "middle": PartShape(rank=6, alpha=3.0)}

    sizes = sizes_of({"unet": tiny_unet()}, LoraShape(rank=8, alpha=4.0, parts=parts))["unet"]

    outer, middle = "down_blocks.1.attentions.0.transformer_blocks.0", "mid_block.attentions.0.transformer_blocks.0"
    assert sizes[f"{outer}.attn1.to_q"] == (4, 1.0)
    assert sizes[f"{outer}.ff.net.2"] == (2, 1.0)  # the scale of all others, 4 / 8
    assert sizes["down_blocks.1.attentions.0.proj_in"] == (8, 4.0)
    assert sizes[f"{middle}.attn1.to_q"] == (6, 3.0)


def test_layers_on_the_network_have_the_ranks_of_their_parts():
    unet = tiny_unet()
    shape = LoraShape(rank=8, alpha=4.0, parts={r"attn2\.to_[kv]": PartShape(rank=2, alpha=6.0), "up": PartShape(rank=0)})
    sizes = sizes_of({"unet": unet}, shape)["unet"]

    put_on(unet, rank=8, alpha=4.0, sizes=sizes)

    layers = trained_layers(unet)
    assert {path: (layer.rank, layer.alpha) for path, layer in layers.items()} == sizes
    assert not any(path.startswith("up_blocks") for path in layers)


def test_text_encoders_are_a_part_and_one_of_rank_0_is_left_out():
    networks = {"unet": tiny_unet(), "text_encoder": tiny_encoder(), "text_encoder_2": tiny_encoder(projects=True)}

    sizes = sizes_of(networks, LoraShape(parts={"text_encoders": PartShape(rank=3), "^text_encoder_2": PartShape(rank=0)}))

    assert {rank for rank, _ in sizes["text_encoder"].values()} == {3}
    assert sizes["text_encoder_2"] == {}


@pytest.mark.parametrize("name", sorted(PARTS))
def test_every_named_part_matches_something_and_not_everything(name):
    networks = {"unet": tiny_unet(), "text_encoder": tiny_encoder()}

    sizes = sizes_of(networks, LoraShape(rank=16, targets="everything", parts={name: PartShape(rank=1)}))

    assert {rank for found in sizes.values() for rank, _ in found.values()} == {1, 16}


def test_a_part_that_matches_nothing_is_refused_with_the_names():
    with pytest.raises(SettingError, match=r"'atention' matches none .the first is unet\.down_blocks.*attention, feed_forward"):
        sizes_of({"unet": tiny_unet()}, LoraShape(parts={"atention": PartShape(rank=4)}))
    with pytest.raises(SettingError, match="'text_encoders' matches none"):
        sizes_of({"unet": tiny_unet()}, LoraShape(parts={"text_encoders": PartShape(rank=4)}))


def test_parts_must_leave_something_and_be_patterns_and_have_ranks():
    with pytest.raises(SettingError, match="at least one layer must be trained, parts leave out all"):
        sizes_of({"unet": tiny_unet()}, LoraShape(parts={"": PartShape(rank=0)}))
    with pytest.raises(SettingError, match=r"'at\(tn' is neither"):
        LoraShape(parts={"at(tn": PartShape(rank=4)})
    with pytest.raises(SettingError, match="the rank of a part must be 0 or above; 0 leaves it out, got -1"):
        PartShape(rank=-1)
    with pytest.raises(SettingError, match="the alpha of a part must be above 0, got 0"):
        PartShape(rank=1, alpha=0)


def test_parts_are_options_of_the_command():
    parser = ArgumentParser()
    parser.add_class_arguments(LoraTraining, "model")

    given = parser.parse_args(["--model.shape.parts", '{"attention": {"rank": 4}, "up": {"rank": 2, "alpha": 1.0}}'])

    assert parser.instantiate_classes(given).model.shape.parts == {"attention": PartShape(rank=4), "up": PartShape(rank=2, alpha=1.0)}
