from __future__ import annotations

import csv
import errno
import hashlib
import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from flawed import flawed, paper, write_flawed
from PIL import Image
from sample_folders import make_samples, picture_of, screened

from synthaug.cli import main
from synthaug.datasets import export_folder
from synthaug.datasets.export import export
from synthaug.datasets.export_layouts import rle_of
from synthaug.datasets.export_split import split
from synthaug.defects.bank_run import bank as make_bank
from synthaug.errors import OutputError, SettingError, UnusableFileError
from synthaug.manifest import Manifest
from synthaug.pixels import digest, picture_text, read_image, save_mask, save_png
from synthaug.records import Request, Sample


@pytest.fixture
def photos(tmp_path):
    """Six photos of defects of six parts."""
    return write_flawed(tmp_path / "photos", 6)


@pytest.fixture
def normals(tmp_path):
    """Two normal photos each of parts 0 and 20 to 24; part 0 is also one of the photos of defects and of the bank."""
    (tmp_path / "normals").mkdir()
    for part in (0, 20, 21, 22, 23, 24):
        for shot in (2, 3):
            save_png(paper(100 * part + shot), tmp_path / "normals" / f"part_{part}_{shot}.png")
    return tmp_path / "normals"


@pytest.fixture(scope="module")
def bank_folder(tmp_path_factory):
    """Five defects of five parts."""
    folder = tmp_path_factory.mktemp("bank")
    make_bank(out=folder / "bank", photos=write_flawed(folder / "photos", 5), defect="stain", group="-1")
    return folder / "bank"


def table(folder):
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def everything(folder):
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def mask_in(path):
    return np.asarray(Image.open(path)) > 127


def decoded(rle):
    """Reads COCO's uncompressed RLE, written from its description alone."""
    height, width = rle["size"]
    flat = np.zeros(height * width, bool)
    at, value = 0, False
    for run in rle["counts"]:
        flat[at : at + run] = value
        at, value = at + run, not value
    assert at == height * width
    return flat.reshape(width, height).T


def sides_of(rows, *columns):
    found = defaultdict(set)
    for row in rows:
        for column in columns:
            found[row[column]].add(row["split"])
    return found


def test_mvtec_has_normal_training_and_a_mask_named_after_each_defect(photos, normals, tmp_path):
    export(to="mvtec", out=tmp_path / "out", photos=photos, normals=normals, defect="stain", group="-1")

    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")}
    assert {name.rpartition("/")[0] for name in names} == {"train/good", "test/good", "test/stain", "ground_truth/stain"}
    stains = {name.removeprefix("test/stain/").removesuffix(".png") for name in names if name.startswith("test/stain/")}
    assert {f"ground_truth/stain/{name}_mask.png" for name in stains} == {name for name in names if name.startswith("ground")}
    rows = table(tmp_path / "out")
    for row in rows:
        if row["defect"]:
            index = int(row["source"].split("_")[1])
            assert torch.equal(read_image(tmp_path / "out" / row["file"]), flawed(index)[0])
            assert np.array_equal(mask_in(tmp_path / "out" / row["mask"]), flawed(index)[1].numpy() > 0)
    assert all(len(sides) == 1 for sides in sides_of(rows, "group").values())
    assert {row["split"] for row in rows if row["source"].startswith("part_0_")} == {"test"}, "its defect is in the test"


def test_the_table_has_what_is_needed_to_find_a_picture_again(photos, normals, tmp_path):
    export(to="csv", out=tmp_path / "out", photos=photos, normals=normals, defect="stain", group="-1")

    rows = table(tmp_path / "out")

    assert [row["label"] for row in rows] == ["0"] * 12 + ["1"] * 6
    assert {row["source"]: row["group"] for row in rows}["part_21_3.png"] == "part_21"
    assert all(row["sha256"] == digest(read_image(tmp_path / "out" / row["file"])) for row in rows)
    assert (
        {row["split"] for row in rows if row["label"] == "0"} == {row["split"] for row in rows if row["label"] == "1"} == {"train", "test"}
    )
    assert all(len(sides) == 1 for sides in sides_of(rows, "group").values())


def test_coco_says_the_masks_exactly_and_a_box_for_each_piece(photos, normals, tmp_path):
    image, mask = flawed(3)
    mask[0, 0], mask[60:63, 75:80] = 1, 1
    save_png(image, photos / "part_3_1.png")
    save_mask(mask, photos / "mask" / "part_3_1.png")

    export(to="coco", out=tmp_path / "out", photos=photos, normals=normals, defect="stain", group="-1")

    seen = 0
    rows = {row["file"]: row for row in table(tmp_path / "out")}
    for side in ("train", "test"):
        whole = json.loads((tmp_path / "out" / "annotations" / f"instances_{side}.json").read_text())
        assert [(each["id"], each["name"]) for each in whole["categories"]] == [(1, "stain")]
        by_image = defaultdict(list)
        for each in whole["annotations"]:
            by_image[each["image_id"]].append(each)
        for picture in whole["images"]:
            row = rows[f"{side}/{picture['file_name']}"]
            assert (picture["height"], picture["width"], picture["group"]) == (64, 80, row["group"])
            union = np.zeros((64, 80), bool)
            for each in by_image[picture["id"]]:
                piece = decoded(each["segmentation"])
                left, top, width, height = each["bbox"]
                assert piece[top : top + height, left : left + width].sum() == each["area"] == piece.sum()
                assert all(
                    line.any()
                    for window in (piece[top : top + height, left : left + width],)
                    for line in (*window[[0, -1]], *window.T[[0, -1]])
                )
                assert not (union & piece).any()
                union |= piece
            assert np.array_equal(union, mask_in(tmp_path / "out" / row["mask"]) if row["mask"] else np.zeros((64, 80), bool))
            assert len(by_image[picture["id"]]) == (3 if row["source"] == "part_3_1.png" else int(row["label"]))
            seen += len(by_image[picture["id"]])
    assert seen == 8


@pytest.mark.parametrize("mask", [torch.zeros(5, 7), torch.ones(5, 7), torch.eye(5, 7)], ids=["none", "all", "some"])
def test_run_lengths_say_the_mask(mask):
    assert np.array_equal(decoded(rle_of(mask.to(torch.uint8))), mask.numpy() > 0)


def test_yolo_boxes_hold_the_defects_and_normal_pictures_have_an_empty_file(photos, normals, tmp_path):
    export(to="yolo", out=tmp_path / "out", photos=photos, normals=normals, defect="stain", group="-1")

    out = tmp_path / "out"
    data = yaml.safe_load((out / "data.yaml").read_text())
    assert (data["train"], data["val"], data["names"]) == ("images/train", "images/test", {0: "stain"})
    assert (out / "classes.txt").read_text() == "stain\n"
    for row in table(out):
        lines = (out / row["file"].replace("images", "labels", 1)).with_suffix(".txt").read_text().splitlines()
        assert len(lines) == int(row["label"])
        for line in lines:
            number, x, y, width, height = map(float, line.split())
            rows, columns = np.nonzero(mask_in(out / row["mask"]))
            assert number == 0
            assert np.allclose([(x - width / 2) * 80, (x + width / 2) * 80], [columns.min(), columns.max() + 1], atol=1e-3)
            assert np.allclose([(y - height / 2) * 64, (y + height / 2) * 64], [rows.min(), rows.max() + 1], atol=1e-3)


@pytest.mark.parametrize("to", ["mvtec", "csv", "coco", "yolo"])
def test_composed_pictures_differ_from_their_parent_where_the_mask_is_and_a_second_run_writes_the_same(bank_folder, normals, tmp_path, to):
    settings = {"to": to, "bank": bank_folder, "normals": normals, "group": "-1", "count": 8, "seed": 5}
    for name in ("one", "two", "one"):
        export(out=tmp_path / name, **settings)

    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    rows = table(tmp_path / "one")
    made = [row for row in rows if row["defect"]]
    assert len(made) == 8
    assert len({row["seed"] for row in made}) == 8
    for row in made:
        changed = (read_image(tmp_path / "one" / row["file"]) != read_image(normals / row["parent"])).any(0).numpy()
        mask = mask_in(tmp_path / "one" / row["mask"])
        assert changed[mask].mean() > 0.5
        assert changed.sum() < 4 * mask.sum() + 60
    sides = sides_of(rows, "group")
    for donor, where in sides_of(made, "donor").items():
        sides[donor] |= where
    assert all(len(where) == 1 for where in sides.values()), "neither a part nor the defect of a part is on both sides"


def test_rejected_samples_are_left_out_unless_asked_for(tmp_path, capsys):
    manifest = make_samples(tmp_path / "samples", range(6), label="scratch")
    screened(manifest, {0, 1, 4})
    (tmp_path / "samples" / "mask").mkdir()
    mask = torch.zeros(16, 24, dtype=torch.uint8)
    mask[4:8, 5:9] = 1
    for sample in manifest.samples[:5]:
        save_mask(mask, tmp_path / "samples" / "mask" / sample.file)

    export(to="csv", out=tmp_path / "kept", samples=tmp_path / "samples")
    export(to="coco", out=tmp_path / "all", samples=tmp_path / "samples", rejected=True)

    assert [(row["seed"], row["defect"]) for row in table(tmp_path / "kept")] == [(f"{1000 + n}", "scratch") for n in (0, 1, 4)]
    assert [row["seed"] for row in table(tmp_path / "all")] == [f"{1000 + n}" for n in range(5)]
    assert f"left out {manifest.samples[5].file}: it has no mask" in capsys.readouterr().out
    assert picture_text(tmp_path / "kept" / "images" / "000000.png")["parameters"] == "いりこ\nSeed: 1000"


@pytest.mark.parametrize("is_there", [True, False], ids=["the photo is there", "the photo is gone"])
def test_a_sample_stays_with_the_normal_photo_that_it_was_drawn_from(normals, tmp_path, is_there):
    manifest = Manifest(tmp_path / "samples")
    (tmp_path / "samples" / "mask").mkdir()
    if is_there:
        (tmp_path / "copies").mkdir()
    for index, parent in enumerate(sorted(normals.iterdir())):
        named = shutil.copy(parent, tmp_path / "copies" / f"{index}.png") if is_there else parent  # a copy: the pixels say it
        image, mask = flawed(index)
        request = Request(prompt="a stain", seed=index, index=index, size=(64, 80), image=str(named), label="stain")
        save_png(image, tmp_path / "samples" / f"{index}.png")
        save_mask(mask, tmp_path / "samples" / "mask" / f"{index}.png")
        manifest.append(Sample(file=f"{index}.png", request=request, sha256=digest(image)))
    taken = normals if is_there else shutil.move(normals, tmp_path / "moved")

    export(to="csv", out=tmp_path / "out", samples=tmp_path / "samples", normals=Path(taken))

    rows = table(tmp_path / "out")
    normal = {row["source"]: row["split"] for row in rows if row["label"] == "0"}
    names = sorted(normal)
    assert set(normal.values()) == {"train", "test"}
    for row in rows:
        if row["label"] == "1":
            assert row["split"] == normal[names[int(row["source"].removesuffix(".png"))]]


def test_a_type_of_defect_that_a_bank_brings_cannot_leave_the_folder(bank_folder, normals, tmp_path):
    shutil.copytree(bank_folder, tmp_path / "bank")
    path = tmp_path / "bank" / "bank.jsonl"
    path.write_text(path.read_text().replace('"stain"', '"../../stain"'))

    with pytest.raises(SettingError, match="a type of defect becomes a folder"):
        export(to="mvtec", out=tmp_path / "out", bank=tmp_path / "bank", normals=normals)

    assert not (tmp_path / "out").exists()


def test_defects_of_a_bank_stay_on_the_foreground(bank_folder, normals, tmp_path):
    area = torch.zeros(64, 80, dtype=torch.uint8)
    area[:, :40] = 1
    save_mask(area, tmp_path / "object.png")

    export(
        to="csv", out=tmp_path / "out", bank=bank_folder, normals=normals, group="-1", count=6, test=0, foreground=tmp_path / "object.png"
    )  # fmt: skip

    masks = [mask_in(tmp_path / "out" / row["mask"]) for row in table(tmp_path / "out") if row["mask"]]
    assert len(masks) == 6
    assert not any(mask[:, 40:].any() for mask in masks)


def test_a_sample_whose_pixels_have_changed_is_refused(tmp_path):
    manifest = make_samples(tmp_path / "samples", range(3), label="scratch")
    save_png(picture_of(9), tmp_path / "samples" / manifest.samples[1].file)

    with pytest.raises(UnusableFileError, match="its pixels have changed"):
        export(to="csv", out=tmp_path / "out", samples=tmp_path / "samples")


def test_a_sample_outside_its_folder_is_refused(tmp_path):
    make_samples(tmp_path / "samples", range(2), label="scratch")
    path = tmp_path / "samples" / "manifest.jsonl"
    path.write_text(path.read_text().replace('"file": "', '"file": "../'))

    with pytest.raises(UnusableFileError, match="samples lie in their folder"):
        export(to="csv", out=tmp_path / "out", samples=tmp_path / "samples")


def test_masks_that_cannot_be_meant_so_are_left_out_and_named(photos, tmp_path, capsys):
    save_mask(torch.zeros(64, 80, dtype=torch.uint8), photos / "mask" / "part_0_1.png")
    save_mask(1 - flawed(1)[1], photos / "mask" / "part_1_1.png")
    save_mask(flawed(2)[1][:32], photos / "mask" / "part_2_1.png")
    (photos / "mask" / "part_3_1.png").unlink()

    export(to="csv", out=tmp_path / "out", photos=photos)

    told = capsys.readouterr().out
    for sentence in ("part_0_1.png is empty", "it looks inverted", "part_2_1.png is (32, 80)", "part_3_1.png: it has no mask"):
        assert sentence in told
    assert [row["source"] for row in table(tmp_path / "out")] == ["part_4_1.png", "part_5_1.png"]


def test_what_is_linked_through_others_is_not_split_and_both_sides_get_some():
    links = [[f"group {index // 2}", f"pixels {index}"] for index in range(12)]
    links[11].append("pixels 0")

    for seed in range(20):
        sides = split(links, [index % 4 < 2 for index in range(12)], share=0.3, seed=seed, defects_to_test=False)

        assert set(sides) == {"train", "test"}
        assert all(sides[index] == sides[index + 1] for index in range(0, 12, 2))
        assert sides[0] == sides[11]


def test_equal_pictures_under_two_names_go_to_one_side(photos, tmp_path):
    image, mask = flawed(0)
    save_png(image, photos / "zz_copy.png")
    save_mask(mask, photos / "mask" / "zz_copy.png")

    for seed in range(4):
        export(to="csv", out=tmp_path / f"{seed}", photos=photos, seed=seed)

        assert all(len(sides) == 1 for sides in sides_of(table(tmp_path / f"{seed}"), "sha256").values())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"defect": "../up"}, "a type of defect becomes a folder"),
        ({"defect": "good"}, "a type of defect becomes a folder"),
        ({"to": "voc"}, "unknown layout 'voc'; choose one of: coco, csv, mvtec, yolo"),
        ({"test": 1.0}, r"test must be in \[0, 1\), got 1.0"),
        ({"to": "mvtec"}, "none is left for it; give --normals"),
        ({"photos": None}, "give one of photos, samples and bank, got none"),
        ({"photos": None, "bank": "bank"}, "without any; give their folder with --normals"),
        ({"foreground": "object.png"}, "foreground goes with bank, got it with photos"),
        ({"rejected": True}, "rejected goes with samples, got it with photos"),
        ({"group": "1"}, "at least 2 of pictures with defects, got 1"),
    ],
)
def test_what_cannot_be_exported_is_said(photos, tmp_path, settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        export(**{"to": "csv", "out": tmp_path / "out", "photos": photos, **settings})

    assert not (tmp_path / "out").exists()


def test_other_files_are_never_written_over(photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(SettingError, match=r"holds thesis\.txt"):
        export(to="csv", out=tmp_path / "out", photos=photos)

    export(to="csv", out=tmp_path / "own", photos=photos)
    with pytest.raises(SettingError, match="other pictures, or with other settings"):
        export(to="csv", out=tmp_path / "own", photos=photos, seed=1)

    (tmp_path / "own" / "samples.csv").write_text("edited")
    with pytest.raises(SettingError, match=r"samples\.csv is there with other contents"):
        export(to="csv", out=tmp_path / "own", photos=photos)
    assert (tmp_path / "own" / "samples.csv").read_text() == "edited"


def test_a_link_that_leaves_the_folder_is_refused(photos, tmp_path):
    export(to="csv", out=tmp_path / "out", photos=photos)
    (tmp_path / "out" / "images").rename(tmp_path / "elsewhere")
    (tmp_path / "out" / "images").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SettingError, match="would leave"):
        export(to="csv", out=tmp_path / "out", photos=photos)


def test_a_full_disk_is_a_sentence_and_the_same_command_goes_on(photos, tmp_path, monkeypatch):
    export(to="coco", out=tmp_path / "whole", photos=photos)
    save, left = export_folder.save_mask, [3]

    def save_until_full(mask, path):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(mask, path)

    monkeypatch.setattr(export_folder, "save_mask", save_until_full)
    with pytest.raises(OutputError, match=r"could not be written \(No space left on device\); free some space"):
        export(to="coco", out=tmp_path / "out", photos=photos)
    left[0] = 100

    export(to="coco", out=tmp_path / "out", photos=photos)

    assert everything(tmp_path / "out") == everything(tmp_path / "whole")


def test_the_command_says_what_it_wrote(photos, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["export", "--to", "yolo", "--photos", str(photos), "--out", str(tmp_path / "out"), "--test", "0"])

    assert ended.value.code == 0
    assert "     6  train  defect\n6 pictures as yolo in " in capsys.readouterr().out
    assert "val" not in yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
