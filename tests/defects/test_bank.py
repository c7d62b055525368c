from __future__ import annotations

import json
import shutil

import pytest
import torch
from flawed import flawed, paper, write_flawed
from PIL import Image
from sample_folders import make_samples, screened

from synthaug.cli import main
from synthaug.defects import Bank
from synthaug.defects.bank_run import bank
from synthaug.defects.cutout import cut_out
from synthaug.errors import OutputError, PhotoFolderError, SettingError, UnusableFileError
from synthaug.pixels import digest, read_image, save_mask, save_png


def replace_mask(photos, index, mask):
    save_mask(mask, photos / "mask" / f"part_{index}_1.png")


def lines(folder):
    return [json.loads(line) for line in (folder / "bank.jsonl").read_text().splitlines()]


def test_a_cut_out_knows_its_photo_its_place_and_its_type(small_bank, tmp_path):
    photo = small_bank.folder.parent / "photos" / "part_2_1.png"
    image, mask = flawed(2)

    cutout = small_bank[2]

    left, top, right, bottom = cutout.origin.box
    assert torch.equal(cutout.rgba[:3], image[:, top:bottom, left:right])
    assert torch.equal(cutout.mask, mask[top:bottom, left:right])
    assert (cutout.origin.source, cutout.origin.sha256) == (photo.name, digest(read_image(photo)))
    assert (cutout.origin.group, cutout.origin.defect, cutout.origin.size) == ("part_2", "stain", (64, 80))
    assert small_bank.groups == {f"part_{index}" for index in range(5)}
    assert small_bank.kinds == ("stain",)


def test_what_is_pasted_is_the_defect_with_a_soft_rim_that_ends_before_the_border(small_bank):
    for cutout in small_bank:
        alpha = cutout.rgba[3]

        assert (alpha[cutout.mask == 1] == 255).all()
        assert ((alpha > 0) & (alpha < 255)).any()
        assert not torch.cat([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]]).any()


def test_the_rim_of_a_defect_near_the_border_of_its_photo_ends_there():
    mask = torch.zeros(64, 80, dtype=torch.uint8)
    mask[1:9, 30:50] = 1

    [piece] = cut_out(paper(), mask)

    assert not piece.fault
    assert not piece.rgba[3, 0].any()
    assert piece.rgba[3, 9].any()


def test_a_second_run_adds_nothing_and_a_torn_line_is_done_again(tmp_path):
    photos = write_flawed(tmp_path / "photos", 4)
    bank(out=tmp_path / "whole", photos=photos)
    bank(out=tmp_path / "torn", photos=photos)
    path = tmp_path / "torn" / "bank.jsonl"
    whole = path.read_bytes()

    bank(out=tmp_path / "torn", photos=photos)
    assert path.read_bytes() == whole

    path.write_bytes(whole[:-40])
    bank(out=tmp_path / "torn", photos=photos)
    assert path.read_bytes() == whole == (tmp_path / "whole" / "bank.jsonl").read_bytes()


def test_other_photos_are_added_and_the_same_picture_under_another_name_is_not(tmp_path, capsys):
    photos = write_flawed(tmp_path / "photos", 3)
    bank(out=tmp_path / "bank", photos=photos)
    shutil.copy(photos / "part_0_1.png", photos / "again_1.png")
    shutil.copy(photos / "mask" / "part_0_1.png", photos / "mask" / "again_1.png")
    image, mask = flawed(9)
    save_png(image, photos / "new_1.png")
    save_mask(mask, photos / "mask" / "new_1.png")

    bank(out=tmp_path / "bank", photos=photos)

    assert "again_1.png: the same picture as part_0_1.png" in capsys.readouterr().out
    assert [line["source"] for line in lines(tmp_path / "bank")] == ["part_0_1.png", "part_1_1.png", "part_2_1.png", "new_1.png"]


def test_what_is_left_out_is_said_with_the_reason(tmp_path, capsys):
    photos = write_flawed(tmp_path / "photos", 8)
    small, border = (torch.zeros(64, 80, dtype=torch.uint8) for _ in range(2))
    small[30, 30:36], border[0:6, 20:40] = 1, 1
    replace_mask(photos, 0, small)
    replace_mask(photos, 1, border)
    replace_mask(photos, 2, torch.zeros(64, 80, dtype=torch.uint8))
    replace_mask(photos, 3, 1 - flawed(3)[1])
    replace_mask(photos, 4, torch.ones(32, 40, dtype=torch.uint8))
    copied, mask = flawed(6)
    save_png((copied.float() * 0.9).round().to(torch.uint8), photos / "part_7_1.png")
    replace_mask(photos, 7, mask)
    (photos / "mask" / "part_5_1.png").unlink()

    bank(out=tmp_path / "bank", photos=photos)

    told = capsys.readouterr().out
    for sentence in (
        "1 of 8 pictures have no mask",
        "part_0_1.png: too small: 6 pixels, 12 are needed",
        "part_1_1.png: it touches the border of the picture",
        "part_2_1.png: its mask is empty",
        "part_3_1.png: its mask marks 98 % of the picture: it is inverted",
        "part_4_1.png: its mask is 32 x 40 pixels, the picture 64 x 80",
        "part_7_1.png: a near-copy of an earlier cut-out: distance 0.",
        "1 cut-outs, 1 of them new",
        "fewer than 3 defects",
    ):
        assert sentence in told
    assert [len(line["dropped"]) for line in lines(tmp_path / "bank")] == [1, 1, 1, 1, 1, 0, 1]


@pytest.mark.parametrize("mode", ["P", "RGBA", "L"])
def test_masks_of_any_kind_of_picture_are_read(tmp_path, mode):
    photos = write_flawed(tmp_path / "photos", 1)
    mask = Image.fromarray(flawed(0)[1].numpy() * 255)
    if mode == "RGBA":  # the defect is what cannot be seen through
        picture = Image.new("RGBA", mask.size)
        picture.putalpha(mask)
    else:
        picture = mask.convert(mode)
    picture.save(photos / "mask" / "part_0_1.png")

    bank(out=tmp_path / "bank", photos=photos)

    assert torch.equal(Bank(tmp_path / "bank")[0].mask.sum(), flawed(0)[1].sum())


def test_kept_samples_bring_their_lora_seed_and_mask(tmp_path):
    manifest = make_samples(tmp_path / "samples", range(3), picture=lambda index: flawed(index)[0])
    screened(manifest, {0, 2})
    (tmp_path / "masks").mkdir()
    for index, sample in enumerate(manifest.samples):
        save_mask(flawed(index)[1], tmp_path / "masks" / sample.file)

    bank(out=tmp_path / "bank", samples=tmp_path / "samples", masks=tmp_path / "masks")

    assert [cutout.origin.seed for cutout in Bank(tmp_path / "bank")] == [1000, 1002]


def test_a_bank_of_fewer_than_three_defects_is_read_with_a_warning(tmp_path, caplog):
    bank(out=tmp_path / "bank", photos=write_flawed(tmp_path / "photos", 2))

    assert len(Bank(tmp_path / "bank")) == 2
    assert "holds 2 defects; fewer than 3 look alike" in caplog.text


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({}, SettingError, "give either photos or samples"),
        ({"photos": "x", "samples": "x"}, SettingError, "give either photos or samples"),
        ({"photos": "x", "smallest": 0}, SettingError, "smallest must be at least 1, got 0"),
        ({"photos": "x", "defect": " "}, SettingError, "defect must not be empty"),
        ({"photos": "nowhere"}, PhotoFolderError, "there is no folder"),
        ({"samples": "nowhere"}, UnusableFileError, "holds no manifest.jsonl; give the folder"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(tmp_path, settings, error, sentence):
    settings = {key: tmp_path / value if key in ("photos", "samples") else value for key, value in settings.items()}

    with pytest.raises(error, match=sentence):
        bank(out=tmp_path / "bank", **settings)


def test_a_folder_without_any_mask_is_refused_with_what_is_expected(tmp_path):
    save_png(paper(), tmp_path / "a.png")

    with pytest.raises(UnusableFileError, match=r"none of the 1 pictures of .* a mask is a picture of the same name"):
        bank(out=tmp_path / "bank", photos=tmp_path)


def test_a_bank_that_was_begun_otherwise_is_not_mixed(tmp_path):
    photos = write_flawed(tmp_path / "photos", 3)
    bank(out=tmp_path / "bank", photos=photos)

    with pytest.raises(SettingError, match="smallest was 12, now 20"):
        bank(out=tmp_path / "bank", photos=photos, smallest=20)


def test_nothing_usable_at_all_is_an_error(tmp_path):
    photos = write_flawed(tmp_path / "photos", 1)
    replace_mask(photos, 0, torch.ones(64, 80, dtype=torch.uint8))

    with pytest.raises(SettingError, match="no defect could be used"):
        bank(out=tmp_path / "bank", photos=photos)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a\\b.png", 3])
def test_a_name_that_leaves_the_bank_is_refused(tmp_path, name):
    bank(out=tmp_path / "bank", photos=write_flawed(tmp_path / "photos", 3))
    rows = lines(tmp_path / "bank")
    rows[1]["cutouts"][0]["file"] = name
    (tmp_path / "bank" / "bank.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    with pytest.raises(UnusableFileError, match="files of a bank lie in its folder"):
        Bank(tmp_path / "bank")


def test_damaged_files_of_a_bank_are_named(tmp_path):
    bank(out=tmp_path / "bank", photos=write_flawed(tmp_path / "photos", 3))
    [row] = lines(tmp_path / "bank")[0]["cutouts"]
    Image.new("L", (5, 5)).save(tmp_path / "bank" / row["mask"])

    with pytest.raises(UnusableFileError, match="is no mask of"):
        Bank(tmp_path / "bank")
    (tmp_path / "bank" / "bank.jsonl").write_text("nonsense\n")
    with pytest.raises(UnusableFileError, match="line 1 is no picture of a bank"):
        Bank(tmp_path / "bank")


def test_a_bank_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "bank").write_text("a file")

    with pytest.raises(OutputError, match="cannot be made"):
        bank(out=tmp_path / "bank", photos=write_flawed(tmp_path / "photos", 1))


def test_the_command_makes_a_bank(tmp_path, capsys):
    photos = write_flawed(tmp_path / "photos", 3)

    with pytest.raises(SystemExit) as end:
        main(["bank", "--photos", str(photos), "--out", str(tmp_path / "bank"), "--defect", "stain"])

    assert end.value.code == 0
    assert "3 cut-outs, 3 of them new" in capsys.readouterr().out
