from __future__ import annotations

import pytest
import torch
from pictures import many_photos, scenes
from torch.nn import functional as F

from synthaug.curation.near_copies import copy_distances, repeats, thumbnails

CHANGES = {
    "mirrored": lambda x: x.flip(3),
    "upside down": lambda x: x.flip(2),
    "turned by 180 degrees": lambda x: x.flip(2, 3),
    "darker": lambda x: (x * 0.7).to(torch.uint8),
    "lit from one side": lambda x: (x * torch.linspace(0.6, 1, x.shape[3])).to(torch.uint8),
    "in deep shade on one side": lambda x: (x * torch.linspace(0.15, 1, x.shape[3])).to(torch.uint8),
    "noisy": lambda x: (x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) * 12).clamp(0, 255).to(torch.uint8),
    "shifted": lambda x: x.roll((5, -7), (2, 3)),
    "smaller": lambda x: F.interpolate(x.float(), (56, 56), mode="bilinear", antialias=True).to(torch.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_far_nearer_than_a_stranger(change):
    pictures = scenes()

    distances = copy_distances(thumbnails(CHANGES[change](pictures)), thumbnails(pictures))

    strangers = distances[~torch.eye(8, dtype=torch.bool)]
    assert distances.diagonal().max() < 0.4 * strangers.min()


def test_distances_are_those_of_a_search_over_all_shifts():
    a, b = thumbnails(scenes(1, seed=1)), thumbnails(scenes(1, seed=2))

    best = max(
        float((a * mirrored.roll((dy, dx), (2, 3))).sum())
        for mirrored in (b, b.flip(2), b.flip(3), b.flip(2, 3)) for dy in range(64) for dx in range(64)
    )  # fmt: skip

    assert copy_distances(a, b).item() == pytest.approx((2 - 2 * best) ** 0.5, abs=1e-4)


def test_a_magnified_thumbnail_shows_the_middle():
    picture = scenes(1, side=120)

    assert torch.equal(thumbnails(picture, zoom=1.2), thumbnails(picture[..., 10:110, 10:110]))


def test_blank_pictures_are_strangers_to_everything():
    blank = thumbnails(torch.full((1, 3, 20, 30), 200, dtype=torch.uint8))

    assert copy_distances(blank, blank).item() > 1.4


def test_repeats_are_found_in_any_mirroring_and_name_the_first():
    pictures = torch.cat([scenes(3), scenes(3).flip(3)[1:2], scenes(3).flip(2)[1:2], scenes(1, seed=9)])

    found = repeats(thumbnails(pictures), range(6), 0.2)

    assert {row: first for row, (first, _) in found.items()} == {3: 1, 4: 1}
    assert all(distance < 0.05 for _, distance in found.values())


def test_only_the_given_rows_repeat_or_are_repeated():
    small = thumbnails(torch.cat([scenes(2), scenes(2), scenes(2)]))

    assert {row: first for row, (first, _) in repeats(small, [1, 2, 4, 5], 0.2).items()} == {4: 2, 5: 1}
    assert repeats(small, [], 0.2) == {}


def test_what_only_resembles_a_repeat_is_kept(monkeypatch):
    # 0 is like 1 and 1 is like 2, but 0 is not like 2
    near = torch.tensor([[0.0, 0.1, 0.3], [0.1, 0.0, 0.1], [0.3, 0.1, 0.0]])
    monkeypatch.setattr("synthaug.curation.near_copies._candidates", lambda *_: {1: [0], 2: [0, 1]})
    monkeypatch.setattr("synthaug.curation.near_copies.copy_distances", lambda a, b: near[a[:, 0].long()][:, b[:, 0].long()])

    assert set(repeats(torch.arange(3.0)[:, None], range(3), 0.2)) == {1}


def test_the_quick_look_clears_no_pair_that_is_near(monkeypatch):
    """Against trying every pair, with blocks that the rows do not fill."""
    monkeypatch.setattr("synthaug.curation.near_copies.BLOCK", 4)
    base = many_photos(7, size=(64, 64))
    small = thumbnails(torch.cat([base, base.roll(3, 3).flip(2), scenes(3, side=64)]))
    limit = 0.7
    distances = copy_distances(small, small)

    found = repeats(small, range(len(small)), limit)

    firsts: list[int] = []
    expected = set()
    for row in range(len(small)):
        near = [first for first in firsts if distances[row, first] < limit]
        expected |= {row} if near else set()
        firsts += [] if near else [row]
    assert set(found) == expected
    assert 7 <= len(expected) < 16


def test_no_picture_has_no_distance_and_no_repeat():
    some, none = thumbnails(scenes(2)), torch.empty(0, *thumbnails(scenes(1)).shape[1:])

    assert copy_distances(some, none).shape == (2, 0)
    assert copy_distances(none, some).shape == (0, 2)
    assert repeats(some, [], 0.5) == repeats(some, [1], 0.5) == {}
