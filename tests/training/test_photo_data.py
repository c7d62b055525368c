from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from synthaug.errors import PhotoFolderError, SettingError
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


def masked(folder, marks):
    """Give photos masks: the given boxes (left, top, right, bottom) are white."""
    (folder / "mask").mkdir()
    for path, box in zip(sorted(folder.glob("*.jpg")), marks, strict=False):
        with Image.open(path) as photo:
            mask = Image.new("L", photo.size)
        mask.paste(255, box)
        mask.save(folder / "mask" / f"{path.stem}.png")
    return folder


def test_without_masks_or_with_masks_left_aside_every_place_counts(photo_folder, tiny_base):
    plain = encoded(photo_folder(5), tiny_base, outside_mask=0.0)
    aside = encoded(masked(photo_folder(5, name="masked"), [(0, 0, 9, 9)] * 5), tiny_base)

    assert (plain.batch(0)["weight"] == 1).all()
    assert (aside.batch(0)["weight"] == 1).all()


def test_outside_of_the_mask_a_photo_counts_as_little_as_was_asked(photo_folder, tiny_base):
    folder = masked(photo_folder(5, size=(32, 32)), [(0, 0, 16, 32)] * 4)

    weights = encoded(folder, tiny_base, outside_mask=0.25, views=Views(count=1), batch_size=5, caption_dropout=0.0).batch(0)["weight"]

    left_right = sorted((round(float(w[..., :2].mean()), 3), round(float(w[..., 2:].mean()), 3)) for w in weights)
    assert weights.shape[1:] == (1, 4, 4)
    assert left_right == [(1, 0.25)] * 4 + [(1, 1)]


def test_views_of_mask_and_photo_are_cut_alike(photo_folder, tiny_base):
    folder = photo_folder(5, size=(64, 64))
    (folder / "mask").mkdir()
    for path in folder.glob("*.jpg"):  # the mask is what is dark in the photo
        with Image.open(path) as photo:
            photo.convert("L").point(lambda value: 255 * (value < 160)).save(folder / "mask" / f"{path.stem}.png")
    data = PhotoData(folder, base=str(tiny_base), outside_mask=0.0, views=Views(count=6, zoom=2.0, flip=True))

    from synthaug.photos.folder import read_folder

    for photo in read_folder(folder, trigger="x").photos:
        cut, masks = data._cut(photo, (32, 32))
        dark = (cut.float().mean(1) < 160).to(torch.uint8)
        assert (dark == masks).float().mean() > 0.97


@pytest.mark.parametrize(
    ("box", "size", "sentence"),
    [((0, 0, 0, 0), None, "is black; paint the defect white"), ((0, 0, 5, 5), (9, 9), "must be as large as its photo")],
)
def test_a_mask_that_cannot_be_used_is_named(box, size, sentence, photo_folder, tiny_base):
    folder = masked(photo_folder(5), [box])
    if size is not None:
        file = next((folder / "mask").iterdir())
        with Image.open(file) as mask:
            smaller = mask.resize(size)
        smaller.save(file)

    with pytest.raises(PhotoFolderError, match=sentence):
        encoded(folder, tiny_base, outside_mask=0.0)
    encoded(folder, tiny_base)


def test_processes_share_one_large_batch(photo_folder, tiny_base):
    folder = photo_folder(5)
    large, small = (encoded(folder, tiny_base, batch_size=size) for size in (6, 2))

    parts = [small.batch(4, rank=rank, world=3) for rank in range(3)]

    whole = large.batch(4)
    assert all(torch.equal(torch.cat([part[key] for part in parts]), whole[key]) for key in whole)


def test_photos_kept_back_are_whole_groups_and_never_trained_on(photo_folder, tiny_base):
    folder = photo_folder(9)
    for number, path in enumerate(sorted(folder.glob("*.jpg"))):
        path.rename(folder / f"part{number // 3}_{number}.jpg")
    data = encoded(folder, tiny_base, group="-1", held_out=2, batch_size=4, views=Views(count=1), caption_dropout=0.0)

    trained = {tuple(row.flatten().tolist()) for step in range(20) for row in data.batch(step)["mean"]}
    kept = [tuple(row.flatten().tolist()) for part in data.val_dataloader() for row in part["mean"]]

    assert (len(trained), len(kept)) == (6, 3)
    assert not trained & set(kept)
    assert not list(encoded(folder, tiny_base, group="-1").val_dataloader())


def test_keeping_back_everything_is_refused(photo_folder, tiny_base):
    with pytest.raises(SettingError, match=r"at least two photos must be left to train on, 5 kept back in whole groups leave 0 of 5"):
        encoded(photo_folder(5), tiny_base, held_out=5)


def test_repeats_of_a_kohya_folder_say_how_often_its_photos_are_shown(photo_folder, tiny_base, tmp_path):
    (tmp_path / "dataset").mkdir()
    photo_folder(3, name="dataset/4_fish")
    photo_folder(3, name="dataset/1_other", seed=9)
    data = encoded(tmp_path / "dataset", tiny_base, views=Views(count=1), batch_size=15, caption_dropout=0.0)

    rows = [tuple(row.flatten().tolist()) for row in data.batch(0)["mean"]]

    assert sorted(Counter(rows).values()) == [1, 1, 1, 4, 4, 4]
    assert data.found.captions == ("other",) * 3 + ("fish",) * 3
