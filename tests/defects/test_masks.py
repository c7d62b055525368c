from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from synthaug.defects.masks import check_mask, object_area, read_defect_mask, read_defect_masks, restrict
from synthaug.errors import SettingError, UnusableFileError

SIZE = (30, 44)


@pytest.fixture
def wanted():
    mask = torch.zeros(SIZE, dtype=torch.uint8)
    mask[5:12, 20:33] = 1
    return mask


def palette(mask):
    picture = Image.fromarray(mask.numpy(), "P")
    picture.putpalette([0, 0, 0, 128, 0, 0])  # as VOC colours its first class: darker than mid-grey
    return picture


def drawn_on_nothing(mask):
    return Image.fromarray(np.dstack([np.zeros((*SIZE, 3), np.uint8), mask.numpy() * 255]), "RGBA")


def solid_rgba(mask):
    return Image.fromarray(np.dstack([np.repeat(mask.numpy()[..., None] * 255, 3, 2), np.full(SIZE, 255, np.uint8)]), "RGBA")


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "kind",
    [
        lambda mask: Image.fromarray(mask.numpy() * 255),
        lambda mask: Image.fromarray(mask.numpy() * 255).convert("1"),
        lambda mask: Image.fromarray(mask.numpy()),
        palette,
        drawn_on_nothing,
        solid_rgba,
    ],
    ids=["grey", "bits", "values 0 and 1", "palette", "drawn on nothing", "solid RGBA"],
)
def test_a_mask_of_any_mode_is_read_alike(kind, wanted, tmp_path):
    kind(wanted).save(tmp_path / "mask.png")

    assert torch.equal(read_defect_mask(tmp_path / "mask.png"), wanted)
    assert torch.equal(read_defect_mask(tmp_path / "mask.png", inverted=True), 1 - wanted)


def test_a_black_mask_stays_empty(tmp_path, caplog):
    Image.new("L", (9, 7)).save(tmp_path / "mask.png")

    assert not read_defect_mask(tmp_path / "mask.png").any()
    assert not caplog.text, "there is no colour to take for a defect"


def test_a_folder_gives_its_good_masks_and_names_the_others(wanted, tmp_path, caplog):
    for name, mask in (("good", wanted), ("inverted", 1 - wanted), ("empty", 0 * wanted)):
        Image.fromarray(mask.numpy() * 255).save(tmp_path / f"{name}.png")

    found = read_defect_masks(tmp_path)

    assert list(found) == ["good.png"]
    assert torch.equal(found["good.png"], wanted)
    assert "inverted.png marks 93% of the photo and all of its border, so it looks inverted" in caplog.text
    assert "empty.png is empty" in caplog.text


@pytest.mark.parametrize(("name", "sentence"), [("", r"holds none \(there is no picture file\)"), ("gone", "there is no mask")])
def test_a_place_without_masks_is_refused(tmp_path, name, sentence):
    with pytest.raises(UnusableFileError, match=sentence):
        read_defect_masks(tmp_path / name)


def test_a_folder_of_bad_masks_says_why(wanted, tmp_path):
    Image.fromarray((0 * wanted).numpy()).save(tmp_path / "a.png")

    with pytest.raises(UnusableFileError, match=r"the first of 1: a mask must mark the defect, a.png is empty"):
        read_defect_masks(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda mask: mask[:-1], r"the size of its photo, the mask is \(29, 44\) and the photo \(30, 44\)"),
        (lambda mask: 0 * mask, "the mask is empty; paint the defect white"),
        (lambda mask: 1 - mask, "looks inverted; turn black and white round"),
        (lambda mask: 0 * mask + 1, "at most 50% of a photo, the mask marks 100%"),
        (lambda mask: mask.flip(1), "must lie on the object, the mask marks nothing of it"),
        (lambda mask: torch.nn.functional.pad(mask[:, 20:], (20, 0), value=0) | _right_half(), "the mask covers 100% of it"),
    ],
    ids=["size", "empty", "inverted", "everything", "beside", "covers"],
)
def test_a_mask_that_cannot_be_meant_is_refused(wanted, spoil, sentence):
    area = torch.zeros(SIZE, dtype=torch.uint8)
    area[:, 30:] = 1

    with pytest.raises(SettingError, match=sentence):
        check_mask(spoil(wanted), SIZE, area=area)


def _right_half():
    half = torch.zeros(SIZE, dtype=torch.uint8)
    half[:, 30:] = 1
    return half


def test_a_good_mask_passes_and_is_cut_to_the_object(wanted):
    check_mask(wanted, SIZE, area=_right_half())

    assert restrict(wanted, _right_half()).sum() == 7 * 3


def test_the_objects_area_is_the_given_one_or_found_or_all_with_a_doubt():
    photo = torch.full((3, *SIZE), 230, dtype=torch.uint8)
    bare = object_area(photo)
    photo[:, 8:22, 10:30] = torch.tensor([40, 90, 160], dtype=torch.uint8)[:, None, None]
    found = object_area(photo)
    given = object_area(photo, _right_half() * 255)

    assert bare.mask.all()
    assert "less than 1%" in bare.doubt
    assert found.doubt == ""
    assert abs(int(found.mask.sum()) - 14 * 20) < 60
    assert torch.equal(given.mask, _right_half())


@pytest.mark.parametrize(
    ("given", "sentence"), [(torch.zeros(SIZE), "must mark the object, got an empty one"), (torch.ones(3, 4), r"\(3, 4\)")]
)
def test_a_bad_area_is_refused(given, sentence):
    with pytest.raises(SettingError, match=sentence):
        object_area(torch.zeros(3, *SIZE, dtype=torch.uint8), given)
