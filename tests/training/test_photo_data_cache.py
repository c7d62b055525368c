import pytest
import torch
from photo_sets import encoded, masked, no_encoders
from PIL import Image

from synthaug.errors import PhotoFolderError
from synthaug.photos.kohya import read_training_set
from synthaug.training.views import Views


def test_a_second_start_loads_no_encoder_and_gives_the_same_batches(photo_folder, tiny_base, monkeypatch):
    folder = masked(photo_folder(5), [(0, 0, 20, 20)] * 3)
    settings = {"outside_mask": 0.5, "batch_size": 3, "views": Views(count=3, rotate=10.0, light=0.1)}
    first = encoded(folder, tiny_base, **settings)
    no_encoders(monkeypatch)

    second = encoded(folder, tiny_base, **settings)

    assert (first.facts().made, first.facts().found, first.facts().loaded) == (5 + 2, 0, ("vae", "text"))
    assert (second.facts().made, second.facts().found, second.facts().loaded) == (0, 5 + 2, ())
    for step in (0, 3):
        assert all(torch.equal(first.batch(step)[key], value) for key, value in second.batch(step).items())


def test_nothing_is_written_beside_the_photos(photo_folder, tiny_base, cache_of_its_own):
    folder = photo_folder(5)
    before = sorted(folder.rglob("*"))

    encoded(folder, tiny_base)

    assert sorted(folder.rglob("*")) == before
    assert len(list((cache_of_its_own / "synthaug").rglob("*.safetensors"))) == 5 + 2


@pytest.mark.parametrize(
    ("settings", "made"),
    [
        ({}, 0),
        ({"size": (40, 32)}, 5),
        ({"views": Views(count=2, zoom=1.3)}, 5),
        ({"views": Views(count=2, light=0.1)}, 5),
        ({"views": Views(count=3)}, 5),
        ({"held_out_views": 1}, 5),
        ({"seed": 1}, 5),
        ({"encode_precision": "bf16"}, 5),
        ({"caption": "a {trigger}"}, 1),
        ({"batch_size": 7, "caption_dropout": 0.5, "held_out": 1, "outside_mask": 0.5}, 0),
    ],
    ids=str,
)
def test_a_setting_that_changes_what_is_encoded_encodes_again_and_no_other_does(settings, made, photo_folder, tiny_base):
    folder = photo_folder(5)
    encoded(folder, tiny_base, views=Views(count=2))

    changed = encoded(folder, tiny_base, **{"views": Views(count=2), **settings})

    assert changed.facts().made == made
    fresh = encoded(folder, tiny_base, **{"views": Views(count=2), **settings, "cache": "none"})
    assert all(torch.equal(changed.batch(2)[key], value) for key, value in fresh.batch(2).items())


def test_an_edited_photo_mask_or_base_is_encoded_again(photo_folder, tiny_base, other_base):
    folder = masked(photo_folder(5), [(0, 0, 20, 20)] * 5)
    settings = {"outside_mask": 0.5, "views": Views(count=2)}
    encoded(folder, tiny_base, **settings)
    photo, mask = folder / "photo_01.jpg", folder / "mask" / "photo_03.png"
    with Image.open(photo) as opened:
        edited = opened.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    edited.save(photo)
    assert encoded(folder, tiny_base, **settings).facts().made == 1
    with Image.open(mask) as opened:
        edited = opened.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    edited.save(mask)
    assert encoded(folder, tiny_base, **settings).facts().made == 1

    (folder / "photo_04.jpg").rename(folder / "photo_05.jpg")
    (folder / "mask" / "photo_04.png").rename(folder / "mask" / "photo_05.png")
    assert encoded(folder, tiny_base, **settings).facts().made == 0
    assert encoded(folder, other_base, **settings).facts().made == 5 + 2


def test_a_photo_that_changes_while_it_is_read_is_refused(photo_folder, tiny_base, monkeypatch):
    folder = photo_folder(5)

    def and_then_edit(*args, **settings):
        found = read_training_set(*args, **settings)
        Image.new("RGB", (64, 48)).save(folder / "photo_02.jpg")
        return found

    monkeypatch.setattr("synthaug.training.photo_data.read_training_set", and_then_edit)

    with pytest.raises(PhotoFolderError, match=r"photos must not change while they are read, .*photo_02.jpg did"):
        encoded(folder, tiny_base)


def test_a_cache_that_cannot_be_written_is_said_and_training_goes_on(photo_folder, tiny_base, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")

    data = encoded(photo_folder(5), tiny_base, cache=str(tmp_path / "file"))

    assert len(data.batch(0)["mean"]) == 4
    assert data.facts().cache_trouble
    assert caplog.text.count("nothing more is cached") == 1
