from __future__ import annotations

import numpy as np
import pytest
import torch
from checkers import check_transform
from flawed import paper
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from synthaug import SyntheticDefect
from synthaug.defects import HANDMADE, CutPaste, Pasting
from synthaug.errors import SettingError, UnusableFileError

SIZE = (64, 80)


def image(seed=50):
    return tv_tensors.Image(paper(seed, SIZE))


def no_mask(*shape):
    return tv_tensors.Mask(torch.zeros(shape or SIZE, dtype=torch.uint8))


def boxes(*rows, form="XYXY"):
    return tv_tensors.BoundingBoxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), format=form, canvas_size=SIZE)


def sample(**others):
    return {"image": image(), "mask": no_mask(), "boxes": boxes(), "label": 0, "defect": "", "path": "a.png", **others}


def plain(tensor):
    return tensor.as_subclass(torch.Tensor)


@pytest.fixture
def put(small_bank):
    """Makes one that always puts a defect in."""

    def make(**settings):
        return SyntheticDefect(small_bank, **{"p": 1.0, **settings})

    return make


def test_it_keeps_what_every_transform_promises(put):
    check_transform(put(), put(p=0.0), size=SIZE, label=0)


@pytest.mark.parametrize("name", HANDMADE)
def test_hand_made_defects_keep_it_too(name):
    check_transform(SyntheticDefect(HANDMADE[name](), p=1.0), SyntheticDefect(HANDMADE[name](), p=0.0), size=SIZE, label=0)


def test_image_mask_boxes_label_and_type_change_together(put):
    torch.manual_seed(0)
    given = sample()

    out = put(count=3)(given)

    change = (plain(out["image"]).int() - plain(given["image"]).int()).abs().amax(0)
    marked = plain(out["mask"]) == 1
    assert marked.any()
    assert change[marked].float().mean() > 40
    assert change[~marked].float().mean() < 1
    assert (out["label"], out["defect"], out["path"]) == (1, "stain", "a.png")
    assert len(out["boxes"]) == 3
    drawn = torch.zeros(SIZE, dtype=torch.bool)
    for left, top, right, bottom in out["boxes"].long().tolist():
        inside = marked[top:bottom, left:right]
        assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1])), "a box fits tightly"
        drawn[top:bottom, left:right] = True
    assert not (marked & ~drawn).any()
    assert not plain(given["mask"]).any(), "the input was edited in place"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0,), (1,)),
        ((torch.tensor(0),), (torch.tensor(1),)),
        ((np.int64(0), "a.png"), (np.int64(1), "a.png")),
        (({"label": 0, "seed": 0},), ({"label": 1, "seed": 0},)),
        (({"meta": {"label": 0}, "index": 0},), ({"meta": {"label": 1}, "index": 0},)),
    ],
)
def test_the_label_is_found_in_pairs_and_dicts_and_nothing_else_changes(put, given, expected):
    picture = image()

    out = put()(picture, *given)

    assert not torch.equal(plain(out[0]), plain(picture))
    assert out[1:] == expected
    assert type(out[1]) is type(expected[0])


def test_only_normal_samples_change(put):
    given = sample(label=1)

    out = put()(given)

    assert all(out[key] is given[key] for key in given)


def test_labels_may_be_words(put):
    transform = put(normal="good", label="bad")

    assert transform(image(), "good")[1] == "bad"
    assert transform(image(), "worn")[1] == "worn"
    with pytest.raises(SettingError, match=r"the label 0 is of another kind than normal='good' and label='bad'"):
        transform(image(), 0)


def test_detection_targets_get_a_box_a_label_and_a_mask_per_defect(put):
    target = {"boxes": boxes((1, 2, 9, 9)), "labels": torch.tensor([4]), "masks": no_mask(1, *SIZE)}

    _, told = put(count=2)(image(), target)

    assert told["labels"].tolist() == [4, 1, 1]
    assert told["boxes"].shape == (3, 4)
    assert told["boxes"][0].tolist() == [1, 2, 9, 9]
    assert [bool(each.any()) for each in told["masks"]] == [False, True, True]


def test_boxes_keep_their_format(put):
    torch.manual_seed(1)
    corners = put()(sample())["boxes"]
    torch.manual_seed(1)
    middles = put()(sample(boxes=boxes(form="CXCYWH")))["boxes"]

    assert torch.equal(plain(v2.functional.convert_bounding_box_format(middles, new_format="XYXY")), plain(corners))


def test_a_mask_that_marks_something_keeps_it(put):
    mask = no_mask(1, *SIZE)
    mask[0, :3, :5] = 1

    out = put()(image(), mask)[1]

    assert out.shape == (1, *SIZE)
    assert (out[0, :3, :5] == 1).all()
    assert out.sum() > 15


@pytest.mark.parametrize("kind", ["float", "float16", "grey", "grey float", "PIL grey"])
def test_untouched_pixels_keep_their_very_bits(put, kind):
    pixels = paper(50, SIZE)
    given = {
        "float": pixels.float() / 255,
        "float16": (pixels.float() / 255).half(),
        "grey": pixels[:1],
        "grey float": pixels[:1].double() / 255,
        "PIL grey": Image.fromarray(pixels[0].numpy()),
    }[kind]

    out, mask = put()(given, no_mask())

    before, after = (v2.functional.pil_to_tensor(each) if kind == "PIL grey" else each for each in (given, out))
    assert after.dtype == before.dtype
    assert 0.003 < (after != before).any(0).float().mean() < 0.1
    assert ((after != before).any(0) & (plain(mask) == 1)).any()


def test_several_defects_do_not_overlap(put):
    out = put(count=6)(sample(masks=no_mask(0, *SIZE)))

    assert len(out["masks"]) >= 2
    assert plain(out["masks"]).sum(0).max() == 1


def test_an_image_without_room_stays_normal_and_this_is_said_once(put, caplog):
    corner = torch.zeros(SIZE, dtype=torch.uint8)
    corner[:3, :3] = 1
    transform, given = put(foreground=corner), sample()

    outs = [transform(given) for _ in range(3)]

    assert all(out[key] is given[key] for out in outs for key in given)
    assert caplog.text.count("no place was found for a defect in an image of 64 x 80") == 1


def test_defects_lie_on_the_foreground_given_or_found(put):
    where = torch.zeros(SIZE, dtype=torch.uint8)
    where[:, :40] = 1

    for foreground in (where, lambda picture: where.expand(1, *picture.shape[1:])):
        assert not put(foreground=foreground, count=2)(image(), no_mask())[1][:, 40:].any()


def test_workers_and_seeds_behave_as_usual(put):
    class Photos(torch.utils.data.Dataset):
        transform = put(p=0.5)

        def __len__(self):
            return 24

        def __getitem__(self, index):
            return self.transform(image(index), 0)

    def epoch(seed):
        torch.manual_seed(seed)
        pairs = list(DataLoader(Photos(), batch_size=6, num_workers=2))
        return torch.cat([images for images, _ in pairs]), torch.cat([labels for _, labels in pairs])

    (first, labels), (again, _), (other, _) = epoch(0), epoch(0), epoch(1)

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 4 <= labels.sum() <= 20
    changed = torch.stack([(plain(image(index)) != each).any() for index, each in enumerate(first)])
    assert torch.equal(changed, labels == 1)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((torch.zeros(2, 3, *SIZE, dtype=torch.uint8),), r"got shape \(2, 3, 64, 80\); apply it before images become a batch"),
        ((torch.zeros(4, *SIZE, dtype=torch.uint8),), r"with C 1 or 3, got shape \(4, 64, 80\)"),
        ((torch.zeros(3, *SIZE, dtype=torch.int64),), "must be uint8 or float in .*, got torch.int64"),
        ((torch.randn(3, *SIZE),), r"a float image must be in \[0, 1\], got -.*; put SyntheticDefect before what normalises"),
        ((Image.new("RGBA", SIZE),), "got mode RGBA; convert it first"),
        ((Image.new("RGB", SIZE), Image.new("L", SIZE)), r"must hold one image, got 2; if one of them is a mask, wrap it"),
        ((image().as_subclass(torch.Tensor), torch.zeros(SIZE)), r"a plain tensor \(64, 80\) .* may be its mask; wrap it"),
        ((image(), no_mask(9, 9)), r"a mask must have the size of its image, got \(9, 9\) beside \(64, 80\)"),
        ((image(), no_mask(2, *SIZE)), r"a mask must be \(H, W\) or \(1, H, W\), .* got shape \(2, 64, 80\)"),
        ((image(), tv_tensors.BoundingBoxes([[0, 0, 1, 1]], format="XYXY", canvas_size=(9, 9))), r"boxes must be of the image's size"),
        ((tv_tensors.Video(torch.zeros(2, 3, *SIZE, dtype=torch.uint8)),), "got a Video; pass its frames one by one"),
    ],
)  # fmt: skip
def test_samples_that_could_not_be_kept_true_are_refused(put, given, sentence):
    with pytest.raises(SettingError, match=sentence):
        put()(*given)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"p": 1.5}, r"p must be in \[0, 1\], got 1.5"),
        ({"count": 0}, "count must be at least 1"),
        ({"count": (3, 2)}, r"count must be .* got \(3, 2\)"),
        ({"label": "bad"}, "two labels of one kind, got"),
        ({"label": 0}, "two labels of one kind, got"),
        ({"foreground": torch.zeros(SIZE)}, r"must be a mask \(H, W\) that marks the object, .* 0 pixels marked"),
    ],
)
def test_values_that_cannot_be_used_are_refused(put, settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        put(**settings)


def test_a_foreground_of_another_size_is_refused_when_called(put):
    with pytest.raises(SettingError, match=r"foreground must have the size of the image, got \(5, 5\) beside \(64, 80\)"):
        put(foreground=torch.ones(5, 5))(image())


def test_settings_of_pasting_are_refused_for_hand_made_defects():
    with pytest.raises(SettingError, match="pasting is for the defects of a bank, got it with CutPaste"):
        SyntheticDefect(CutPaste(), pasting=Pasting())


def test_a_bank_may_be_given_by_its_folder(small_bank, tmp_path):
    assert SyntheticDefect(small_bank.folder, p=1.0)(image(), 0)[1] == 1
    with pytest.raises(UnusableFileError, match="there is no bank"):
        SyntheticDefect(tmp_path)
