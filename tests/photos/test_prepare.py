from __future__ import annotations

import json

import pytest
import torch
from conftest import make_photo
from PIL import Image

from synthaug.errors import OutputError, PhotoFolderError, SettingError
from synthaug.photos import prepare, read_folder
from synthaug.pixels import framed, read_image, read_mask, save_mask


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def listed(folder):
    return json.loads((folder / "photos.json").read_text(encoding="utf-8"))


def test_photos_are_written_framed_and_captioned_and_listed(photo_folder, tmp_path, capsys):
    folder, out = photo_folder(size=(50, 90)), tmp_path / "new" / "out"

    prepare(photos=folder, out=out, size=(24, 40), trigger="いりこ")

    sources = read_folder(folder, trigger="いりこ").photos
    prepared = read_folder(out).photos
    assert [photo.caption for photo in prepared] == ["a photo of いりこ"] * 6
    assert read_image(prepared[2].path).equal(framed(read_image(sources[2].path), (24, 40)))
    assert [entry["sha256"] for entry in listed(out)["photos"]] == [photo.sha256 for photo in prepared]
    assert [entry["source_sha256"] for entry in listed(out)["photos"]] == [photo.sha256 for photo in sources]
    assert "6 photos of 6 groups written" in capsys.readouterr().out


def test_a_second_run_writes_the_same_bytes(photo_folder, tmp_path):
    folder, out = photo_folder(), tmp_path / "out"
    prepare(photos=folder, out=out, size=(16, 16), trigger="x")
    first = contents(out)

    (out / "photo_03.png").unlink()
    prepare(photos=folder, out=out, size=(16, 16), trigger="x")

    assert contents(out) == first
    assert len(first) == 6 + 6 + 1 + 2  # pictures, captions, the list, the report


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_where_and_when_a_photo_was_taken_is_never_copied_on(tmp_path, suffix):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "SECRETPHONE"
    exif.get_ifd(0x8825).update({1: "N", 2: (35.0, 41.0, 22.0)})
    for index in range(5):
        make_photo((20, 36), seed=index).save(folder / f"{index}.{suffix}", exif=exif)
    with Image.open(folder / f"0.{suffix}") as photo:
        assert photo.getexif()[0x010F] == "SECRETPHONE"
        assert suffix == "tif" or photo.getexif().get_ifd(0x8825)[1] == "N"  # Pillow writes no GPS into a TIFF

    prepare(photos=folder, out=out, size=(36, 20), trigger="x")

    with Image.open(out / "0.png") as written:
        assert dict(written.getexif()) == {}
        assert written.info == {}
    assert b"SECRETPHONE" not in b"".join(contents(out).values())
    assert read_image(out / "0.png").equal(read_image(folder / f"0.{suffix}"))  # upright: 36 high


def test_masks_are_framed_like_their_photos(photo_folder, tmp_path):
    folder, out = photo_folder(size=(40, 60)), tmp_path / "out"
    mask = torch.zeros(40, 60, dtype=torch.uint8)
    mask[10:20, 15:30] = 1
    (folder / "mask").mkdir()
    save_mask(mask, folder / "mask" / "photo_01.png")

    prepare(photos=folder, out=out, size=(20, 20), trigger="x")

    expected = torch.zeros(20, 20, dtype=torch.uint8)
    expected[5:10, 3:10] = 1  # 10 columns are cut off on the left, then everything is halved
    assert read_mask(out / "mask" / "photo_01.png").sub(expected).abs().sum() <= 10
    assert [entry["mask"] for entry in listed(out)["photos"]][:3] == [None, "mask/photo_01.png", None]
    assert read_folder(out).photos[1].mask == out / "mask" / "photo_01.png"


def test_a_mask_of_another_size_is_refused_with_both_sizes(photo_folder, tmp_path):
    folder = photo_folder(size=(40, 60))
    (folder / "mask").mkdir()
    save_mask(torch.ones(60, 40, dtype=torch.uint8), folder / "mask" / "photo_01.png")

    with pytest.raises(PhotoFolderError, match=r"as large as its upright photo, .*photo_01\.png is 40 x 60, photo_01\.jpg is 60 x 40"):
        prepare(photos=folder, out=tmp_path / "out", size=(16, 16), trigger="x")


def test_a_damaged_mask_is_refused_by_name(photo_folder, tmp_path):
    folder = photo_folder()
    (folder / "mask").mkdir()
    (folder / "mask" / "photo_02.png").write_bytes(b"no mask")

    with pytest.raises(PhotoFolderError, match=r"the mask of photo_02\.jpg cannot be used: .*mask/photo_02\.png is not a picture"):
        prepare(photos=folder, out=tmp_path / "out", size=(16, 16), trigger="x")


def test_what_was_skipped_is_printed_and_listed(photo_folder, tmp_path, capsys):
    folder, out = photo_folder(), tmp_path / "out"
    (folder / "zzz.jpg").write_text("no photo")

    prepare(photos=folder, out=out, size=(16, 16), trigger="x")

    [entry] = listed(out)["skipped"]
    assert entry["file"] == "zzz.jpg"
    assert "skipped 1 files\n  zzz.jpg: " in capsys.readouterr().out


def test_captions_edited_by_hand_are_kept_and_counted(photo_folder, tmp_path, capsys):
    folder, out = photo_folder(), tmp_path / "out"
    prepare(photos=folder, out=out, size=(16, 16), trigger="x")
    (out / "photo_04.txt").write_text("a fish with a torn belly\nnote to self")

    prepare(photos=folder, out=out, size=(16, 16), trigger="x")

    assert (out / "photo_04.txt").read_text() == "a fish with a torn belly\nnote to self"
    assert read_folder(out).captions[4] == listed(out)["photos"][4]["caption"] == "a fish with a torn belly"
    assert "kept 1 captions that were already there, such as that of photo_04.png" in capsys.readouterr().out


def test_two_photos_with_one_stem_get_two_files(photo_folder, tmp_path):
    folder, out = photo_folder(), tmp_path / "out"
    make_photo(seed=99).save(folder / "photo_00.bmp")

    prepare(photos=folder, out=out, size=(16, 16), trigger="x")

    assert len(read_folder(out).photos) == 7
    assert {"photo_00.jpg.png", "photo_00.bmp.png", "photo_01.png"} <= {path.name for path in out.iterdir()}


def test_the_folder_of_the_photos_is_not_written_to(photo_folder):
    folder = photo_folder()
    before = contents(folder)

    with pytest.raises(SettingError, match="the prepared photos need a folder of their own"):
        prepare(photos=folder, out=folder / ".." / folder.name, trigger="x")

    assert contents(folder) == before


def test_pictures_that_would_be_learned_unawares_are_named(photo_folder, tmp_path):
    folder, out = photo_folder(), tmp_path / "out"
    prepare(photos=folder, out=out, size=(16, 16), trigger="x")
    (folder / "photo_05.jpg").unlink()

    with pytest.raises(SettingError, match=r"would be learned, too: photo_05\.png; remove them or give another folder"):
        prepare(photos=folder, out=out, size=(16, 16), trigger="x")


def test_a_size_of_nothing_is_refused(photo_folder, tmp_path):
    with pytest.raises(SettingError, match=r"size must be height and width of at least 8 pixels, got \(0, 64\)"):
        prepare(photos=photo_folder(), out=tmp_path / "out", size=(0, 64), trigger="x")


def test_a_full_disk_is_said_in_a_sentence(photo_folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    folder = photo_folder()
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match=r"photo_00\.png could not be written \(No space left on device\); free some space"):
        prepare(photos=folder, out=tmp_path / "out", size=(16, 16), trigger="x")


def test_a_place_that_cannot_be_a_folder_is_said_in_a_sentence(photo_folder, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match=r"the folder .*file cannot be made"):
        prepare(photos=photo_folder(), out=tmp_path / "file", size=(16, 16), trigger="x")
