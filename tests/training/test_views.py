from dataclasses import replace

import pytest
import torch
from pictures import as_tensor, scenes
from PIL import Image

from synthaug.errors import SettingError
from synthaug.pixels import framed, framed_mask
from synthaug.training.views import Views, relit, turned, views_of

EVERYTHING = Views(count=7, zoom=1.4, flip=True, rotate=20.0, light=0.2, colour=0.1)


def photo(height: int = 70, width: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth picture with a dark blot, and the blot's mask."""
    picture = framed(scenes(1)[0], (height, width)) // 2 + 120
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[25:40, 12:30] = 1
    return torch.where(mask.bool(), torch.tensor(10, dtype=torch.uint8), picture), mask


def test_the_first_view_is_the_photo_as_it_is():
    picture, mask = photo()

    first = next(views_of(picture, mask, (32, 24), EVERYTHING, seed=5))

    assert torch.equal(first.picture, framed(picture, (32, 24)))
    assert torch.equal(first.mask, framed_mask(mask, (32, 24)))


def test_more_views_begin_with_fewer_and_another_seed_gives_others():
    picture, mask = photo()
    more = list(views_of(picture, mask, (32, 24), EVERYTHING, seed=5))
    fewer = list(views_of(picture, mask, (32, 24), replace(EVERYTHING, count=3), seed=5))
    others = list(views_of(picture, mask, (32, 24), EVERYTHING, seed=6))

    assert len(more) == 7
    assert all(torch.equal(a.picture, b.picture) and a.place == b.place for a, b in zip(fewer, more, strict=False))
    assert not any(torch.equal(a.picture, b.picture) for a, b in zip(more[1:], others[1:], strict=True))


def test_light_colour_and_turns_do_not_change_where_a_view_is_cut():
    picture, mask = photo()
    plain = views_of(picture, mask, (32, 24), Views(count=6, zoom=1.4), seed=5)
    changed = views_of(picture, mask, (32, 24), Views(count=6, zoom=1.4, light=0.3, colour=0.2), seed=5)

    for a, b in zip(plain, changed, strict=True):
        assert a.place == b.place
        assert torch.equal(a.mask, b.mask)


@pytest.mark.parametrize("settings", [{"zoom": 2.0}, {"rotate": 45.0, "zoom": 1.0}, {"rotate": 180.0}, {"flip": True, "rotate": 30.0}])
def test_the_mask_goes_where_the_photo_goes(settings):
    picture, mask = photo(96, 72)

    for view in views_of(picture, mask, (64, 48), Views(count=9, **settings), seed=3):
        dark = (view.picture.float().mean(0) < 65).to(torch.uint8)
        assert (dark == view.mask).float().mean() > 0.97


def test_turned_corners_are_filled_by_reflection_never_black():
    white = torch.full((3, 40, 64), 250, dtype=torch.uint8)

    photo, part = turned(white, torch.ones(40, 64, dtype=torch.uint8), 37.0)

    assert int(photo.min()) >= 249
    assert part.all()


@pytest.mark.parametrize("degrees", [90, 180])
def test_a_turn_is_counter_clockwise_as_pillow_turns(degrees):
    picture, mask = photo(48, 48)

    turn, part = turned(picture, mask, float(degrees))

    by_pillow = as_tensor(Image.fromarray(picture.permute(1, 2, 0).numpy()).rotate(degrees))
    assert (turn.float() - by_pillow.float()).abs().max() <= 1
    assert torch.equal(part, torch.rot90(mask, degrees // 90))


def test_no_turn_and_no_other_light_hand_back_the_very_same_pixels():
    picture, mask = photo()

    assert turned(picture, mask, 0.0)[0] is picture
    assert relit(picture, [1.0] * 6, Views()) is picture


def test_brighter_light_brightens_and_no_change_of_it_keeps_every_pixel():
    picture = scenes(1)[0]
    views = Views(light=0.3, colour=0.2)

    assert relit(picture, [1.0, 0, 0, 0, 0, 0], views).float().mean() > picture.float().mean() + 10
    assert relit(picture, [-1.0, 0, 0, 0, 0, 0], views).float().mean() < picture.float().mean() - 10
    assert (relit(picture, [0.0] * 6, views).float() - picture.float()).abs().max() <= 1


def test_a_warmer_lamp_reddens_without_brightening_and_weak_colours_are_greyer():
    grey = torch.full((3, 4, 4), 128, dtype=torch.uint8)
    warm = relit(grey, [0, 0, 1, 0, -1, 0], Views(colour=0.2)).float()[:, 0, 0]
    picture = scenes(1)[0]
    pale = relit(picture, [0, 0, 0, 0, 0, -1], Views(colour=0.5)).float()

    assert warm[0] > warm[1] > warm[2]
    assert abs(float((warm / 255) ** 2.2 @ torch.tensor([0.2126, 0.7152, 0.0722])) - (128 / 255) ** 2.2) < 0.004
    assert (pale.amax(0) - pale.amin(0)).mean() < (picture.float().amax(0) - picture.float().amin(0)).mean()


def test_places_say_where_a_view_was_cut_in_the_photo_as_resized():
    picture, mask = photo(100, 80)

    wide = next(views_of(picture, mask, (32, 64), Views(count=1), seed=0))
    zoomed = list(views_of(picture, mask, (32, 64), Views(count=9, zoom=2.0), seed=0))[1:]

    assert wide.place == (100, 80, 24, 0, 32, 64)  # 100 x 80 becomes 80 x 64, 24 rows above the middle 32
    assert all(0 <= view.place[2] <= 160 - 32 and 0 <= view.place[3] <= 128 - 64 for view in zoomed)
    assert len({view.place for view in zoomed}) == 8


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rotate": -1.0}, r"views.rotate must be from 0 to 180 degrees; 5 is usual, got -1.0"),
        ({"light": 2.0}, r"views.light must be from 0 to 1; 0.15 is usual, got 2.0"),
        ({"colour": -0.5}, r"views.colour must be from 0 to 1; 0.05 is usual, got -0.5"),
    ],
)
def test_a_number_outside_its_range_is_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        Views(**settings)


@pytest.mark.parametrize(
    ("views", "differ"), [(Views(zoom=1.0), False), (Views(), True), (Views(zoom=1.0, flip=True), True), (Views(zoom=1.0, light=0.1), True)]
)
def test_views_know_whether_they_differ(views, differ):
    assert views.differ == differ
