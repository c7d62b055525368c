from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from still_life import still_life

from synthaug.photos.foreground import find_foreground
from synthaug.pixels import framed, read_image


def overlap(matte, thing):
    found = matte > 0.5
    return float((found & thing).sum() / (found | thing).sum())


@pytest.mark.parametrize("seed", [0, 1])
def test_a_thing_in_uneven_light_is_found_without_its_shadow(seed):
    photo = still_life(seed=seed)

    found = find_foreground(photo.picture)

    assert found.doubt == ""
    assert overlap(found.matte, photo.thing) > 0.9
    assert float(found.matte[photo.shadow].mean()) < 0.15
    assert found.share == pytest.approx(float(photo.thing.float().mean()), rel=0.1)


def test_a_smooth_thing_is_found_too():
    picture = torch.full((3, 120, 160), 225, dtype=torch.uint8)
    thing = torch.zeros(120, 160, dtype=torch.bool)
    thing[40:90, 50:120] = True
    picture[:, thing] = torch.tensor([60, 62, 66], dtype=torch.uint8)[:, None]

    found = find_foreground(picture)

    assert found.doubt == ""
    assert overlap(found.matte, thing) > 0.95


def test_the_ground_is_what_the_paper_would_look_like_below_the_thing():
    photo = still_life()

    found = find_foreground(photo.picture)

    left, right = found.ground[1, 80:100, 60].mean(), found.ground[1, 80:100, 180].mean()
    assert float(left / right) == pytest.approx((0.75 - 0.25 * 60 / 240) / (0.75 - 0.25 * 180 / 240), rel=0.04)


def test_the_edge_of_the_table_is_neither_thing_nor_ground():
    photo = still_life()
    picture = photo.picture.clone()
    grain = 0.5 + torch.rand(1, 180, 10, generator=torch.Generator().manual_seed(0))
    picture[:, :, :10] = (torch.tensor([60.0, 35.0, 20.0])[:, None, None] * grain).to(torch.uint8)

    found = find_foreground(picture)

    assert found.matte[:, :10].max() < 0.1
    assert found.others[:, :8].min() == 1
    assert overlap(found.matte, photo.thing) > 0.9


@pytest.mark.parametrize(
    ("kind", "doubt"),
    [
        ("nothing", "fills less than 1% of the photo"),
        ("speck", "fills less than 1% of the photo"),
        ("three sides", "touches three sides"),
        ("noise", "fills more than 90% of the photo"),
    ],
)
def test_it_knows_when_it_does_not_know(kind, doubt):
    random = torch.Generator().manual_seed(0)
    picture = (225 + 3 * torch.randn(3, 120, 160, generator=random)).round().clamp(0, 255).to(torch.uint8)
    if kind == "speck":
        picture[:, 50:58, 70:80] = 40
    if kind == "three sides":
        picture[:, 60:85] = (20 + 60 * torch.rand(3, 25, 160, generator=random)).to(torch.uint8)
        picture[:, 85:, 70:95] = picture[:, 60:85, 70:95].repeat(1, 2, 1)[:, :35]
    if kind == "noise":
        picture = torch.randint(0, 256, (3, 12, 16), dtype=torch.uint8, generator=random).repeat_interleave(10, 1).repeat_interleave(10, 2)

    found = find_foreground(picture)

    assert doubt in found.doubt
    assert not found.matte.isnan().any()


@pytest.mark.skipif("SYNTHAUG_DATA" not in os.environ, reason="needs the real photos: SYNTHAUG_DATA")
def test_fish_on_a_white_board_are_found():
    files = sorted((Path(os.environ["SYNTHAUG_DATA"]) / "fish_on_white").glob("*.jpg"))[::6]
    for file in files:
        found = find_foreground(framed(read_image(file), (512, 512)))
        assert found.doubt == ""
        assert 0.06 < found.share < 0.1, file.name
        assert found.matte[:30].max() < 0.1
