import numpy as np
import pytest

from synthaug.pocket.iriko import BURST, SOUND, iriko_photo


def test_a_photo_is_a_function_of_its_seed_and_kind():
    first, second, other = iriko_photo(3, BURST, 64), iriko_photo(3, BURST, 64), iriko_photo(4, BURST, 64)

    assert np.array_equal(first.pixels, second.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("seed", range(6))
def test_a_sound_fish_has_no_flaw_and_a_burst_one_has_it_on_the_fish(seed):
    sound, burst = iriko_photo(seed, SOUND, 64), iriko_photo(seed, BURST, 64)

    assert sound.flaws.sum() == 0
    assert 10 <= burst.flaws.sum() < burst.objects.sum()
    assert (burst.objects[burst.flaws == 1] == 1).all()


def test_the_fish_is_slender_and_darker_than_the_paper():
    photo = iriko_photo(0, SOUND, 64)
    grey = photo.pixels.mean(2)

    assert 0.03 < photo.objects.mean() < 0.2
    assert grey[photo.objects == 1].mean() < grey[photo.objects == 0].mean() - 20
