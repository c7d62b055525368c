"""Images of every mode in one call: none can tell that the others are there."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from conftest import make_photo
from PIL import Image, ImageDraw

from synthaug import Request, Sampler
from synthaug.generation.schedulers import SAMPLERS
from synthaug.records import Hires

SIZE = (32, 40)


@pytest.fixture(scope="module")
def sampler(tiny_base):
    return Sampler(str(tiny_base))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A photo and two masks."""
    folder = tmp_path_factory.mktemp("modes")
    make_photo(SIZE, seed=1).save(folder / "photo.png")
    for name, box in (("left", (2, 6, 18, 24)), ("right", (22, 2, 38, 20))):
        mask = Image.new("L", SIZE[::-1])
        ImageDraw.Draw(mask).ellipse(box, fill=255)
        mask.save(folder / f"{name}.png")
    return folder


def asked(files, **usual):
    photo, left, right = (str(files / f"{name}.png") for name in ("photo", "left", "right"))
    fields = [
        {"seed": 1},
        {"seed": 2, "guidance": 1.0},
        {"seed": 3, "variation_strength": 0.5, "variation_seed": 9, "noise": "NV"},
        {"seed": 4, "image": photo, "strength": 0.5},
        {"seed": 5, "image": photo, "strength": 0.7, "exact_steps": True},
        {"seed": 6, "image": photo, "mask": left, "strength": 1.0, "mask_blur": 1},
        {"seed": 7, "image": photo, "mask": right, "strength": 0.6, "masked_content": "fill", "mask_blur": 0},
        {"seed": 8, "image": photo, "mask": left, "strength": 0.8, "only_masked": True, "mask_padding": 2, "mask_blur": 1},
    ]
    return [Request(**{"prompt": "a photo of a fish", "steps": 4, "size": SIZE, **usual, **some}) for some in fields]


def apart(a, b):
    return int((a.int() - b.int()).abs().max())


@pytest.mark.parametrize("name", SAMPLERS)
def test_eight_images_of_three_modes_are_each_what_they_are_alone(sampler, files, name):
    wanted = asked(files, sampler=name)
    places = list(range(len(wanted)))
    random.Random(name).shuffle(places)

    together = sampler([wanted[place] for place in places])
    alone = [sampler([one])[0] for one in wanted]

    assert max(apart(image, alone[place]) for image, place in zip(together, places, strict=True)) <= 1
    assert all(apart(alone[a], alone[b]) > 3 for a in range(8) for b in range(a))


def test_modes_that_cannot_share_a_step_share_a_call(sampler, files):
    wanted = [*asked(files), *asked(files, tiling=True)[:4], *asked(files, sampler="Euler a")[:3]]
    wanted += [Request(prompt="a fish", seed=1, steps=3, size=(24, 32), hires=Hires(scale=1.4, strength=s)) for s in (0.4, 0.8)]

    together = sampler(wanted)

    assert together.shape == (17, 3, *SIZE)
    assert max(apart(image, sampler([one])[0]) for image, one in zip(together, wanted, strict=True)) <= 1
    assert all(apart(together[row], together[row + 8]) > 3 for row in range(4)), "tiling shows"


def test_all_of_a_photo_redrawn_is_what_noise_alone_gives(sampler, files):
    """A strength of 1 ignores the photo."""
    plain, *_, photo = asked(files)[:4]

    images = sampler([plain, replace(photo, seed=plain.seed, strength=1.0)])

    assert torch.equal(*images)
