from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from photo_sets import buckets, encoded, masked, mixed_folder, no_encoders, rows_of
from PIL import Image

from synthaug.errors import PhotoFolderError, SettingError
from synthaug.training.photo_data import PhotoData
from synthaug.training.views import Views


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
