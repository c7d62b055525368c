from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from synthaug.errors import PhotoFolderError, SettingError
from synthaug.models.load import load_base
from synthaug.photos.kohya import SetSettings
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
    empty = data._encoded.bank.rows(torch.tensor([data._encoded.bank.row("")]))["states"][0]

    states = data.batch(0)["states"]

    assert sum(bool(torch.equal(row, empty)) for row in states) == expected


def test_views_differ_and_the_first_is_the_photo_itself(photo_folder, tiny_base):
    data = encoded(photo_folder(5), tiny_base, views=Views(count=3, zoom=1.4))
    alone = encoded(data.folder, tiny_base, views=Views(count=1))

    for entry, only in zip(data._encoded.entries, alone._encoded.entries, strict=True):
        assert torch.equal(entry["mean"][:1], only["mean"])
        assert not torch.equal(entry["mean"][0], entry["mean"][1])


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


def rows_of(batch: dict[str, torch.Tensor]) -> list[tuple[float, ...]]:
    return [tuple(row.flatten().tolist()) for row in batch["mean"]]


def mixed_folder(photo_folder) -> Path:
    """Five photos lying, three standing."""
    folder = photo_folder(5, size=(48, 96))
    for path in photo_folder(3, name="standing", size=(96, 48), seed=7).iterdir():
        path.rename(folder / f"standing_{path.name}")
    return folder


SMALL_BUCKETS = {"enabled": True, "step": 8, "smallest": 16, "largest": 64}


def buckets(**settings):
    from synthaug.photos.buckets import Buckets

    return Buckets(**{**SMALL_BUCKETS, **settings})


def test_with_buckets_every_batch_is_of_one_shape_and_photos_keep_theirs(photo_folder, tiny_base):
    data = encoded(mixed_folder(photo_folder), tiny_base, buckets=buckets(), batch_size=4, views=Views(count=1), caption_dropout=0.0)

    shapes = [data.batch(step)["mean"].shape[-2:] for step in range(16)]
    rows = Counter(row for step in range(80) for row in rows_of(data.batch(step)))

    assert Counter(map(tuple, shapes)) == {(3, 5): 10, (5, 3): 6}
    assert data.facts().buckets == (((24, 40), 5), ((40, 24), 3))
    assert len(rows) == 8
    assert all(abs(count - 40) < 16 for count in rows.values())


def test_photos_smaller_than_their_size_are_magnified_and_counted(photo_folder, tiny_base, caplog):
    folder = photo_folder(5, size=(48, 64))
    with Image.open(folder / "photo_02.jpg") as photo:
        small = photo.resize((20, 30))
    small.save(folder / "photo_02.jpg")

    assert encoded(folder, tiny_base).facts().magnified == 1
    assert (
        "1 of 5 photos are smaller than they are trained at and are magnified, the smallest is photo_02.jpg (30 x 20 to 32 x 32)"
        in caplog.text
    )


def test_without_upscale_small_photos_get_a_bucket_of_their_own(photo_folder, tiny_base, caplog):
    folder = photo_folder(5, size=(64, 64))
    with Image.open(folder / "photo_02.jpg") as photo:
        small = photo.resize((20, 30))
    small.save(folder / "photo_02.jpg")

    facts = encoded(folder, tiny_base, buckets=buckets(upscale=False)).facts()

    assert facts.buckets == (((24, 16), 1), ((32, 32), 4))
    assert facts.magnified == 0
    assert "magnified" not in caplog.text


def no_encoders(monkeypatch) -> None:
    """From here on, no encoder can be loaded."""

    def load(name, *, parts=()):
        assert not parts, f"{parts} were loaded"
        return load_base(name, parts=parts)

    monkeypatch.setattr("synthaug.training.encoders.load_base", load)


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
    from synthaug.photos.kohya import read_training_set

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
    from dataclasses import replace

    from synthaug.photos.kohya import read_training_set

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


def test_views_kept_back_are_measured_on_and_never_trained_on(photo_folder, tiny_base):
    data = encoded(photo_folder(5), tiny_base, views=Views(count=2, zoom=3.0), held_out_views=2, batch_size=4, caption_dropout=0.0)
    plain = encoded(data.folder, tiny_base, views=Views(count=2, zoom=3.0), batch_size=4, caption_dropout=0.0)

    trained = {row for step in range(40) for row in rows_of(data.batch(step))}
    kept = [row for part in data.val_dataloader() for row in rows_of(part)]

    assert len(trained) == len(kept) == 10
    assert not trained & set(kept)
    assert torch.equal(data.batch(3)["mean"], plain.batch(3)["mean"])


def test_views_kept_back_must_differ_from_the_photo(photo_folder, tiny_base):
    with pytest.raises(SettingError, match=r"views that are kept back must differ from the photo, held_out_views is 1 and views.zoom 1"):
        encoded(photo_folder(5), tiny_base, views=Views(zoom=1.0), held_out_views=1)


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


class Drawer:
    """Draws nothing but notes what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []

    def draw_regular(self, base, **wanted):
        self.asked.append((base, wanted))
        return self.folder


def test_regularisation_pictures_are_drawn_on_request_at_the_photos_size(photo_folder, tiny_base, tmp_path):
    drawer = Drawer(regular_folder(photo_folder))
    settings = {"regular_count": 3, "regular_caption": "a fish", "drawer": drawer, "cache": str(tmp_path / "cache")}

    data = encoded(photo_folder(5), tiny_base, size=(32, 40), **settings)

    ((base, wanted),) = drawer.asked
    assert base == str(tiny_base)
    assert wanted.pop("mark")
    assert wanted == {"caption": "a fish", "count": 3, "size": (32, 40), "seed": 0, "cache": tmp_path / "cache" / "regular"}
    assert data.batch(0)["regular"].sum() == 2


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


def test_an_empty_folder_of_regularisation_pictures_is_refused(photo_folder, tiny_base, tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(PhotoFolderError, match=r"empty holds no photo"):
        encoded(photo_folder(5), tiny_base, regular=tmp_path / "empty")


def test_a_base_that_fills_holes_gets_the_mask_and_the_photo_behind_it(photo_folder, tiny_inpaint_base):
    folder = masked(photo_folder(5, size=(32, 32)), [(0, 0, 16, 32)] * 2)
    data = encoded(folder, tiny_inpaint_base, batch_size=5, views=Views(count=1), caption_dropout=0.0)
    means = [entry["mean"][0] for entry in data._encoded.entries]

    batch = data.batch(0)

    assert batch["inpaint"].shape == (5, 1 + 4, 4, 4)
    assert set(batch["inpaint"][:, 0].unique().tolist()) == {0.0, 1.0}
    assert (batch["weight"] == 1).all()
    half = torch.tensor([1.0, 1, 0, 0]).expand(4, 4)
    order = [next(i for i, mean in enumerate(means) if torch.equal(mean, row)) for row in batch["mean"]]
    assert all(torch.equal(row[0], half) == (photo < 2) for row, photo in zip(batch["inpaint"], order, strict=True))
    behind = batch["inpaint"][:, 1:]
    assert not torch.allclose(behind, batch["mean"], atol=1e-3)
    assert data.facts().made == 5 + 2


def test_sdxl_is_told_sizes_and_cuts_and_gets_pooled_states(photo_folder, tiny_base, tiny_sdxl_base, monkeypatch):
    folder = photo_folder(5, size=(48, 64))
    settings = {"size": (32, 32), "views": Views(count=1)}
    first = encoded(folder, tiny_sdxl_base, **settings).batch(0)
    no_encoders(monkeypatch)
    batch = encoded(folder, tiny_sdxl_base, **settings).batch(0)

    assert batch["time_ids"].tolist() == [[48, 64, 0, 5, 32, 32]] * 4
    assert batch["pooled"].shape == (4, 12)
    assert batch["tokens_2"].shape == batch["tokens"].shape == (4, 77)
    assert all(torch.equal(first[key], value) for key, value in batch.items())


def test_a_plain_base_is_told_neither_sizes_nor_holes(photo_folder, tiny_base):
    assert set(encoded(photo_folder(5), tiny_base).batch(0)) == {"mean", "std", "states", "tokens", "weight"}


def test_what_is_accumulated_is_one_large_batch(photo_folder, tiny_base):
    data = encoded(photo_folder(5), tiny_base, batch_size=2)
    data.trainer = SimpleNamespace(global_rank=1, world_size=2, accumulate_grad_batches=3, global_step=4)

    loader = iter(data.train_dataloader())
    found = [next(loader) for _ in range(4)]

    data.batch_size = 12
    large = data.batch(4)["mean"]
    assert all(torch.equal(found[part]["mean"], large[(2 * part + 1) * 2 :][:2]) for part in range(3))
    assert torch.equal(found[3]["mean"], data.batch(5)["mean"][2:4])


def test_of_several_processes_the_first_fills_the_cache(photo_folder, tiny_base):
    data = PhotoData(photo_folder(5), base=str(tiny_base))
    data.trainer = SimpleNamespace(world_size=2, strategy=SimpleNamespace(root_device=torch.device("cpu")))

    data.prepare_data()

    assert data.facts().made == 5 + 2
    alone = PhotoData(data.folder, base=str(tiny_base))
    alone.prepare_data()
    assert alone.found is None


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
