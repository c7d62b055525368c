import numpy as np
import pytest
import torch
from worlds import pictures, scene

from synthaug.curation import PhotoLikeness
from synthaug.errors import SettingError

PHOTOS = pictures(8, seed=0, spot=True)


def test_photos_themselves_are_all_copies_and_cover_everything():
    found = PhotoLikeness().score(PHOTOS, PHOTOS)

    assert (found["copy_rate"], found["coverage"], found["distance_ratio"]) == (1.0, 1.0, 0.0)


def scenes(start: int) -> torch.Tensor:
    """Eight scenes; gratings with a spot have so few degrees of freedom that one in eight resembles another by chance."""
    return torch.stack([torch.from_numpy(np.asarray(scene(start + index)).copy()).permute(2, 0, 1) for index in range(8)])


def test_other_pictures_of_the_same_kind_are_no_copies():
    found = PhotoLikeness().score(scenes(100), scenes(200))

    assert found["copy_rate"] == 0
    assert 0.5 < found["distance_ratio"] < 2


def test_half_copies_are_a_copy_rate_of_one_half():
    images = torch.cat([PHOTOS[:3].flip(3), pictures(3, seed=1, spot=True)])

    assert PhotoLikeness().score(images, PHOTOS)["copy_rate"] == 0.5


def test_pictures_of_something_else_cover_nothing():
    noise = torch.randint(0, 255, (8, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    found = PhotoLikeness().score(noise, PHOTOS)

    assert found["coverage"] == 0
    assert found["distance_ratio"] > 2


def test_one_picture_over_and_over_covers_less_than_many():
    like = PhotoLikeness(neighbours=2)

    assert like.score(PHOTOS[:1].repeat(8, 1, 1, 1), PHOTOS)["coverage"] < like.score(PHOTOS, PHOTOS)["coverage"]


def test_no_neighbours_are_refused():
    with pytest.raises(SettingError, match="neighbours must be at least 1, got 0"):
        PhotoLikeness(neighbours=0)
