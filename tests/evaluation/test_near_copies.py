from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from conftest import make_photo
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from worlds import scene

from synthaug.evaluation.near_copies import CERTAIN, likeness, near_copies


def photos(count: int, *, first: int = 0) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(make_photo((64, 48), seed=first + seed))).permute(2, 0, 1) for seed in range(count)])


def scenes(count: int, *, first: int = 0) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(scene(first + seed, size=(64, 48)))).permute(2, 0, 1) for seed in range(count)])


def compressed(image: Tensor) -> Tensor:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=60)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)


CHANGES = {
    "mirrored": lambda image: image.flip(2),
    "upside down": lambda image: image.flip(1),
    "darker": lambda image: (image * 0.7).to(torch.uint8),
    "lit from one side": lambda image: (image * torch.linspace(0.7, 1, image.shape[2])).to(torch.uint8),
    "compressed": compressed,
    "smaller": lambda image: F.resize(F.resize(image, [48, 36]), [64, 48]),
    "moved": lambda image: image.roll((2, 3), (1, 2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_with_the_photo_it_repeats(change):
    known = scenes(9)

    assert near_copies(CHANGES[change](known[4])[None], known) == [(0, 4)]


def test_other_photos_of_the_same_kind_of_thing_are_not_copies():
    assert near_copies(photos(12, first=100), photos(30)) == []


def test_parts_that_look_alike_in_one_fixture_are_not_copies_but_a_copy_among_them_is():
    """Printed boards: one pattern for all, a little dirt on each."""
    pattern = torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(0)) * 200 + 20
    dirt = torch.randn(24, 3, 64, 48, generator=torch.Generator().manual_seed(1)) * 10
    boards = (pattern + dirt).clamp(0, 255).to(torch.uint8)

    assert likeness(boards[16:], boards[:16]).median() > 0.95
    assert near_copies(boards[16:], boards[:16]) == []
    assert near_copies(torch.cat([boards[16:], boards[3:4].flip(3)]), boards[:16]) == [(8, 3)]


def test_copies_are_found_even_if_all_test_photos_are_copies():
    known = photos(10)

    assert near_copies(known[:6].flip(3), known) == [(row, row) for row in range(6)]


def test_copies_are_found_even_if_every_known_photo_is_there_twice():
    known = scenes(8)
    grain = torch.randn(3, 64, 48, generator=torch.Generator().manual_seed(0)) * 15
    copy = compressed((known[2] + grain).clamp(0, 255).to(torch.uint8))
    assert float(likeness(copy[None], known).max()) < CERTAIN

    assert near_copies(torch.cat([scenes(5, first=50), copy[None]]), torch.cat([known, known.flip(3)])) == [(5, 2)]


def test_blank_pictures_are_like_nothing():
    blank = torch.full((2, 3, 40, 30), 128, dtype=torch.uint8)

    assert near_copies(blank, blank) == []


def test_nothing_repeats_nothing():
    assert near_copies(photos(1), photos(1)[:0]) == []


def test_likeness_is_1_for_itself_and_does_not_care_who_is_asked_first():
    a, b = photos(3), photos(4, first=20)

    assert torch.allclose(likeness(a, a).diagonal(), torch.ones(3), atol=1e-5)
    assert torch.allclose(likeness(a, b), likeness(b, a).T, atol=1e-5)
