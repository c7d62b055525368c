from __future__ import annotations

import pytest

from synthaug.errors import SettingError, UnusableFileError
from synthaug.photos.dataset_file import read_subsets


def written(folder, text, name="set.toml", *, encoding="utf-8"):
    (folder / name).write_text(text, encoding=encoding)
    return folder / name


def test_what_stands_lower_overrules_what_stands_higher(tmp_path):
    upper = "[general]\nkeep_tokens=1\nflip_aug=true\n[[datasets]]\nkeep_tokens=2\n"
    text = f"{upper}[[datasets.subsets]]\nimage_dir='a'\n[[datasets.subsets]]\nkeep_tokens=3"

    first, second = read_subsets(written(tmp_path, text))

    assert first.values == {"keep_tokens": 2, "flip_aug": True, "image_dir": "a"}
    assert second.values == {"keep_tokens": 3, "flip_aug": True}
    assert second.place == "subset 2 of dataset 1 of set.toml"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[general]\nshufle_caption=true", r"unknown key 'shufle_caption' in \[general\] of set\.toml; did you mean 'shuffle_caption'\?"),
        ("[[datasets]]\nbatchsize=1", r"unknown key 'batchsize' in dataset 1 of set\.toml; did you mean 'batch_size'\?"),
        (
            "[[datasets]]\n[[datasets.subsets]]\nimage_dir='fish'\n[[datasets.subsets]]\nqqq=1",
            r"unknown key 'qqq' in subset 2 of dataset 1 of set\.toml; take it out, or use one of: alpha_mask, .*, token_warmup_step$",
        ),
        (
            "[[datasets]]\n[[datasets.subsets]]\nimage_dir='fish'\nresolution=512",
            r"'resolution' must stand in \[general\] or \[\[datasets\]\], it stands in subset 1 of dataset 1 of set\.toml; move it there",
        ),
        ("[[dataset]]\nresolution=512", r"unknown key 'dataset' at the top of set\.toml; did you mean 'datasets'\?"),
        ("pretrained_model = 'x'", r"unknown key 'pretrained_model' at the top of set\.toml; such a file holds \[general\] and"),
        ("[[datasets]]\nresolution='512'", r"resolution must be one side or \[width, height\], multiples of 8, got '512' in dataset 1"),
        ("[[datasets]]\nresolution=[512, 500]", r"resolution must be .*, got \[512, 500\] in dataset 1"),
        ("[general]\nkeep_tokens=true", r"keep_tokens must be a whole number from 0 on, got True in \[general\]"),
        ("[general]\ncaption_dropout_rate=10", r"caption_dropout_rate must be a share from 0 to 1, got 10 in"),
        ("[general]", r"a dataset file must list folders, set\.toml has no \[\[datasets\.subsets\]\]; add one"),
        ("datasets = 3", r"datasets in set\.toml must be a list, written \[\[like this\]\] in TOML, got 3"),
        ("[[datasets]]\nsubsets = [3]", r"subset 1 of dataset 1 of set\.toml must be a table of keys and values, got 3"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place_and_the_way_out(tmp_path, text, sentence):
    with pytest.raises(SettingError, match=sentence):
        read_subsets(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "name", "encoding", "sentence"),
    [
        ("[[datasets]\n", "set.toml", "utf-8", r"set\.toml cannot be read as TOML: .*line 1"),
        (
            '[[datasets]]\n[[datasets.subsets]]\nimage_dir="C:\\hoge"',
            "set.toml",
            "utf-8",
            r"cannot be read as TOML: .*; write Windows paths in 'single",
        ),
        ("{", "set.json", "utf-8", r"set\.json cannot be read as JSON: "),
        ("# いりこ", "set.toml", "shift_jis", r"a dataset file must be UTF-8, .*set\.toml is not; save it again"),
        ("", "set.yaml", "utf-8", r"a data set is a folder, or a \.toml or \.json file .*set\.yaml is neither"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path, text, name, encoding, sentence):
    with pytest.raises(UnusableFileError, match=sentence):
        read_subsets(written(tmp_path, text, name, encoding=encoding))


def test_a_file_from_a_windows_editor_is_read(tmp_path):
    [subset] = read_subsets(written(tmp_path, "\ufeff[[datasets]]\r\n[[datasets.subsets]]\r\nimage_dir='fish'\r\n"))

    assert subset.values == {"image_dir": "fish"}
