from pathlib import Path

import pytest
import torch

from synthaug.errors import PhotoFolderError
from synthaug.training.photo_data import PhotoData, Views


def encoded(folder: Path, base: Path, **settings) -> PhotoData:
    data = PhotoData(folder, base=str(base), **settings)
    data.setup("fit")
    return data


def test_the_batch_of_a_step_depends_on_seed_and_step_alone(photo_folder, tiny_base):
    folder = photo_folder(5)
    first, second = (encoded(folder, tiny_base, batch_size=3) for _ in range(2))

    later = [first.batch(step) for step in (0, 1, 2, 7)][-1]

    assert all(torch.equal(later[key], second.batch(7)[key]) for key in later)
    assert not torch.equal(first.batch(0)["mean"], first.batch(1)["mean"])


def test_latents_have_the_encoders_shape_and_scale(photo_folder, tiny_base):
    batch = encoded(photo_folder(5), tiny_base, batch_size=4, size=(32, 48)).batch(0)

    assert batch["mean"].shape == batch["std"].shape == (4, 4, 4, 6)
    assert (batch["std"] > 0).all()


def test_size_is_the_bases_own_when_left_out(photo_folder, tiny_base):
    assert encoded(photo_folder(5), tiny_base).size == (32, 32)


def test_every_photo_is_in_a_batch_as_large_as_the_folder(photo_folder, tiny_base):
    data = encoded(photo_folder(5), tiny_base, batch_size=5, views=Views(count=1), caption_dropout=0.0)

    rows = {tuple(row.flatten().tolist()) for row in data.batch(0)["mean"]}

    assert len(rows) == 5


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 6)])
def test_caption_dropout_replaces_captions_by_the_empty_one(photo_folder, tiny_base, share, expected):
    data = encoded(photo_folder(5), tiny_base, batch_size=6, caption_dropout=share)
    empty = data._states[-1]

    states = data.batch(0)["states"]

    assert sum(bool(torch.equal(row, empty)) for row in states) == expected


def test_views_differ_and_the_first_is_the_photo_itself(photo_folder, tiny_base):
    data = encoded(photo_folder(5), tiny_base, views=Views(count=3, zoom=1.4))
    alone = encoded(data.folder, tiny_base, views=Views(count=1))

    assert torch.equal(data._mean[:, 0], alone._mean[:, 0])
    assert not torch.equal(data._mean[:, 0], data._mean[:, 1])


def test_a_caption_file_beside_a_photo_wins_over_the_template(photo_folder, tiny_base):
    folder = photo_folder(5)
    (folder / "photo_02.txt").write_text("a screw\n", encoding="utf-8")

    data = encoded(folder, tiny_base, trigger="iriko")

    assert data.found.captions == ("a photo of iriko",) * 2 + ("a screw",) + ("a photo of iriko",) * 2


def test_too_few_photos_are_refused_before_anything_is_encoded(photo_folder, tiny_base):
    with pytest.raises(PhotoFolderError, match=r"at least 5 usable photos are needed, .* holds 4"):
        encoded(photo_folder(4), tiny_base)
