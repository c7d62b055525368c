from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import bare_file, shrunken
from fits import options
from photo_sets import Drawer, buckets, encoded, rows_of

from synthaug.errors import SettingError
from synthaug.photos.kohya import SetSettings, read_training_set
from synthaug.training.command import FitCLI
from synthaug.training.photo_data import PhotoData
from synthaug.training.views import Views


class Shuffled:
    """Rules under which every seed gives another caption."""

    varies = True

    def variant(self, caption: str, seed: int) -> str:
        return f"{caption} {seed % 1000}"


class Plain:
    varies = False

    def variant(self, caption: str, seed: int) -> str:  # noqa: ARG002  # nothing is drawn
        return f"{caption} plain"


def with_rules(monkeypatch, *rules, settings: SetSettings = SetSettings()) -> None:  # noqa: B008  # frozen
    def read(*args, **kwargs):
        return replace(read_training_set(*args, **kwargs), rules=rules, settings=settings)

    monkeypatch.setattr("synthaug.training.photo_data.read_training_set", read)


def test_a_caption_that_varies_is_drawn_anew_by_step_from_a_few_variants(photo_folder, tiny_base, monkeypatch):
    with_rules(monkeypatch, *[Shuffled()] * 4, Plain())
    data = encoded(photo_folder(5), tiny_base, caption_variants=3, batch_size=5, caption_dropout=0.0, views=Views(count=1))

    texts = {step: rows_of(data.batch(step)) for step in range(30)}
    states = [{tuple(row.tolist()) for row in data.batch(step)["tokens"]} for step in range(30)]

    assert texts[0]
    assert len(set().union(*states)) == 4 * 3 + 1
    assert all(len(some) == 5 for some in states)
    assert data.captions[4] == "a photo of iriko plain"
    assert data.facts().captions == 4 * 3 + 2
    assert torch.equal(data.batch(3)["tokens"], data.batch(3)["tokens"])


def test_what_the_file_of_the_photos_says_is_used_where_nothing_was_asked_for(photo_folder, tiny_base, monkeypatch):
    said = SetSettings(size=(24, 40), batch_size=3, flip=True, caption_dropout=1.0, masked=True, buckets=buckets())
    with_rules(monkeypatch, *[Plain()] * 5, settings=said)

    data = encoded(photo_folder(5), tiny_base)

    assert (data.size, data.batch_size, data.views.flip, data.caption_dropout, data.outside_mask) == ((24, 40), 3, True, 1.0, 0.0)
    assert data.facts().buckets[0][0] != (24, 40)


def test_an_option_counts_more_than_the_file_and_the_contradiction_is_said(photo_folder, tiny_base, monkeypatch, caplog):
    with_rules(monkeypatch, *[Plain()] * 5, settings=SetSettings(size=(24, 40), batch_size=3, flip=True))

    data = encoded(photo_folder(5), tiny_base, size=(32, 32), batch_size=3, views=Views(flip=False))

    assert (data.size, data.batch_size, data.views.flip) == ((32, 32), 3, False)
    assert "size is (32, 32) by option and (24, 40) in the file of the photos; the option counts" in caplog.text
    assert "flip is False by option and True in the file" in caplog.text
    assert "batch_size" not in caplog.text


TOML = """
[general]
shuffle_caption = true
keep_tokens = 1
flip_aug = true
caption_extension = ".txt"

[[datasets]]
resolution = [40, 32]
batch_size = 3
enable_bucket = true
bucket_reso_steps = 8
min_bucket_reso = 16
max_bucket_reso = 64

  [[datasets.subsets]]
  image_dir = "photos"
  num_repeats = 2

  [[datasets.subsets]]
  image_dir = "regular"
  is_reg = true
  class_tokens = "a fish"
"""


def test_a_dataset_file_of_kohyas_scripts_says_everything(photo_folder, tiny_base, tmp_path):
    folder = photo_folder(5)
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text("iriko, burst, close, wet", encoding="utf-8")
    photo_folder(3, name="regular", seed=50)
    (tmp_path / "set.toml").write_text(TOML, encoding="utf-8")

    data = encoded(tmp_path / "set.toml", tiny_base, caption_variants=4)

    assert (data.size, data.batch_size, data.views.flip, data.caption_dropout) == ((32, 40), 3, True, 0.1)
    assert data.facts().regular == 3
    assert data.facts().captions > 3
    assert all(caption.startswith("iriko, ") for caption in data.captions)
    flags = torch.cat([data.batch(step)["regular"] for step in range(10)])
    assert flags.sum() == 15


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"regular_share": 0.5},
            r"regular_share \(0.5\) needs regularisation pictures; give --data.regular FOLDER, or --data.regular_count",
        ),
        ({"regular_share": 1.0}, r"regular_share must be from 0 to below 1; 0.5 shows as many as photos, got 1.0"),
        ({"regular_count": -1}, r"regular_count must be 0 pictures or more, got -1"),
        ({"regular_count": 5, "regular": Path("x")}, r"regularisation pictures are read or drawn, not both; leave out --data.regular x"),
        ({"regular_count": 5}, r"regular_count \(5\) needs words to draw from; give --data.regular_caption"),
        ({"regular_count": 5, "regular_caption": "a"}, r"regular_count \(5\) needs something that draws; give --data.drawer synthaug"),
        (
            {"regular_count": 5, "regular_caption": "a", "drawer": Drawer(Path()), "cache": "none"},
            r"pictures that are drawn \(5\) need a place; give --data.cache a folder",
        ),
        ({"caption_variants": 0}, r"caption_variants must be at least 1; 8 is usual, got 0"),
        ({"held_out_views": -1}, r"held_out_views must be 0 views or more, got -1"),
        ({"outside_mask": 2.0}, r"outside_mask must be from 0 to 1; 1 leaves masks aside, got 2.0"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_read(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        PhotoData(Path("nowhere"), **settings)


@pytest.mark.parametrize(
    ("given", "kept"), [({}, 2), ({"held_out": 0}, 0), ({"held_out": 1}, 1), ({"held_out_views": 1}, 0)],
    ids=["the file's share", "none by option", "another number by option", "views by option"],
)  # fmt: skip
def test_the_share_that_the_file_keeps_back_is_kept_back_unless_an_option_says_otherwise(given, kept, photo_folder, tiny_base, monkeypatch):
    with_rules(monkeypatch, *[Plain()] * 6, settings=SetSettings(held_out=0.3))

    data = encoded(photo_folder(6), tiny_base, views=Views(count=1, zoom=1.15), **given)

    assert (data.facts().held_out, data.facts().photos) == (kept, 6 - kept)


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
@pytest.mark.parametrize(("asked", "side"), [("epsilon", 512), ("v_prediction", 768)])
def test_what_the_user_says_the_base_predicts_decides_size_and_encoders_where_its_file_does_not_say(
    asked, side, photo_folder, tmp_path, monkeypatch
):
    class Stop(Exception):  # noqa: N818  # no failure
        pass

    def stop(items, encoding, **_):
        raise Stop(encoding.encoders.prediction)

    monkeypatch.setattr("synthaug.training.photo_data.EncodedSet.of", stop)
    base = bare_file(shrunken("sd2", tmp_path), tmp_path / "sd2.safetensors")
    cli = FitCLI(options(base, photo_folder(5), tmp_path / "a.safetensors", "--model.prediction", asked))

    with pytest.raises(Stop, match=asked):
        cli.datamodule.setup("fit")

    assert cli.datamodule.size == (side, side)
