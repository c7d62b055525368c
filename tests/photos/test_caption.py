from __future__ import annotations

import pytest

from synthaug.errors import PhotoFolderError, SettingError
from synthaug.photos import read_folder
from synthaug.photos.caption import Edit, caption


def captions(folder):
    return {path.name: path.read_text(encoding="utf-8").strip() for path in sorted(folder.iterdir()) if path.suffix in (".txt", ".caption")}


def test_photos_without_a_caption_get_the_template_and_training_reads_it(photo_folder, capsys):
    folder = photo_folder(5)
    (folder / "photo_01.txt").write_text("mine\n", encoding="utf-8")

    caption(photos=folder, template="a photo of {trigger}", trigger="いりこ")

    assert captions(folder)["photo_01.txt"] == "mine"
    assert [photo.caption for photo in read_folder(folder).photos] == ["a photo of いりこ", "mine", *["a photo of いりこ"] * 3]
    assert "4 of 5 captions written" in capsys.readouterr().out


def test_a_second_run_changes_nothing(photo_folder, capsys):
    folder = photo_folder(5)
    settings = {"template": "{big|small} {trigger}", "trigger": "fish", "prefix": "a photo of a ", "suffix": ", on paper"}
    caption(photos=folder, **settings)
    first = captions(folder)
    capsys.readouterr()

    caption(photos=folder, **settings)

    assert captions(folder) == first
    assert len(set(first.values())) == 2, "the choice is made for each photo"
    assert "0 of 5 captions changed" in capsys.readouterr().out


def test_captions_that_are_there_are_edited_where_they_are(photo_folder):
    folder = photo_folder(5)
    for number in range(5):
        (folder / f"photo_0{number}.{'caption' if number % 2 else 'txt'}").write_text("fish, blurry, fish eye\n", encoding="utf-8")

    caption(photos=folder, find="fish", replace="iriko", remove=["blurry"], prefix="a photo of ", suffix=", on paper")

    assert set(captions(folder).values()) == {"a photo of iriko, iriko eye, on paper"}
    assert len(captions(folder)) == 5, "no second file beside a .caption"
    caption(photos=folder, template="new {trigger}", trigger="x", overwrite=True)
    assert set(captions(folder).values()) == {"new x"}


def test_a_dry_run_shows_everything_and_writes_nothing(photo_folder, capsys):
    folder = photo_folder(5)

    caption(photos=folder, template="iriko", dry_run=True)

    assert captions(folder) == {}
    assert "photo_03.txt: iriko" in capsys.readouterr().out


def test_nothing_is_written_when_one_photo_would_be_left_without_a_caption(photo_folder):
    folder = photo_folder(5)
    for number in range(4):
        (folder / f"photo_0{number}.txt").write_text("fish\n", encoding="utf-8")

    with pytest.raises(PhotoFolderError, match=r"photo_04.jpg would have no caption; give a --template"):
        caption(photos=folder, prefix="a ")
    with pytest.raises(PhotoFolderError, match=r"photo_00.jpg would have no caption"):
        caption(photos=folder, template="x", remove=["fish"])
    assert set(captions(folder).values()) == {"fish"}


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"replace": "x"}, SettingError, "find must say what to replace"),
        ({"template": "a {color}"}, SettingError, r"unknown placeholder \{color\}"),
    ],
)
def test_settings_that_make_no_sense_are_refused(photo_folder, settings, error, sentence):
    with pytest.raises(error, match=sentence):
        caption(photos=photo_folder(5), **settings)


def test_a_folder_without_photos_is_named(tmp_path):
    for folder, sentence in ((tmp_path, "holds no photo"), (tmp_path / "nowhere", "there is no folder")):
        with pytest.raises(PhotoFolderError, match=sentence):
            caption(photos=folder, template="x")


def test_removing_a_tag_leaves_longer_ones_that_contain_it():
    assert Edit(remove=("fish",)).apply("fish, fish eye,fish ,paper") == "fish eye, paper"


def test_every_line_of_a_caption_is_edited_and_kept_unless_nothing_is_left_of_it(photo_folder):
    folder = photo_folder(5)
    for number in range(5):
        (folder / f"photo_0{number}.txt").write_text("fish, blurry\nblurry\na {big|small} fish\n", encoding="utf-8")

    caption(photos=folder, remove=["blurry"], suffix=", on paper", find="fish", replace="iriko")

    assert (folder / "photo_03.txt").read_text(encoding="utf-8") == "iriko, on paper\na {big|small} iriko, on paper\n"


def test_captions_in_another_encoding_are_rewritten_in_utf8_once(photo_folder, capsys):
    folder = photo_folder(5)
    for number in range(4):
        (folder / f"photo_0{number}.txt").write_bytes("いりこ、大きい\n".encode("shift_jis"))
    (folder / "photo_04.txt").write_text("いりこ\n", encoding="utf-8")

    with pytest.raises(PhotoFolderError, match=r"photo_00\.txt is not; .* synthaug caption --photos .*photos --encoding shift_jis"):
        caption(photos=folder)
    caption(photos=folder, encoding="shift_jis")
    assert "4 of 5 captions written" in capsys.readouterr().out
    caption(photos=folder, encoding="shift_jis")

    assert "0 of 5 captions changed" in capsys.readouterr().out
    assert captions(folder) == {f"photo_0{number}.txt": "いりこ、大きい" if number < 4 else "いりこ" for number in range(5)}


def test_folders_as_kohyas_scripts_have_them_are_captioned_inside(photo_folder, tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("set/10_iriko", "set/1_fish"):
        photo_folder(2, name=name)

    caption(photos=tmp_path / "set", template="a {trigger}", trigger="fish")

    assert sorted(str(file.relative_to(tmp_path / "set")) for file in tmp_path.rglob("*.txt")) == [
        "10_iriko/photo_00.txt", "10_iriko/photo_01.txt", "1_fish/photo_00.txt", "1_fish/photo_01.txt",
    ]  # fmt: skip
