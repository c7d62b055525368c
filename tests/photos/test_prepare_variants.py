from __future__ import annotations

import json

import pytest
import torch
from still_life import still_life

from synthaug.errors import PhotoFolderError, SettingError
from synthaug.photos import prepare, read_folder
from synthaug.photos.foreground import find_foreground
from synthaug.photos.shadows import cast_shadow
from synthaug.pixels import read_image, read_mask, save_mask, save_png

SIZE = (90, 120)


@pytest.fixture
def still_lives(tmp_path):
    folder = tmp_path / "still"
    (folder / "mask").mkdir(parents=True)
    for index in range(5):
        photo = still_life(SIZE, seed=index, shift=(4, 7))
        save_png(photo.picture, folder / f"{index}.png")
    mask = torch.zeros(SIZE, dtype=torch.uint8)
    mask[42:48, 50:60] = 1
    save_mask(mask, folder / "mask" / "1.png")
    return folder


def listed(out):
    return json.loads((out / "photos.json").read_text(encoding="utf-8"))["photos"]


def test_each_photo_is_written_on_several_backgrounds_with_mask_and_caption(still_lives, tmp_path, capsys):
    out = tmp_path / "out"
    words = "a photo of {trigger} on a {background} background"

    prepare(photos=still_lives, out=out, size=SIZE, caption=words, trigger="x", background="blue,own", variants=2, save_mattes=True)

    photos = read_folder(out, group="-1").photos
    assert [photo.path.name for photo in photos[:3]] == ["0_v1.png", "0_v2.png", "1_v1.png"]
    assert {photo.caption for photo in photos[:2]} == {"a photo of x on a blue background", "a photo of x on a light grey background"}
    assert {photo.group for photo in photos} == {"0", "1", "2", "3", "4"}
    assert [photo.mask is not None for photo in photos[:6]] == [False, False, True, True, False, False]
    assert torch.equal(read_mask(out / "mask" / "1_v2.png"), read_mask(still_lives / "mask" / "1.png"))
    blue = next(entry for entry in listed(out) if entry["background"] == "blue")
    assert read_image(out / blue["file"])[:, 5, 5].tolist() == pytest.approx([52, 96, 170], abs=12)
    assert read_image(out / "matte" / "0_v1.png").float().mean() / 255 == pytest.approx(0.12, abs=0.02)
    assert "5 photos of 5 groups written to" in (said := capsys.readouterr().out)
    assert "photos.json beside the pictures keeps variants of one photo together" in said
    assert "group rule -" not in said


def test_variants_of_one_photo_share_its_group_without_a_rule(still_lives, tmp_path):
    out = tmp_path / "out"
    prepare(photos=still_lives, out=out, size=SIZE, trigger="x", background="blue,red,own", variants=3)
    save_png(read_image(out / "0_v1.png"), out / "later_v1.png")
    save_png(read_image(out / "0_v2.png"), out / "later_v2.png")

    groups = {photo.path.name: photo.group for photo in read_folder(out, trigger="x").photos}

    assert [groups[f"{index}_v{variant}.png"] for index in range(5) for variant in (1, 2, 3)] == [
        str(i) for i in range(5) for _ in range(3)
    ]
    assert (groups["later_v1.png"], groups["later_v2.png"]) == ("later_v1", "later_v2")
    assert {photo.group for photo in read_folder(out, trigger="x", group="-2").photos} >= {"0_v1", "0_v2"}


def test_a_second_run_writes_the_same_bytes(still_lives, tmp_path):
    for out in (tmp_path / "one", tmp_path / "two"):
        prepare(photos=still_lives, out=out, size=SIZE, trigger="x", background="red,teal,white", variants=3, shadows=0.5)

    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 15 + 15 + 3 + 3
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_shadows_are_lightened_on_their_own_paper(still_lives, tmp_path, capsys):
    prepare(photos=still_lives, out=tmp_path / "out", size=SIZE, trigger="x", shadows=1.0)

    before, after = (read_image(folder / "0.png") for folder in (still_lives, tmp_path / "out"))
    assert cast_shadow(before, find_foreground(before)).strength > 0.2
    assert cast_shadow(after, find_foreground(after)).strength < 0.1
    assert "--shadows 1 takes it away" not in capsys.readouterr().out


def test_a_photo_whose_thing_is_in_doubt_keeps_its_background_and_is_named(still_lives, tmp_path, capsys):
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, 9, 12), dtype=torch.uint8, generator=random).repeat_interleave(10, 1).repeat_interleave(10, 2)
    save_png(noise, still_lives / "noise.png")
    out = tmp_path / "out"

    prepare(photos=still_lives, out=out, size=SIZE, trigger="x", background="blue", variants=2)

    assert torch.equal(read_image(out / "noise_v1.png"), noise)
    assert not (out / "noise_v2.png").exists()
    assert [entry["background"] for entry in listed(out)][-1] == "mixed"
    said = capsys.readouterr().out
    assert "warning: background and shadow of 1 of 6 photos were left alone" in said
    assert "because what stands out fills more than 90% of the photo: noise_v1.png" in said


def test_nothing_is_pretended_when_every_photo_is_in_doubt(tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for index in range(5):
        save_png(torch.full((3, 40, 50), 200 + index, dtype=torch.uint8), folder / f"{index}.png")

    with pytest.raises(SettingError, match=r"no photo shows a thing .*less than 1% of the photo\), so all were written as they are"):
        prepare(photos=folder, out=out, size=(40, 48), trigger="x", background="blue")
    assert torch.equal(read_image(out / "2.png"), torch.full((3, 40, 48), 202, dtype=torch.uint8))


def test_what_stands_out_must_be_more_than_the_marked_defect(still_lives, tmp_path, capsys):
    save_mask(still_life(SIZE).thing.to(torch.uint8), still_lives / "mask" / "0.png")

    prepare(photos=still_lives, out=tmp_path / "out", size=SIZE, trigger="x", shadows=1.0)

    assert "because what stands out is the marked defect, not a thing that it is on: 0.png" in capsys.readouterr().out


def test_a_marked_defect_beside_the_thing_is_kept_and_named(still_lives, tmp_path, capsys):
    mask = torch.zeros(SIZE, dtype=torch.uint8)
    mask[5:12, 5:20] = 1
    save_mask(mask, still_lives / "mask" / "2.png")
    before = read_image(still_lives / "2.png")

    prepare(photos=still_lives, out=tmp_path / "out", size=SIZE, trigger="x", background="navy")

    assert torch.equal(read_image(tmp_path / "out" / "2.png")[:, 6:11, 6:19], before[:, 6:11, 6:19])
    assert "much of the marked defect lies off the thing that was found in 1 photos, such as 2.png" in capsys.readouterr().out


def test_a_report_alone_writes_nothing_or_only_itself(still_lives, tmp_path, capsys):
    prepare(photos=still_lives, report_only=True, size=SIZE)
    said = capsys.readouterr().out
    prepare(photos=still_lives, report_only=True, size=SIZE, out=tmp_path / "out")

    assert said.startswith("photo  height x width  light  blur  background")
    assert "the thing throws a shadow" in said
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["report.json", "sheet.png"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"shadows": 1.5}, "shadows must be from 0 to 1; 1 takes the shadow away, got 1.5"),
        ({"variants": 0}, "variants must be at least 1, got 0"),
        ({"variants": 3}, "more than 1 of variants needs a background to vary, .* got 3"),
        ({"background": "blu"}, "one of: white, light grey, .*; got 'blu'"),
        ({"out": None}, "need a folder to be written to; give --out, or --report_only true"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(still_lives, tmp_path, settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        prepare(**{"photos": still_lives, "out": tmp_path / "out", "trigger": "x"} | settings)


def test_a_folder_of_backgrounds_without_pictures_is_refused(still_lives, tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(PhotoFolderError, match=r"the background folder .*empty holds no picture"):
        prepare(photos=still_lives, out=tmp_path / "out", trigger="x", background=str(tmp_path / "empty"))
