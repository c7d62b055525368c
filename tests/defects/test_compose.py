from __future__ import annotations

import numpy as np
import pytest
import torch
from flawed import paper

from synthaug.defects import CutPaste, FromBank, Pasting, object_mask
from synthaug.defects.change import find_place
from synthaug.defects.compose import BLENDINGS
from synthaug.errors import SettingError


def picture(seed=50, size=(64, 80), level=150):
    return paper(seed, size, level).numpy().astype(np.float32)


def everywhere(image):
    return np.ones(image.shape[1:], bool)


def some(source, image, free=None, count=12):
    free = everywhere(image) if free is None else free
    changes = [source.draw(image, free, np.random.default_rng(seed)) for seed in range(count)]
    assert all(change is not None for change in changes)
    return changes


@pytest.mark.parametrize("blending", BLENDINGS)
def test_the_mask_covers_what_changes_but_for_a_thin_rim(small_bank, blending):
    image = picture()

    for change in some(FromBank(small_bank, Pasting(blending=blending)), image):
        difference = np.abs(change.pixels - image[:, *change.window]).max(0)
        beside = difference[~change.mask]
        assert difference[change.mask].mean() > 10 * beside.mean()
        edge = np.concatenate([difference[0], difference[-1], difference[:, 0], difference[:, -1]])
        assert not edge.any(), "the place goes on without a seam"


@pytest.mark.parametrize("blending", BLENDINGS)
def test_a_defect_is_as_much_darker_than_a_dark_place_as_it_was_than_its_own(small_bank, blending):
    dark, own = picture(level=90), picture(level=150)
    source = FromBank(small_bank, Pasting(blending=blending, scale=(1, 1), rotation=0, flip=False))

    for on_dark, on_own in zip(some(source, dark), some(source, own), strict=True):
        steps = [change.pixels[:, change.mask].mean() - image.mean() for change, image in ((on_dark, dark), (on_own, own))]
        expected = steps[1] * 90 / 150 if blending == "ratio" else steps[1]
        assert steps[0] == pytest.approx(expected, abs=12), "clipped at black"


def test_without_relighting_a_defect_keeps_its_own_brightness(small_bank):
    source = FromBank(small_bank, Pasting(blending="feather", relight=False))

    for change in some(source, picture(level=230)):
        assert change.pixels[:, change.mask].mean() == pytest.approx(75, abs=15)


def test_a_defect_keeps_its_share_of_a_larger_picture(small_bank):
    source = FromBank(small_bank, Pasting(scale=(1, 1), blending="feather"))
    areas = [np.mean([change.mask.sum() for change in some(source, picture(size=size))]) for size in ((64, 80), (128, 160), (32, 40))]

    assert areas[1] / areas[0] == pytest.approx(4, rel=0.1)
    assert areas[2] / areas[0] == pytest.approx(0.25, rel=0.3)


def test_turning_keeps_the_area_and_turns_the_shape(small_bank):
    straight, turned = (FromBank(small_bank, Pasting(scale=(1, 1), rotation=turn, flip=False)) for turn in (0, 180))
    image = picture()

    boxes = {change.mask.any(1).sum() for change in some(straight, image)}
    others = some(turned, image, count=20)

    assert boxes == {9}
    assert len({int(change.mask.any(1).sum()) for change in others}) > 3
    assert all(abs(change.mask.sum() - 89) < 12 for change in others)


def test_defects_lie_on_the_object(small_bank):
    image = picture()
    free = np.zeros((64, 80), bool)
    free[20:52, 10:44] = True

    for source in (FromBank(small_bank), CutPaste()):
        for change in some(source, image, free):
            assert free[change.window][change.mask].all()


def test_no_place_and_no_object_give_no_defect(small_bank):
    image = picture()
    tiny = np.zeros((64, 80), bool)
    tiny[30:33, 30:33] = True

    assert FromBank(small_bank).draw(image, tiny, np.random.default_rng(0)) is None
    assert FromBank(small_bank).draw(image, np.zeros((64, 80), bool), np.random.default_rng(0)) is None
    assert find_place(np.ones((90, 2), bool), everywhere(image), np.random.default_rng(0)) is None


def test_a_defect_that_could_not_be_seen_is_not_put_in(small_bank):
    black = np.zeros((3, 64, 80), np.float32)

    assert FromBank(small_bank, Pasting(blending="ratio")).draw(black, everywhere(black), np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"scale": (0, 1)}, r"scale must be \(low, high\), both above 0, .* got \(0, 1\)"),
        ({"rotation": 200}, r"rotation must be in \[0, 180\] degrees, got 200"),
        ({"blending": ()}, "blending must not be empty"),
        ({"blending": ("ratio", "glue")}, "unknown blending 'glue'; choose one of: feather"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        Pasting(**settings)


def test_the_object_of_a_fixed_camera_is_found_once():
    images = torch.stack([paper(seed, (60, 80), level=225) for seed in range(3)])
    images[:, :, 20:44, 24:60] = torch.tensor([40, 90, 160], dtype=torch.uint8)[:, None, None]

    found = object_mask(images)

    assert found[32, 40] == 1
    assert found[4, 4] == 0
    with pytest.raises(SettingError, match=r"cannot be told from its background: .* leave the foreground out"):
        object_mask(images[..., :16, :])
