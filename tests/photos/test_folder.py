from __future__ import annotations

import pytest
from conftest import make_photo

from synthaug.errors import PhotoFolderError, SettingError
from synthaug.photos import load_pictures, read_folder
from synthaug.pixels import framed, read_image


def cut_short(path):
    path.write_bytes(path.read_bytes()[:300])


def test_photos_come_by_name_with_their_template_caption(photo_folder):
    found = read_folder(photo_folder(), trigger="いりこ")

    assert [photo.path.name for photo in found.photos] == [f"photo_{index:02d}.jpg" for index in range(6)]
    assert set(found.captions) == {"a photo of いりこ"}
    assert found.skipped == ()


@pytest.mark.parametrize(
    ("suffix", "content"), [(".txt", "a burst fish\nsecond line"), (".caption", "a burst fish"), (".txt", "\ufeffa burst fish ")]
)
def test_the_text_file_beside_a_photo_is_its_caption(photo_folder, suffix, content):
    folder = photo_folder()
    (folder / f"photo_02{suffix}").write_text(content, encoding="utf-8")

    assert read_folder(folder, trigger="cod").captions[2] == "a burst fish"
    assert read_folder(folder, trigger="cod").captions[3] == "a photo of cod"


def test_choices_of_a_template_are_spread_over_the_photos_and_stay(photo_folder):
    folder = photo_folder(12)

    captions = read_folder(folder, caption="a {big|small} fish").captions

    assert set(captions) == {"a big fish", "a small fish"}
    assert captions == read_folder(folder, caption="a {big|small} fish").captions


@pytest.mark.parametrize("content", ["", "  \n\n"])
def test_an_empty_caption_is_refused_by_name(photo_folder, content):
    folder = photo_folder()
    (folder / "photo_01.txt").write_text(content)

    with pytest.raises(
        PhotoFolderError, match=r"the caption file .*photo_01\.txt is empty; write what the photo shows, or delete the file"
    ):
        read_folder(folder, trigger="cod")


def test_a_caption_in_another_encoding_is_refused_rather_than_mangled(photo_folder):
    folder = photo_folder()
    (folder / "photo_01.txt").write_bytes("いりこ".encode("shift-jis"))

    with pytest.raises(PhotoFolderError, match=r"a caption file must be UTF-8, .*photo_01\.txt is not; save it again"):
        read_folder(folder, trigger="cod")


def test_no_caption_at_all_is_refused(photo_folder):
    folder = photo_folder()

    with pytest.raises(PhotoFolderError, match=r"photo_00\.jpg has no caption; write photo_00\.txt beside it or give a caption template"):
        read_folder(folder, caption="")
    with pytest.raises(
        PhotoFolderError, match=r"photo_00\.jpg has no caption, and the template 'a photo of \{trigger\}' needs a trigger word"
    ):
        read_folder(folder)
    with pytest.raises(SettingError, match=r"unknown placeholder \{colour\}"):
        read_folder(folder, caption="a {colour} fish")


def test_no_folder_and_no_photos_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no photo")

    with pytest.raises(PhotoFolderError, match=r"there is no folder .*nowhere; give the folder your photos lie in"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(PhotoFolderError, match=r"holds no photo \(\.jpg, .*\); put at least 5 there, 20 are better"):
        read_folder(tmp_path)


def test_fewer_than_five_photos_are_refused_and_five_are_enough(photo_folder):
    assert len(read_folder(photo_folder(5, name="five"), trigger="x").photos) == 5
    with pytest.raises(PhotoFolderError, match=r"at least 5 usable photos are needed, .*four holds 4; add photos, 20 are better"):
        read_folder(photo_folder(4, name="four"), trigger="x")


def test_a_truncated_photo_is_named_skipped_and_counted(photo_folder, caplog):
    folder = photo_folder()
    cut_short(folder / "photo_03.jpg")

    found = read_folder(folder, trigger="x")

    assert len(found.photos) == 5
    [(path, reason)] = found.skipped
    assert path.name == "photo_03.jpg"
    assert "truncated" in reason
    assert "skipped photo_03.jpg" in caplog.text
    assert "1 of 6 photos were skipped" in caplog.text


def test_only_truncated_photos_are_refused_with_the_first_reason(photo_folder):
    folder = photo_folder()
    for path in folder.iterdir():
        cut_short(path)

    with pytest.raises(PhotoFolderError, match=r"holds 0; 6 more could not be used, the first: .*photo_00\.jpg is damaged"):
        read_folder(folder, trigger="x")


@pytest.mark.parametrize(
    ("name", "reason"), [("text.jpg", "is not a picture that can be read"), ("phone.HEIC", "of a kind that is not read; export it")]
)
def test_what_cannot_be_read_is_skipped_with_its_reason(photo_folder, name, reason):
    folder = photo_folder()
    (folder / name).write_text("hello")

    [(path, why)] = read_folder(folder, trigger="x").skipped

    assert path.name == name
    assert reason in why


def test_hidden_files_and_sub_folders_are_left_out(photo_folder):
    folder = photo_folder()
    (folder / "more").mkdir()
    make_photo().save(folder / "more" / "other.jpg")
    (folder / "._photo_00.jpg").write_text("what some systems leave behind")

    found = read_folder(folder, trigger="x")

    assert (len(found.photos), found.skipped) == (6, ())


def test_one_picture_has_one_hash_in_every_format(photo_folder):
    folder = photo_folder(6, suffix=".png")
    make_photo(seed=0).save(folder / "again.bmp")

    hashes = {photo.path.name: photo.sha256 for photo in read_folder(folder, trigger="x").photos}

    assert hashes["again.bmp"] == hashes["photo_00.png"]
    assert len(set(hashes.values())) == 6


@pytest.mark.parametrize(("rule", "groups"), [("", 6), ("-1", 2), ("-2", 1), ("-3", 6)])
def test_groups_are_cut_out_of_the_names(tmp_path, rule, groups):
    for part in "ab":
        for shot in range(3):
            make_photo(seed=shot).save(tmp_path / f"sheet_{part}_{shot}.png")

    assert len({photo.group for photo in read_folder(tmp_path, trigger="x", group=rule).photos}) == groups


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[" * 100_000, "cannot be read"), (b"\xff\xfe", "cannot be read"), (b'{"photos": [', "cannot be read"),
        (b"[]", "was not written by"), (b'{"photos": {}}', "was not written by"),
        (b'{"photos": [{"file": "photo_00.jpg", "group": "a"}]}', "was not written by"),
    ],
)  # fmt: skip
def test_a_list_of_something_else_gives_no_groups_and_is_named(photo_folder, caplog, content, why):
    folder = photo_folder()
    (folder / "photos.json").write_bytes(content)

    assert len({photo.group for photo in read_folder(folder, trigger="x").photos}) == 6
    assert f"groups are not taken from {folder / 'photos.json'}, it {why}" in caplog.text


def test_a_group_rule_that_is_no_number_is_refused(photo_folder):
    with pytest.raises(SettingError, match=r"a group rule is how many parts to cut off a file name, such as .* got 'name'"):
        read_folder(photo_folder(), trigger="x", group="name")


def test_masks_are_found_by_name_inside_the_folder_or_where_one_says(photo_folder, tmp_path):
    folder = photo_folder()
    for masks, name in ((folder / "mask", "photo_01.png"), (tmp_path / "elsewhere", "photo_02.bmp")):
        masks.mkdir()
        make_photo().save(masks / name)

    inside = read_folder(folder, trigger="x").photos
    elsewhere = read_folder(folder, trigger="x", masks=tmp_path / "elsewhere").photos

    assert [photo.path.stem for photo in inside if photo.mask] == ["photo_01"]
    assert [photo.path.stem for photo in elsewhere if photo.mask] == ["photo_02"]
    with pytest.raises(PhotoFolderError, match=r"there is no folder .*none; give the folder the masks lie in"):
        read_folder(folder, trigger="x", masks=tmp_path / "none")


def test_pictures_are_loaded_framed(photo_folder):
    photos = read_folder(photo_folder(size=(40, 70)), trigger="x").photos

    pictures = load_pictures(photos, (24, 16))

    assert pictures.shape == (6, 3, 24, 16)
    assert pictures[4].equal(framed(read_image(photos[4].path), (24, 16)))


def test_a_folder_as_kohyas_scripts_have_it_is_read_with_its_repeats_and_class_words(photo_folder, tmp_path):
    whole = tmp_path / "dataset"
    whole.mkdir()
    for name, count in (("10_iriko fish", 4), ("1_fish", 2), ("notes", 3), ("0_nothing", 1)):
        photo_folder(count, name=f"dataset/{name}")
    (whole / "10_iriko fish" / "photo_01.txt").write_text("iriko, close\n", encoding="utf-8")

    found = read_folder(whole)

    assert len(found.photos) == 6
    assert sorted(found.repeats) == [1, 1, 10, 10, 10, 10]
    captions = dict(zip([str(photo.path.relative_to(whole)) for photo in found.photos], found.captions, strict=True))
    assert captions["10_iriko fish/photo_00.jpg"] == "iriko fish"
    assert captions["10_iriko fish/photo_01.jpg"] == "iriko, close"
    assert captions["1_fish/photo_00.jpg"] == "fish"
    assert len({photo.group for photo in found.photos}) == 6, "equal names in two folders are two parts"


def test_photos_beside_such_folders_are_all_there_is(photo_folder):
    folder = photo_folder(5)
    photo_folder(2, name="photos/10_fish")

    found = read_folder(folder, trigger="x")

    assert len(found.photos) == 5
    assert found.repeats == ()
