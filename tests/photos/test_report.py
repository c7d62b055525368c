from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from conftest import make_photo
from PIL import Image, ImageFilter
from still_life import still_life

from synthaug.errors import PhotoFolderError, SettingError
from synthaug.photos import read_folder
from synthaug.photos.report import report_on
from synthaug.pixels import read_image, save_png


@pytest.fixture
def still_lives(tmp_path):
    folder = tmp_path / "still"
    folder.mkdir()
    for index in range(5):
        save_png(still_life((90, 120), seed=index, shift=(4, 7 + index)).picture, folder / f"{index}.png")
    return folder


def test_what_all_photos_have_in_common_is_said(still_lives):
    said = " | ".join(report_on(still_lives, (90, 120)).sentences())

    assert "only 5 photos can be used; 20 are better" in said
    assert "in 5 of 5 photos the thing throws a shadow that takes " in said
    assert "most often to the lower right" in said or "most often to the right" in said
    assert "in 5 of 5 photos the background is light grey, 8" in said


def test_near_copies_are_found_in_other_light_mirrored_turned_and_saved_again(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    make_photo((60, 80), seed=1).save(folder / "a.png")
    make_photo((60, 80), seed=1).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "b.png")
    make_photo((60, 80), seed=1).rotate(90, expand=True).save(folder / "c.jpg", quality=60)
    make_photo((60, 80), seed=1).point(lambda value: int(value * 0.8)).save(folder / "d.png")
    make_photo((60, 80), seed=4).save(folder / "e.png")
    make_photo((60, 80), seed=1).save(folder / "f.webp", lossless=True)

    said = report_on(folder, (48, 48)).sentences()

    assert "1 photo is the same as another one: f.webp = a.png" in said
    assert "3 photos are nearly the same as another one, perhaps turned or mirrored: b.png = a.png, c.jpg = a.png, d.png = a.png" in said


def test_blur_of_all_photos_is_seen_without_a_sharp_one(photo_folder):
    folder = photo_folder(6, size=(120, 160))
    for path in folder.iterdir():
        Image.open(path).filter(ImageFilter.GaussianBlur(4)).save(path)

    said = report_on(folder, (120, 160)).sentences()

    assert any(sentence.startswith("6 photos are blurred at this size, blur above 0.5 of 1: photo_00.jpg") for sentence in said)


def test_what_a_file_says_is_reported_and_what_cannot_be_read_is_counted(photo_folder):
    folder = photo_folder(6)
    exif = Image.Exif()
    exif[0x0112] = 8
    exif.get_ifd(0x8825).update({1: "N", 2: (35.0, 41.0, 22.0)})
    make_photo(seed=1).save(folder / "photo_01.jpg", exif=exif)
    make_photo(seed=2).convert("CMYK").save(folder / "photo_02.jpg")
    (folder / "photo_03.jpg").write_bytes((folder / "photo_04.jpg").read_bytes()[:400])

    report = report_on(folder, (48, 64))

    said = report.sentences()
    assert said[0] == "1 file cannot be used: photo_03.jpg"
    assert "1 photo is turned upright by its EXIF, which some other tools ignore: photo_01.jpg" in said
    assert "1 photo is marked with the place where it was taken, which is left behind: photo_01.jpg" in said
    assert "1 photo is in colours other than sRGB and was converted: photo_02.jpg" in said
    table = report.table().splitlines()
    assert table[2].split("  ")[-1].strip() == "EXIF orientation 8, place"
    assert table[-1].split() == ["photo_03.jpg", "cannot", "be", "used"]


def test_light_that_is_lost_is_named(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, value in (("burnt.png", 255), ("black.png", 0)):
        picture = still_life((60, 80)).picture
        picture[:, :20] = value
        save_png(picture, folder / name)

    said = report_on(folder, (60, 80)).sentences()

    assert "1 photo is pure black over more than 5% of the picture: black.png" in said
    assert "1 photo is burnt out to pure white over more than 5% of the picture: burnt.png" in said


def test_a_report_is_plain_data_with_a_verdict_for_each_photo(still_lives, tmp_path):
    report = report_on(read_folder(still_lives, caption="a photo"), (120, 90))

    content = json.loads(json.dumps(report.to_json()))

    assert content["size"] == [120, 90]
    assert content["sentences"] == report.sentences()
    assert content["photos"][0]["name"] == "0.png"
    assert content["photos"][0]["verdict"] == ["smaller than 120 x 90 and was magnified"]
    assert content["photos"][0]["scene"]["background"]


def test_the_sheet_shows_every_photo_framed_by_its_verdict(still_lives, tmp_path):
    (still_lives / "5.jpg").write_text("no photo")
    report = report_on(still_lives, (90, 120))

    report.write_sheet(tmp_path / "one.png")
    report.write_sheet(tmp_path / "two.png")

    sheet = read_image(tmp_path / "one.png")
    assert torch.equal(sheet, read_image(tmp_path / "two.png"))
    assert sheet[:, 30, 10].tolist() == [30, 140, 60]  # the corner of the first photo's frame is green
    assert sheet[:, 300, 196].tolist() == [190, 90, 0]  # that of the file that cannot be used, second in the second row, is not


def test_no_folder_no_photo_and_no_size_are_refused(tmp_path):
    with pytest.raises(PhotoFolderError, match="there is no folder"):
        report_on(tmp_path / "nowhere")
    with pytest.raises(PhotoFolderError, match="holds no photo"):
        report_on(tmp_path)
    with pytest.raises(SettingError, match=r"size must be height and width of at least 8 pixels, got \(4, 64\)"):
        report_on(tmp_path, (4, 64))


@pytest.mark.skipif("SYNTHAUG_DATA" not in os.environ, reason="needs the real photos: SYNTHAUG_DATA")
def test_odd_photos_are_reported_as_what_they_are():
    said = " | ".join(report_on(Path(os.environ["SYNTHAUG_DATA"]) / "odd_photos", (128, 128)).sentences())

    assert "1 file cannot be used: elephants_truncated_file.jpg" in said
    assert "7 photos are turned upright by their EXIF" in said
    assert "2 photos are in colours other than sRGB and were converted: elephants_bw.jpg, elephants_cmyk.jpg" in said
    assert "8 photos are nearly the same as another one" in said
    assert "throws a shadow" not in said
