from __future__ import annotations

import pytest

from synthaug.errors import PhotoFolderError
from synthaug.photos import read_folder, read_training_set
from synthaug.photos.tags import CaptionRules


def read(path, **settings):
    return read_training_set(path, **{"caption": "a photo of {trigger}", "trigger": "cod", "group": "", **settings})


def test_a_plain_folder_is_what_read_folder_finds(photo_folder, tmp_path):
    folder = photo_folder()
    (folder / "photo_01.txt").write_text("a burst fish\nmore\n")

    found = read(folder, group="-1")

    assert found.photos == read_folder(folder, trigger="cod", group="-1")
    assert found.rules == (CaptionRules(),) * 6
    assert (found.regular, found.regular_rules) == (None, ())
    with pytest.raises(PhotoFolderError, match=r"there is no folder .*none; give the folder the masks lie in"):
        read(folder, masks=tmp_path / "none")


def test_a_folder_prepared_by_kohyas_gui_is_read_with_its_regularisation_images(photo_folder, tmp_path):
    for name in ("work", "work/img", "work/reg", "work/log", "work/model"):
        (tmp_path / name).mkdir()
    photo_folder(6, name="work/img/10_iriko fish")
    assert read(tmp_path / "work").regular is None, "an empty reg is no regularisation"
    photo_folder(3, name="work/reg/1_fish", seed=1)

    found = read(tmp_path / "work")

    assert set(found.photos.captions) == {"iriko fish"}
    assert found.photos.repeats == (10,) * 6
    assert found.regular.captions == ("fish",) * 3
    assert found.regular_rules == (CaptionRules(),) * 3


def test_regularisation_images_may_lie_in_a_folder_of_their_own_but_never_get_the_trigger(photo_folder, tmp_path):
    folder, plain = photo_folder(), photo_folder(2, name="plain", seed=1)
    (plain / "photo_00.txt").write_text("a fish")

    with pytest.raises(
        PhotoFolderError, match=r"must have a caption without the trigger word, .*photo_01\.jpg has none; write photo_01\.txt beside"
    ):
        read(folder, regular=plain)
    (plain / "photo_01.txt").write_text("a big fish")
    assert read(folder, regular=plain).regular.captions == ("a fish", "a big fish")
    with pytest.raises(PhotoFolderError, match=r"there is no folder .*none"):
        read(folder, regular=tmp_path / "none")
