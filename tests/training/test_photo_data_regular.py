from pathlib import Path

import pytest
import torch
from photo_sets import Drawer, buckets, encoded, mixed_folder, rows_of

from synthaug.errors import PhotoFolderError
from synthaug.training.views import Views


def regular_folder(photo_folder, count: int = 3, **settings) -> Path:
    folder = photo_folder(count, name="regular", seed=50, **settings)
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text("a fish", encoding="utf-8")
    return folder


def test_regularisation_pictures_are_mixed_in_at_their_share_and_flagged(photo_folder, tiny_base):
    settings = {"views": Views(count=1), "batch_size": 4, "caption_dropout": 0.0}
    plain = encoded(photo_folder(5), tiny_base, **settings)
    data = encoded(plain.folder, tiny_base, regular=regular_folder(photo_folder), regular_share=0.25, **settings)
    photos = {row for step in range(20) for row in rows_of(plain.batch(step))}

    batches = [data.batch(step) for step in range(20)]

    flags = torch.cat([batch["regular"] for batch in batches])
    rows = [row for batch in batches for row in rows_of(batch)]
    assert flags.sum() == 20
    assert all((row in photos) != bool(flag) for row, flag in zip(rows, flags, strict=True))
    assert "regular" not in plain.batch(0)
    assert (data.facts().regular, len(data.seen)) == (3, 8)
    assert len({row for row, flag in zip(rows, flags, strict=True) if flag}) == 3


def test_regularisation_pictures_follow_the_photos_into_every_bucket(photo_folder, tiny_base):
    data = encoded(
        mixed_folder(photo_folder),
        tiny_base,
        buckets=buckets(),
        regular=regular_folder(photo_folder, size=(48, 90)),
        batch_size=4,
        cache="none",
    )

    batches = [data.batch(step) for step in range(8)]

    assert {tuple(batch["mean"].shape[-2:]) for batch in batches} == {(3, 5), (5, 3)}
    assert all(batch["regular"].sum() == 2 for batch in batches)
    assert data.facts().regular == 3


def test_regularisation_pictures_are_drawn_on_request_at_the_photos_size(photo_folder, tiny_base, tmp_path):
    drawer = Drawer(regular_folder(photo_folder))
    settings = {"regular_count": 3, "regular_caption": "a fish", "drawer": drawer, "cache": str(tmp_path / "cache")}

    data = encoded(photo_folder(5), tiny_base, size=(32, 40), **settings)

    ((base, wanted),) = drawer.asked
    assert base == str(tiny_base)
    assert wanted.pop("mark")
    assert wanted == {"caption": "a fish", "count": 3, "size": (32, 40), "seed": 0, "cache": tmp_path / "cache" / "regular"}
    assert data.batch(0)["regular"].sum() == 2


def test_regularisation_pictures_without_a_text_file_take_the_caption_that_is_given(photo_folder, tiny_base):
    photos, regular = photo_folder(5), photo_folder(4, name="fish", seed=1)

    data = encoded(photos, tiny_base, regular=regular, regular_caption="a photo of a fish")

    assert data.facts().regular == 4
    with pytest.raises(PhotoFolderError, match=r"must have a caption without the trigger word.*--data.regular_caption"):
        encoded(photos, tiny_base, regular=regular)


def test_an_empty_folder_of_regularisation_pictures_is_refused(photo_folder, tiny_base, tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(PhotoFolderError, match=r"empty holds no photo"):
        encoded(photo_folder(5), tiny_base, regular=tmp_path / "empty")
