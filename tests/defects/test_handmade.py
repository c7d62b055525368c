from __future__ import annotations

import numpy as np
import pytest
import torch
from flawed import paper

from synthaug.defects import HANDMADE, CutPaste, PerlinBlots, PoissonPaste
from synthaug.defects.textures import texture
from synthaug.errors import SettingError


def picture(size=(96, 120)):
    """Grain on a slope of light, so that pieces differ by place."""
    slope = np.linspace(-60, 60, size[1], dtype=np.float32)
    return np.clip(paper(3, size).numpy().astype(np.float32) + slope, 0, 255)


def drawn(source, image, free=None, count=10):
    free = np.ones(image.shape[1:], bool) if free is None else free
    return [source.draw(image, free, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("name", HANDMADE)
def test_a_recipe_changes_its_mask_stays_on_the_object_and_repeats_from_its_seed(name):
    image = picture()
    before = image.copy()
    free = np.zeros(image.shape[1:], bool)
    free[20:80, 30:100] = True

    changes, again = (drawn(HANDMADE[name](), image, free) for _ in range(2))

    assert (image == before).all()
    for change, other in zip(changes, again, strict=True):
        difference = np.abs(change.pixels - image[:, *change.window]).max(0)
        assert change.mask.any()
        assert free[change.window][change.mask].all()
        assert not difference[~free[change.window]].any()
        assert difference[change.mask].mean() >= 2
        assert (change.pixels == other.pixels).all()
        assert (change.mask == other.mask).all()
    assert len({change.pixels.tobytes() for change in changes}) == len(changes)


@pytest.mark.parametrize("name", ["cutpaste", "scar", "union", "perlin"])
def test_the_mask_is_exactly_what_may_change(name):
    image = picture()

    for change in drawn(HANDMADE[name](), image):
        assert not np.abs(change.pixels - image[:, *change.window])[:, ~change.mask].any()


def test_cutpaste_pastes_rectangles_of_the_papers_size_and_scars_that_are_thin():
    image = picture((256, 256))
    rectangles, scars = (drawn(CutPaste(kind=kind), image, count=30) for kind in ("normal", "scar"))

    shares = [change.mask.sum() / 256**2 for change in rectangles]
    assert all(change.mask.all() for change in rectangles)
    assert 0.015 < min(shares) < max(shares) < 0.16
    assert all(4 <= change.mask.sum() <= 20 * 28 for change in scars)
    assert {change.kind for change in drawn(CutPaste(), image, count=30)} == {"cutpaste", "cutpaste scar"}


def test_a_poisson_paste_has_no_seam():
    image = picture()

    for change in drawn(PoissonPaste(), image):
        difference = np.abs(change.pixels - image[:, *change.window]).max(0)
        assert not np.concatenate([difference[0], difference[-1], difference[:, 0], difference[:, -1]]).any()


def test_a_poisson_paste_cuts_from_the_normals_it_is_given():
    image, striped = picture(), torch.zeros(3, 64, 64, dtype=torch.uint8)
    striped[:, :, ::4] = 255

    spread = np.mean([change.pixels[:, change.mask].std() for change in drawn(PoissonPaste((striped,)), image)])

    assert spread > 2 * np.mean([change.pixels[:, change.mask].std() for change in drawn(PoissonPaste(), image)])


def test_less_opacity_changes_less():
    image = picture()
    faint, full = (drawn(PerlinBlots(opacity=(share, share)), image) for share in (0.2, 1.0))

    size = [np.mean([np.abs(c.pixels - image[:, *c.window])[:, c.mask].mean() for c in changes]) for changes in (faint, full)]

    assert size[0] < size[1] / 2


def test_a_blank_picture_gets_no_cutpaste_that_nobody_could_see():
    blank = np.zeros((3, 64, 64), np.float32)

    assert drawn(CutPaste(), blank) == [None] * 10


@pytest.mark.parametrize("size", [(8, 9), (33, 300)])
@pytest.mark.parametrize("name", HANDMADE)
def test_odd_sizes_work(name, size):
    for change in drawn(HANDMADE[name](), picture(size), count=4):
        assert change is None or change.mask.shape == change.pixels.shape[1:]


def test_textures_differ_from_call_to_call_and_stay_in_range():
    image, rng = picture((30, 44)), np.random.default_rng(0)

    made = [texture(image, rng) for _ in range(40)]

    assert all(each.shape == image.shape and each.min() >= 0 and each.max() <= 255 for each in made)
    assert len({each.tobytes() for each in made}) == 40


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CutPaste(kind="star"), "unknown kind of CutPaste 'star'; choose one of: normal, scar, union"),
        (lambda: PerlinBlots(opacity=(0, 1)), r"opacity must be \(low, high\) in \(0, 1\]"),
        (lambda: PerlinBlots(finest=9), r"finest must be in \[0, 8\], got 9"),
        (lambda: PoissonPaste(threshold=0), "threshold must be above 0, got 0"),
        (lambda: PoissonPaste((torch.zeros(3, 8, 8),)), r"must be uint8 \(3, H, W\), got torch.float32"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(make, sentence):
    with pytest.raises(SettingError, match=sentence):
        make()
