from __future__ import annotations

import pytest
import torch
from still_life import still_life

from synthaug.errors import SettingError
from synthaug.photos.foreground import find_foreground, linear
from synthaug.photos.shadows import cast_shadow, displayed, lightened


def test_light_survives_being_made_linear():
    every = torch.arange(256, dtype=torch.uint8).expand(3, 1, -1)

    assert torch.equal(displayed(linear(every)), every)


@pytest.mark.parametrize(("shade", "shift", "side"), [(0.55, (8, 14), "lower right"), (0.7, (0, -20), "left"), (0.4, (-16, 0), "above")])
def test_a_shadow_is_measured_with_its_side(shade, shift, side):
    photo = still_life(shade=shade, shift=shift)

    shadow = cast_shadow(photo.picture, find_foreground(photo.picture))

    assert shadow.side == side
    assert 0.5 * (1 - shade) < shadow.strength < 1.1 * (1 - shade)


def test_no_shadow_is_no_shadow():
    photo = still_life(shift=(0, 0))

    shadow = cast_shadow(photo.picture, find_foreground(photo.picture))

    assert shadow.strength < 0.1
    assert shadow.side == ""


def test_a_shadow_is_lightened_to_the_paper_it_lies_on_and_the_thing_is_left_alone():
    photo = still_life()
    found = find_foreground(photo.picture)

    out = lightened(photo.picture, found)

    inner = photo.shadow & (found.matte < 0.02)
    before, after = ((p.float() - photo.without_shadow.float())[:, inner].mean(1).abs().max() for p in (photo.picture, out))
    assert before > 40
    assert after < 4
    assert torch.equal(out[:, found.matte == 1], photo.picture[:, found.matte == 1])
    assert cast_shadow(out, find_foreground(out)).strength < 0.1


def test_half_the_strength_leaves_a_lighter_shadow_and_none_the_same_pixels():
    photo = still_life()
    found = find_foreground(photo.picture)

    half = cast_shadow(lightened(photo.picture, found, strength=0.5), found).strength

    assert 0.3 < half / cast_shadow(photo.picture, found).strength < 0.8
    assert torch.equal(lightened(photo.picture, found, strength=0.0), photo.picture)


def test_the_grain_of_the_paper_stays_in_what_was_shadow():
    photo = still_life()
    found = find_foreground(photo.picture)
    inner = photo.shadow & (found.matte < 0.02)

    out = lightened(photo.picture, found).float()[1]

    assert float((out - photo.without_shadow.float()[1].mean())[inner].std()) > 1.5


def test_a_strength_above_one_is_refused():
    photo = still_life()

    with pytest.raises(SettingError, match=r"strength must be from 0 to 1; 1 takes the shadow away, got 1\.5"):
        lightened(photo.picture, find_foreground(photo.picture), strength=1.5)
