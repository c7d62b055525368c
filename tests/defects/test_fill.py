from __future__ import annotations

import pytest
import torch
from conftest import make_photo

from synthaug import Plan, Sampler
from synthaug.defects import fill
from synthaug.defects.fill import Filler, confined, count_rejections, place
from synthaug.defects.recover import RecoveryLimits
from synthaug.errors import SettingError
from synthaug.generation.inpainting import region_of, softened
from synthaug.photos.regions import grown
from synthaug.pixels import read_image
from synthaug.records import Request

SIZE = (48, 67)


@pytest.fixture(scope="module")
def sampler(tiny_base):
    return Sampler(str(tiny_base))


@pytest.fixture(scope="module")
def inpainter(tiny_inpaint_base):
    return Sampler(str(tiny_inpaint_base))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("normal")
    for seed in range(3):
        make_photo(SIZE, seed=seed).save(folder / f"{seed}.png")
    return [read_image(folder / f"{seed}.png") for seed in range(3)]


@pytest.fixture
def masks():
    made = torch.zeros(3, *SIZE, dtype=torch.uint8)
    made[0, 10:30, 20:50] = 1
    made[1, 40:42, 60:62] = 1  # a corner, two pixels across
    made[2, 5:40, 33] = 1  # a line
    return list(made)


def plan(**fields):
    return Plan(**{"prompts": ("a photo of a hole",), "seed": 3, "steps": 2, "size": (32, 40), **fields})


@pytest.mark.parametrize("base", ["sampler", "inpainter"])
def test_far_from_the_mask_every_pixel_is_the_normal_photos(request: pytest.FixtureRequest, base, photos, masks):
    masks[2][37:] = 0
    filled = Filler(request.getfixturevalue(base), plan(), tries=1)(photos, masks)

    for photo, mask, each in zip(photos, masks, filled, strict=True):
        around = grown(each.mask.float(), 6) > 0
        assert torch.equal(each.asked, mask)
        assert not ((each.image != photo).any(0) & ~around).any()
        assert not (each.mask.bool() & (grown(each.redrawn.float(), 10) == 0)).any()
        assert not (mask.bool() & ~each.redrawn.bool()).any()
    assert any(each.mask.any() for each in filled), "a base of random weights draws what is not there"


def test_a_photo_depends_on_its_number_and_on_nothing_beside_it(sampler, photos, masks):
    together = Filler(sampler, plan(size=(48, 64)), tries=2)(photos, masks)
    alone = Filler(sampler, plan(size=(48, 64)), tries=2, batch=1)(photos[1:2], masks[1:2], first=1)

    assert alone[0].request == together[1].request
    assert (alone[0].image.int() - together[1].image.int()).abs().max() <= 1
    assert together[0].request.seed != together[1].request.seed


def test_what_is_rejected_is_drawn_again_with_another_seed_and_counted(sampler, photos, masks):
    seen = []

    class Watched(Sampler):
        def __call__(self, requests, images=None, masks=None):
            seen.append([request.seed for request in requests])
            return sampler(requests, images, masks)

        @property
        def networks(self):
            return sampler.networks

    never = RecoveryLimits(visible=1e6)
    filled = Filler(Watched("never loaded"), plan(size=(48, 64)), limits=never, tries=3)(photos[:2], masks[:2])

    assert len({seed for call in seen for seed in call}) == 6
    assert [len(each.rejected) for each in filled] == [2, 2]
    assert not any(each.verdict.keep for each in filled)
    assert count_rejections(filled)["no visible defect"] == 6
    assert torch.equal(filled[0].image, photos[0]), "without a visible defect the photo stays as it was"


def test_what_is_good_is_not_drawn_again(monkeypatch, sampler, photos, masks):
    judged = []
    verdicts = iter([False, True, True])
    real = fill.judge_filled

    def judge(*args, **named):
        verdict = real(*args, **named)
        judged.append(verdict)
        return type(verdict)(keep=next(verdicts), reason="spilled outside: test")

    monkeypatch.setattr(fill, "judge_filled", judge)
    filled = Filler(sampler, plan(size=(48, 64)), tries=3)(photos[:2], masks[:2])

    assert len(judged) == 3
    assert [len(each.rejected) for each in filled] == [1, 0]


def test_a_defect_of_two_pixels_is_enlarged_thickened_and_softened():
    mask = torch.zeros(128, 128, dtype=torch.uint8)
    mask[30:32, 90:92] = 1

    small = place(mask, factor=8)
    mask[30:90, 40:100] = 1
    large = place(mask, factor=8)

    assert small.only_masked
    assert not large.only_masked
    assert (small.mask_blur, large.mask_blur) == (1, 4)
    assert torch.equal(large.redrawn, mask)


@pytest.mark.parametrize("thick", [1, 2, 5, 9, 20])
@pytest.mark.parametrize("long", [1, 3, 30, 100])
def test_no_place_is_too_thin_for_the_latent(thick, long):
    """As generation rounds: half of a square of 8 pixels, of the enlarged surroundings."""
    for shift in range(0, 8, 3):
        mask = torch.zeros(128, 128, dtype=torch.uint8)
        mask[10 + shift : 10 + shift + thick, 12 : 12 + long] = 1
        how = place(mask, factor=8)
        request = Request(
            prompt="", seed=0, mask_blur=how.mask_blur, only_masked=how.only_masked, mask_padding=how.mask_padding
        )  # fmt: skip
        region = region_of(torch.zeros(3, 128, 128, dtype=torch.uint8), how.redrawn, request)

        assert torch.nn.functional.adaptive_avg_pool2d(region.cover[None], (16, 16)).round().any()
        assert softened(how.redrawn, how.mask_blur).max() > 0.95, "the middle is redrawn in full"


def test_a_photo_larger_than_the_plan_is_drawn_around_its_defect(sampler, photos, masks):
    filled = Filler(sampler, plan(size=(32, 40)), tries=1)(photos[:2], masks[:2])

    assert [each.request.size for each in filled] == [(32, 40), (32, 40)]
    assert [tuple(each.image.shape[1:]) for each in filled] == [SIZE, SIZE]


def test_what_lies_beside_the_object_is_left_out(sampler, photos, masks):
    area = torch.zeros(SIZE, dtype=torch.uint8)
    area[:, 40:] = 1

    (filled,) = Filler(sampler, plan(size=(48, 64)), tries=1)(photos[:1], masks[:1], areas=[area])

    assert filled.asked[:, :40].sum() == 0
    assert filled.asked.sum() == 20 * 10


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p, m: (p[:0], m[:0]), "needs normal photos, and a mask for each, got 0 photos, 0 masks; give photos without a defect"),
        (lambda p, m: (p, m[:1]), "got 3 photos, 1 masks"),
        (lambda p, m: (p, [m[0], 0 * m[1], m[2]]), "mask 1 is empty"),
        (lambda p, m: (p, [1 - m[1], *m[1:]]), "mask 0 marks 100% of the photo and all of its border, so it looks inverted"),
        (lambda p, m: ([p[0][:, 1:], *p[1:]], m), r"mask 0 is \(48, 67\) and the photo \(47, 67\)"),
        (lambda p, m: (p, m), "mask 2 is 35 pixels long and 32 are drawn; give the plan a larger size, or ask for a smaller defect"),
        (lambda p, m: ([p[0].float(), *p[1:]], m), "a normal photo must be uint8"),
    ],
    ids=["none", "number", "empty", "inverted", "size", "too long", "float"],
)
def test_what_cannot_be_filled_is_said_before_anything_is_drawn(sampler, photos, masks, change, sentence):
    with pytest.raises(SettingError, match=sentence):
        Filler(sampler, plan())(*change(photos, masks))


@pytest.mark.parametrize(
    ("fields", "given", "sentence"),
    [({"image": "a.png"}, {}, "no image, mask or second pass"), ({}, {"tries": 0}, "tries and batch must be at least 1, got 0 and 8")],
)
def test_a_plan_or_number_that_cannot_be_used_is_refused(sampler, fields, given, sentence):
    with pytest.raises(SettingError, match=sentence):
        Filler(sampler, plan(**fields), **given)


def test_redrawn_grain_without_a_defect_gives_way_to_the_photo():
    normal, image = torch.full((3, 20, 30), 100, dtype=torch.uint8), torch.full((3, 20, 30), 90, dtype=torch.uint8)
    mask = torch.zeros(20, 30, dtype=torch.uint8)
    mask[8:12, 10:14] = 1

    made = confined(image, normal, mask)

    assert (made[:, 8:12, 10:14] == 90).all()
    assert (made[:, :2] == 100).all()
    assert (made[:, :, 20:] == 100).all()
    assert made[0, 9].unique().numel() > 4, "a soft edge"
