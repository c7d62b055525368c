from __future__ import annotations

import numpy as np
import pytest
import torch

from synthaug.defects.shapes import blot, draw_shape, perlin, stroke, warped
from synthaug.errors import SettingError
from synthaug.photos.regions import parts, shrunk

SIZE = (96, 130)


@pytest.fixture
def area():
    """An object that fills the right half."""
    made = torch.zeros(SIZE, dtype=torch.uint8)
    made[8:90, 65:125] = 1
    return made


@pytest.fixture
def bolt():
    """A long mask with a crumb far from it."""
    made = torch.zeros(50, 70, dtype=torch.uint8)
    made[20:26, 10:50] = 1
    made[45:47, 60:62] = 1
    return made


def test_noise_is_zero_at_its_knots_and_smooth_between():
    noise = perlin((64, 96), scale=(4, 6), rng=np.random.default_rng(0))

    assert np.abs(noise[::16, ::16]).max() < 1e-6
    assert np.abs(np.diff(noise, axis=0)).max() < 0.25
    assert noise.std() > 0.15


def test_noise_is_that_of_the_textbook():
    """Each pixel by itself, in double precision, from the same slopes."""
    shape, scale = (7, 11), (2, 3)
    angles = np.random.default_rng(3).uniform(0, 2 * np.pi, (3, 4))

    def fade(t):
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    def at(y, x):
        i, j = int(y), int(x)
        dots = [[np.sin(angles[i + a, j + b]) * (y - i - a) + np.cos(angles[i + a, j + b]) * (x - j - b) for b in (0, 1)] for a in (0, 1)]
        weights = [[(1 - fade(x - j)), fade(x - j)], [(1 - fade(y - i)), fade(y - i)]]
        return 2**0.5 * sum(weights[1][a] * weights[0][b] * dots[a][b] for a in (0, 1) for b in (0, 1))

    wanted = [[at(y * scale[0] / shape[0], x * scale[1] / shape[1]) for x in range(shape[1])] for y in range(shape[0])]

    assert np.abs(perlin(shape, scale=scale, rng=np.random.default_rng(3)) - np.clip(wanted, -1, 1)).max() < 1e-5


@pytest.mark.parametrize("kind", ["perlin", "stroke", "warped"])
def test_a_shape_lies_on_the_object_in_the_size_asked_for(kind, area, bolt):
    for seed in range(8):
        shape = draw_shape(kind, SIZE, share=(0.01, 0.02), seed=seed, area=area, masks=[bolt])

        assert shape.shape == SIZE
        assert shape.unique().tolist() == [0, 1]
        assert not (shape & (1 - area)).any()
        assert 0.007 * SIZE[0] * SIZE[1] < shape.sum() < 0.025 * SIZE[0] * SIZE[1]


@pytest.mark.parametrize("kind", ["perlin", "stroke", "warped"])
def test_a_seed_gives_its_shape_again_and_another_seed_another(kind, bolt):
    first, again, other = (draw_shape(kind, SIZE, share=(0.01, 0.02), seed=seed, masks=[bolt]) for seed in (4, 4, 5))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_stroke_is_thin_and_a_blot_is_not():
    everywhere = torch.ones(SIZE, dtype=torch.uint8)
    line, spot = (make(SIZE, pixels=300, rng=np.random.default_rng(1), area=everywhere) for make in (stroke, blot))

    assert not shrunk(line.float(), 4).any()
    assert shrunk(spot.float(), 4).any()
    assert len(parts(line.float(), least=0)) == 1


def test_a_warped_mask_is_one_piece_as_long_as_its_own(bolt):
    made = warped(bolt, SIZE, pixels=240, rng=np.random.default_rng(2), area=torch.ones(SIZE, dtype=torch.uint8))

    assert len(parts(made.float(), least=0)) == 1, "the crumb is left behind"
    places = made.nonzero().float()
    long, short = torch.linalg.eigvalsh(torch.cov(places.T)).sqrt().flip(0).tolist()
    assert long > 3 * short


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kind": "star"}, "unknown kind of shape 'star'; choose one of: perlin, stroke, warped"),
        ({"kind": "warped"}, "need masks of real defects, got none; give masks, or take perlin or stroke"),
        ({"kind": "warped", "masks": [torch.zeros(5, 6, dtype=torch.uint8)]}, "must mark something, got an empty one"),
        ({"share": (0.0, 0.1)}, r"0 < least <= greatest <= 0.5, got \(0.0, 0.1\)"),
        ({"area": torch.ones(4, 5, dtype=torch.uint8)}, r"must have the size of its photo, \(96, 130\), got \(4, 5\)"),
        ({"share": (0.5, 0.5), "half": True}, "must be smaller than the object, the object has 4920 pixels and the shape 6240"),
    ],
)
def test_what_cannot_be_drawn_is_said(given, sentence, area):
    fields = {"kind": "perlin", "share": (0.01, 0.02), "seed": 0, **given}
    if fields.pop("half", False):
        fields["area"] = area
    with pytest.raises(SettingError, match=sentence):
        draw_shape(fields.pop("kind"), SIZE, **fields)
