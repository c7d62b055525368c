from __future__ import annotations

import json

import pytest
import torch
from pictures import many_photos, strangers

from synthaug.cli import main
from synthaug.curation import curate
from synthaug.errors import OutputError, PhotoFolderError, UnusableFileError
from synthaug.manifest import Manifest
from synthaug.pixels import digest, read_image, save_png
from synthaug.records import Request, Sample


def drawn(folder, pictures):
    """A folder as synthaug generate leaves it."""
    manifest = Manifest(folder)
    for index, picture in enumerate(pictures):
        request = Request(prompt="a fish", seed=index, index=index, size=tuple(picture.shape[1:]))
        name = f"{index:06d}-{request.digest}.png"
        save_png(picture, folder / name)
        manifest.append(Sample(file=name, request=request, sha256=digest(picture)))
    return folder


@pytest.fixture
def photos(photo_folder):
    return photo_folder(12, suffix=".png", size=(40, 56))


def verdicts(folder):
    return [sample.verdict for sample in Manifest(folder).samples]


def heads(folder):
    return [verdict.reason.split(":")[0] for verdict in verdicts(folder)]


def test_samples_are_judged_and_shown_and_counted(tmp_path, photos, capsys):
    copy, new = many_photos(1)[0], many_photos(5, first=50)
    samples = drawn(tmp_path / "samples", [*new, new[2].flip(2), copy, *strangers(2)])

    curate(samples=samples, photos=photos, keep=1.0, report=tmp_path / "report.json")

    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "report.json").read_text())
    assert heads(samples) == [
        "",
        "",
        "",
        "",
        "",
        f"repeat of sample {Manifest(samples).samples[2].file[:-4]}",
        "copy of photo photo_00.png",
        "odd",
        "odd",
    ]
    assert "kept 5 of 9 images" in printed
    assert "rejected     2  odd\n" in printed
    assert f"distance ratio {found['distance_ratio']:.2f}" in printed
    assert found["rejected"] == {"odd": 2, "copy of a photo": 1, "repeat of another sample": 1}
    assert (found["kept"], found["images"], found["photos"], found["copy_share"]) == (5, 9, 12, round(1 / 9, 4))
    assert read_image(samples / "sheet.png").shape[0] == 3


def test_a_second_run_gives_the_same_bytes(tmp_path, photos):
    samples = drawn(tmp_path / "samples", [*many_photos(4, first=50), *strangers(2)])
    runs = []
    for _ in range(2):
        curate(samples=samples, photos=photos, report=tmp_path / "report.json")
        runs.append([path.read_bytes() for path in (samples / "verdicts.jsonl", samples / "sheet.png", tmp_path / "report.json")])

    assert runs[0] == runs[1]


def test_the_share_to_keep_and_the_limits_are_obeyed(tmp_path, photos):
    samples = drawn(tmp_path / "samples", many_photos(10, first=50))

    curate(samples=samples, photos=photos, keep=0.3)
    assert sum(verdict.keep for verdict in verdicts(samples)) == 3
    curate(samples=samples, photos=photos, keep=1.0, farthest=100.0, copy=0.0)
    assert all(verdict.keep for verdict in verdicts(samples))
    curate(samples=samples, photos=photos, keep=1.0, farthest=0.34)
    assert "odd" in heads(samples)


@pytest.mark.parametrize("harm", ["missing", "torn", "text", "other pixels"])
def test_a_damaged_sample_is_named_and_rejected_not_an_error(tmp_path, photos, capsys, harm):
    samples = drawn(tmp_path / "samples", many_photos(3, first=50))
    path = samples / Manifest(samples).samples[1].file
    if harm == "missing":
        path.unlink()
    elif harm == "other pixels":
        save_png(many_photos(1, first=80)[0], path)
    else:
        path.write_bytes(path.read_bytes()[:500] if harm == "torn" else b"hello")

    curate(samples=samples, photos=photos, keep=1.0)

    assert heads(samples) == ["", "damaged file", ""]
    assert f"{path.name}: damaged file: " in capsys.readouterr().out


def test_nothing_but_damaged_samples_is_still_a_verdict(tmp_path, photos, capsys):
    samples = drawn(tmp_path / "samples", many_photos(2, first=50))
    for sample in Manifest(samples).samples:
        (samples / sample.file).unlink()

    curate(samples=samples, photos=photos, report=tmp_path / "report.json")

    assert heads(samples) == ["damaged file"] * 2
    assert "no image could be read" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text()) == {"kept": 0, "rejected": {"damaged file": 2}}


def test_when_nothing_is_kept_the_way_out_is_said(tmp_path, photos, capsys):
    curate(samples=drawn(tmp_path / "samples", strangers(3)), photos=photos)

    assert "nothing was kept: look at the contact sheet, then train longer" in capsys.readouterr().out


def test_samples_may_be_smaller_or_larger_than_photos_and_of_several_sizes(tmp_path, photos):
    large = torch.nn.functional.interpolate(many_photos(3, first=50).float(), (80, 112), mode="bilinear").to(torch.uint8)
    samples = drawn(tmp_path / "samples", [*large, *many_photos(1, first=60), *many_photos(1, first=61, size=(24, 64))])

    curate(samples=samples, photos=photos, keep=1.0)

    assert heads(samples)[:4] == [""] * 4
    assert verdicts(samples)[4] is not None


def test_a_photo_twice_does_not_make_everything_odd(tmp_path, photos):
    for path in list(photos.iterdir()):
        (photos / f"again_{path.name}").write_bytes(path.read_bytes())
    samples = drawn(tmp_path / "samples", many_photos(5, first=50))

    curate(samples=samples, photos=photos, keep=1.0)

    assert heads(samples) == [""] * 5


def test_a_folder_without_samples_is_refused_and_left_alone(tmp_path, photos):
    with pytest.raises(UnusableFileError, match=r"there is no folder .*nowhere; give the folder that synthaug generate made"):
        curate(samples=tmp_path / "nowhere", photos=photos)
    with pytest.raises(UnusableFileError, match=r"holds no manifest\.jsonl with images; give the folder that synthaug generate made"):
        curate(samples=photos, photos=photos)

    assert not (tmp_path / "nowhere").exists()


def test_too_few_photos_are_refused(tmp_path, photo_folder):
    samples = drawn(tmp_path / "samples", many_photos(2))

    with pytest.raises(PhotoFolderError, match="at least 5 usable photos are needed"):
        curate(samples=samples, photos=photo_folder(4))


def test_a_report_that_cannot_be_written_is_said_in_a_sentence(tmp_path, photos):
    samples = drawn(tmp_path / "samples", many_photos(2, first=50))

    with pytest.raises(OutputError, match=r"no/report\.json could not be written"):
        curate(samples=samples, photos=photos, report=tmp_path / "no" / "report.json")


def test_the_command_line_ends_well_and_badly(tmp_path, photos, capsys):
    samples = drawn(tmp_path / "samples", many_photos(3, first=50))

    with pytest.raises(SystemExit, match="0"):
        main(["curate", "--samples", str(samples), "--photos", str(photos), "--keep", "1"])
    with pytest.raises(SystemExit, match="1"):
        main(["curate", "--samples", str(samples), "--photos", str(tmp_path / "none")])

    assert capsys.readouterr().err.startswith("synthaug curate: there is no folder ")
