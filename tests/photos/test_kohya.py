from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photo
from PIL import Image

from synthaug.errors import PhotoFolderError, SettingError
from synthaug.photos import read_folder, read_training_set
from synthaug.photos.buckets import Buckets
from synthaug.photos.tags import CaptionRules
from synthaug.pixels import read_mask


@pytest.fixture
def data_set(photo_folder, tmp_path):
    """Writes a dataset file beside folders ``fish`` and ``screw`` of six photos each, and ``reg`` of three."""
    for seed, (name, count) in enumerate((("fish", 6), ("screw", 6), ("reg", 3))):
        photo_folder(count, name=name, seed=seed)

    def write(text: str, name: str = "set.toml", *, encoding: str = "utf-8") -> Path:
        (tmp_path / name).write_text(text, encoding=encoding)
        return tmp_path / name

    return write


def read(path, **settings):
    return read_training_set(path, **{"caption": "a photo of {trigger}", "trigger": "cod", "group": "", **settings})


WHOLE = """
[general]
shuffle_caption = true
caption_extension = '.txt'
keep_tokens = 1
enable_bucket = true
bucket_no_upscale = true

[[datasets]]
resolution = [768, 512]   # width, height
batch_size = 4
keep_tokens = 2
validation_split = 0.1
caption_dropout_rate = 0.05

  [[datasets.subsets]]
  image_dir = 'fish'
  class_tokens = 'iriko fish'
  num_repeats = 10
  flip_aug = true

  [[datasets.subsets]]
  image_dir = 'screw'
  class_tokens = 'old screw'
  keep_tokens = 3
  flip_aug = true
  caption_prefix = 'a photo of'

  [[datasets.subsets]]
  is_reg = true
  image_dir = 'reg'
  class_tokens = 'fish'
  shuffle_caption = false
"""


def test_a_dataset_file_is_read_as_it_is(data_set, tmp_path):
    path = data_set(WHOLE)
    (tmp_path / "fish" / "photo_01.txt").write_text("iriko, burst\nsecond line\n", encoding="utf-8")

    found = read(path)

    assert found.photos.captions == ("iriko fish", "iriko, burst", *["iriko fish"] * 4, *["old screw"] * 6)
    assert found.photos.repeats == (10,) * 6 + (1,) * 6
    assert found.rules == (CaptionRules(shuffle=True, keep=2),) * 6 + (CaptionRules(shuffle=True, keep=3, prefix="a photo of"),) * 6
    assert found.regular is not None
    assert found.regular.captions == ("fish",) * 3
    assert found.regular_rules == (CaptionRules(keep=2),) * 3
    settings = found.settings
    assert (settings.size, settings.batch_size, settings.flip, settings.caption_dropout, settings.held_out) == (
        (512, 768),
        4,
        True,
        0.05,
        0.1,
    )
    assert settings.buckets == Buckets(enabled=True, upscale=False)
    assert settings.masked is None
    assert found.remarks == ()


def test_json_says_the_same_as_toml(data_set):
    content = {
        "general": {"shuffle_caption": True, "keep_tokens": None},
        "datasets": [{"subsets": [{"image_dir": "fish", "num_repeats": 3}]}],
    }
    toml = "[general]\nshuffle_caption=true\n[[datasets]]\n[[datasets.subsets]]\nimage_dir='fish'\nnum_repeats=3\n"

    assert read(data_set(json.dumps(content), "set.json")) == read(data_set(toml))


def test_groups_of_two_folders_differ_even_if_folders_and_photos_have_one_name(data_set, photo_folder, tmp_path):
    (tmp_path / "more").mkdir()
    photo_folder(6, name="more/fish", seed=9)

    found = read(
        data_set("[[datasets]]\n" + "".join(f"[[datasets.subsets]]\nimage_dir='{name}'\n" for name in ("fish", "more/fish", "screw")))
    )

    groups = [photo.group for photo in found.photos.photos]
    assert len(set(groups)) == 18
    assert (groups[0], groups[6], groups[12]) == ("fish#1/photo_00", "fish#2/photo_00", "screw/photo_00")
    assert len({photo.sha256 for photo in found.photos.photos}) == 18


def test_groups_of_one_folder_are_those_that_evaluation_finds_in_it(data_set, tmp_path):
    found = read(
        data_set(
            "[[datasets]]\n[[datasets.subsets]]\nimage_dir='fish'\n[[datasets.subsets]]\nimage_dir='reg'\nis_reg=true\nclass_tokens='x'"
        )
    )

    assert found.photos.photos == read_folder(tmp_path / "fish", trigger="cod").photos
    assert {photo.group for photo in found.regular.photos} == {f"regular/photo_0{index}" for index in range(3)}


def test_a_file_that_says_little_leaves_the_run_its_own_settings(data_set):
    settings = read(data_set("[[datasets]]\n[[datasets.subsets]]\nimage_dir='fish'\n")).settings

    assert {getattr(settings, name) for name in vars(settings)} == {None}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("caption_separator=''", r"separator must be .* got '', in subset 1 of dataset 1 of set\.toml"),
        (
            "metadata_file='m.json'",
            r"captions must lie beside the photos as text files, subset 1 .* has them in a metadata_file; write them",
        ),
    ],
)
def test_a_value_of_a_subset_that_cannot_be_used_is_named_with_its_place(data_set, text, sentence):
    with pytest.raises(SettingError, match=sentence):
        read(data_set(f"[[datasets]]\n[[datasets.subsets]]\nimage_dir='fish'\n{text}"))


def test_buckets_that_cannot_be_and_a_folder_that_is_not_given_are_refused(data_set):
    with pytest.raises(SettingError, match=r"buckets\.smallest must be .* got 32, in subset 1 of dataset 1 of set\.toml"):
        read(data_set("[[datasets]]\nmin_bucket_reso=32\n[[datasets.subsets]]\nimage_dir='fish'"))
    with pytest.raises(SettingError, match=r"image_dir must be given, subset 1 of dataset 1 of set\.toml has none"):
        read(data_set("[[datasets]]\n[[datasets.subsets]]\nnum_repeats=2"))


def test_what_nothing_comes_of_is_said_once_with_its_counterpart(data_set, caplog):
    subset = "[[datasets.subsets]]\nrandom_crop=false\nimage_dir="
    found = read(
        data_set(f"[general]\ncolor_aug=true\ncache_info=false\n[[datasets]]\nresize_interpolation='area'\n{subset}'fish'\n{subset}'screw'")
    )

    assert found.remarks == (
        "color_aug has no counterpart here: the views of each photo, --data.views, take its place "
        "(subset 1 of dataset 1 of set.toml and 1 more)",
        "resize_interpolation has no counterpart here: photos are always resized with a Lanczos filter "
        "(subset 1 of dataset 1 of set.toml and 1 more)",
    )
    assert "set.toml: color_aug has no counterpart" in caplog.text


def test_of_two_values_for_the_whole_run_the_first_counts_and_that_is_said(data_set):
    found = read(
        data_set("""
        [[datasets]]
        resolution = 512
        [[datasets.subsets]]
        image_dir = 'fish'
        [[datasets]]
        resolution = 768
        [[datasets.subsets]]
        image_dir = 'fish'
        [[datasets.subsets]]
        image_dir = 'screw'
        flip_aug = true
        [[datasets.subsets]]
        image_dir = 'reg'
        num_repeats = 0
    """)
    )

    assert (found.settings.size, found.settings.flip) == ((512, 512), False)
    assert len(found.photos.photos) == 12
    assert sorted(found.remarks) == [
        "flip_aug is False in subset 1 of dataset 1 of set.toml and True in subset 2 of dataset 2 of set.toml; a run has one, so the first "
        "counts",
        "resolution is 512 in subset 1 of dataset 1 of set.toml and 768 in subset 1 of dataset 2 of set.toml; a run has one, so the first "
        "counts",
        "subset 3 of dataset 2 of set.toml is left out, its num_repeats is 0",
        f"the folder {found.photos.photos[0].path.parent} is listed more than once; a run has one size, so its photos count once",
    ]


def test_caption_files_are_those_that_kohyas_scripts_would_read(data_set, tmp_path):
    for ending in (".txt", ".caption", ".tags"):
        (tmp_path / "fish" / f"photo_00{ending}").write_text(f"from {ending}")
    (tmp_path / "fish" / "photo_01.txt").write_text("from .txt")
    subset = "[[datasets]]\n[[datasets.subsets]]\nimage_dir='fish'\n"

    silent, tags = read(data_set(subset)), read(data_set(subset + "caption_extension='tags'\nclass_tokens='x'"))

    assert silent.photos.captions[:3] == ("from .caption", "from .txt", "a photo of cod")
    assert tags.photos.captions[:3] == ("from .tags", "x", "x")
    assert silent.remarks == ()
    assert tags.remarks == (
        "1 caption files are not read because caption_extension is '.tags', the first is photo_01.txt (subset 1 of dataset 1 of set.toml)",
    )


def test_every_line_of_a_caption_is_there_to_choose_from_when_wildcards_are_on(data_set, tmp_path):
    (tmp_path / "fish" / "photo_00.txt").write_text("a {big|small} fish\na fish\n")

    found = read(data_set("[[datasets]]\nenable_wildcard=true\n[[datasets.subsets]]\nimage_dir='fish'\n"))

    assert found.photos.captions[0] == "a {big|small} fish\na fish"
    assert {found.rules[0].variant(found.photos.captions[0], seed) for seed in range(50)} == {"a big fish", "a small fish", "a fish"}


def test_masks_come_from_their_folder_or_from_what_can_be_seen_through(data_set, tmp_path):
    (tmp_path / "marks").mkdir()
    make_photo().save(tmp_path / "marks" / "photo_02.png")
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:20] = 0
    cut_out, whole = make_photo(seed=50), make_photo(seed=51)
    cut_out.putalpha(Image.fromarray(alpha))
    whole.putalpha(255)
    cut_out.save(tmp_path / "screw" / "cut_out.png")
    whole.save(tmp_path / "screw" / "whole.png")

    found = read(
        data_set("""
        [[datasets]]
        [[datasets.subsets]]
        image_dir = 'fish'
        conditioning_data_dir = 'marks'
        [[datasets.subsets]]
        image_dir = 'screw'
        alpha_mask = true
    """)
    )

    masks = {photo.path.name: photo.mask for photo in found.photos.photos if photo.mask}
    assert masks == {"photo_02.jpg": tmp_path / "marks" / "photo_02.png", "cut_out.png": tmp_path / "screw" / "cut_out.png"}
    assert np.array_equal(read_mask(masks["cut_out.png"]).numpy(), alpha // 255)
    assert found.settings.masked is True


def test_folders_are_looked_for_beside_the_file_and_then_where_the_command_runs(data_set, photo_folder, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    photo_folder(6, name="here/screw", seed=8)
    photo_folder(6, name="here/cod", seed=9)
    monkeypatch.chdir(tmp_path / "here")

    found = read(data_set("[[datasets]]\n" + "".join(f"[[datasets.subsets]]\nimage_dir='{name}'\n" for name in ("fish", "screw", "cod"))))

    assert {photo.path.parent for photo in found.photos.photos} == {tmp_path / "fish", tmp_path / "screw", tmp_path / "here" / "cod"}
    assert found.remarks == (
        "image_dir screw is read from beside the file; kohya's scripts would read the one in the working folder",
        "image_dir cod is read from the working folder, there is none beside the file",
    )
    with pytest.raises(PhotoFolderError, match=r"image_dir must be a folder, eel of subset 1 .* is none, neither beside the file nor in"):
        read(data_set("[[datasets]]\n[[datasets.subsets]]\nimage_dir='eel'"))


def test_a_folder_of_folders_inside_a_file_is_refused_with_the_way_out(data_set, photo_folder, tmp_path):
    (tmp_path / "tree").mkdir()
    photo_folder(6, name="tree/10_fish")

    with pytest.raises(PhotoFolderError, match=r"tree of subset 1 .* holds no photo itself; give it instead of the file, or each"):
        read(data_set("[[datasets]]\n[[datasets.subsets]]\nimage_dir='tree'"))


def test_a_file_with_regularisation_images_alone_is_refused(data_set):
    with pytest.raises(PhotoFolderError, match=r"set\.toml names nothing to learn, only regularisation images"):
        read(data_set("[[datasets]]\n[[datasets.subsets]]\nimage_dir='reg'\nis_reg=true\nclass_tokens='fish'"))
