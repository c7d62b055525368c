from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from worlds import pictures, scene, scene_folders

from synthaug import evaluate_gain
from synthaug.cli import main
from synthaug.errors import OutputError, PhotoFolderError, SettingError, UnusableFileError
from synthaug.evaluation.pictures import read_photos, read_synthetic
from synthaug.evaluation.run import evaluate
from synthaug.manifest import Manifest
from synthaug.photos import read_folder
from synthaug.pixels import digest, framed, read_image, save_png
from synthaug.records import Request, Sample, Verdict


def world(side: int = 24) -> dict[str, torch.Tensor]:
    """Many good pictures; the two real defects have their spot in one corner, those of the test anywhere."""
    return {
        "good": pictures(30, seed=0, side=side), "defect": pictures(2, seed=1, spot=True, corner=True, side=side),
        "test_good": pictures(40, seed=2, side=side), "test_defect": pictures(40, seed=3, spot=True, side=side),
    }  # fmt: skip


def small(**more):
    """The least that is evaluated: four pictures of each kind, one step."""
    kinds = {"good": 0, "defect": 1, "test_good": 2, "test_defect": 3, "synthetic": 4}
    return {**{kind: pictures(4, seed=10 + seed) for kind, seed in kinds.items()}, "steps": 1, "side": 16, **more}


def drawn_folder(folder: Path, verdicts: list[Verdict | None]) -> Path:
    """Images with a manifest, screened as told."""
    manifest = Manifest(folder)
    judged = []
    for index, verdict in enumerate(verdicts):
        picture = pictures(1, seed=100 + index)[0]
        save_png(picture, folder / f"{index}.png")
        sample = Sample(file=f"{index}.png", request=Request(prompt="x", seed=index, index=index), sha256=digest(picture))
        manifest.append(sample)
        if verdict is not None:
            judged.append((sample, verdict))
    if judged:
        manifest.judge(judged)
    return folder


def test_synthetic_defects_of_the_right_kind_help_and_it_is_said():
    gain = evaluate_gain(**world(side=20), synthetic=pictures(40, seed=4, spot=True, side=20), steps=30, side=20)

    assert gain.verdict == "helped"
    assert gain.real.means[0] > 0.5
    assert gain.mixed.means[0] > 0.97
    assert "the synthetic images helped." in gain.sentence


@pytest.mark.slow
def test_synthetic_images_of_nothing_but_noise_are_not_said_to_help():
    noise = torch.randint(0, 255, (40, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))

    gain = evaluate_gain(**world(), synthetic=noise, steps=60, side=24)

    assert gain.verdict != "helped"


@pytest.mark.slow
def test_good_pictures_sold_as_defects_are_not_said_to_help():
    gain = evaluate_gain(**world(), synthetic=pictures(40, seed=5), steps=60, side=24)

    assert gain.verdict != "helped"


def test_equal_arguments_give_equal_figures():
    first, again = (evaluate_gain(**small()).to_json() for _ in range(2))

    assert first == again


def test_the_first_arm_does_not_see_the_synthetic_images():
    one, other = (evaluate_gain(**small(synthetic=pictures(7, seed=seed), steps=3)) for seed in (20, 21))

    assert one.real == other.real
    assert one.mixed != other.mixed


def test_synthetic_images_count_as_what_they_show():
    defects, goods = (evaluate_gain(**small(shows=shows, steps=3)) for shows in ("defect", "good"))

    assert defects.real == goods.real
    assert defects.mixed != goods.mixed


def test_a_line_is_told_after_every_seed():
    lines = []

    gain = evaluate_gain(**small(seeds=6), tell=lines.append)

    assert [line.split(":")[0] for line in lines] == [f"seed {seed}" for seed in range(6)]
    assert f"AUROC {gain.real.auroc[5]:.3f} on real photos alone, {gain.mixed.auroc[5]:.3f} with" in lines[5]


def test_fewer_than_five_seeds_are_refused():
    with pytest.raises(SettingError, match="at least 5 seeds are needed for an interval that means something, got 4"):
        evaluate_gain(**small(seeds=4))


def test_a_tensor_of_floats_is_refused():
    with pytest.raises(SettingError, match=r"defect training pictures must be uint8 \(N, 3, H, W\) .* got torch.float32 \(2, 3, 16, 16\)"):
        evaluate_gain(**small(defect=torch.zeros(2, 3, 16, 16)))


def test_no_photos_at_all_are_refused():
    with pytest.raises(SettingError, match="at least 1 good test photo is needed, got none"):
        evaluate_gain(**small(test_good=()))


def test_photos_and_their_folder_give_the_same_pictures(photo_folder):
    folder = photo_folder(3, size=(30, 46))

    from_folder, from_photos = (
        read_photos(source, "good test", side=20) for source in (folder, read_folder(folder, trigger="iriko", fewest=1).photos)
    )

    assert torch.equal(from_folder.images, from_photos.images)
    assert torch.equal(from_folder.images[1], framed(read_image(folder / "photo_01.jpg"), (20, 20)))
    assert from_folder.hashes == from_photos.hashes


def test_photos_that_cannot_be_read_are_counted_in_the_sentence(photo_folder):
    folder = photo_folder(3, name="with a broken one")
    (folder / "broken.jpg").write_text("not a picture")

    gain = evaluate_gain(**small(good=folder))

    assert gain.counts["good training"] == 3
    assert "1 good training files could not be read and were left out." in gain.sentence


def test_only_images_that_screening_kept_are_used(tmp_path):
    folder = drawn_folder(tmp_path / "drawn", [Verdict(keep=True), Verdict(keep=False, reason="odd"), None, Verdict(keep=True)])

    found = read_synthetic(folder, side=16)

    assert [Path(name).name for name in found.names] == ["0.png", "3.png"]
    assert torch.equal(found.images[1], framed(pictures(1, seed=103)[0], (16, 16)))


@pytest.mark.parametrize(
    ("verdicts", "said"), [([None, None], "holds 2, 0 of them screened, none kept"), ([Verdict(keep=False)], "holds 1, 1 of them screened")]
)
def test_images_that_were_not_screened_or_not_kept_are_refused(tmp_path, verdicts, said):
    with pytest.raises(SettingError, match=f"{said}.*; draw some with synthaug generate and screen them with synthaug curate"):
        evaluate_gain(**small(synthetic=drawn_folder(tmp_path / "drawn", verdicts)))


def test_an_empty_synthetic_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(PhotoFolderError, match="empty holds no photo"):
        evaluate_gain(**small(synthetic=tmp_path / "empty"))


def test_a_synthetic_folder_that_is_not_there_is_refused_and_not_made(tmp_path):
    with pytest.raises(PhotoFolderError, match=r"there is no folder .*nowhere"):
        evaluate_gain(**small(synthetic=tmp_path / "nowhere"))

    assert not (tmp_path / "nowhere").exists()


def test_an_image_that_the_manifest_names_but_is_gone_is_refused(tmp_path):
    folder = drawn_folder(tmp_path / "drawn", [Verdict(keep=True)])
    (folder / "0.png").unlink()

    with pytest.raises(UnusableFileError, match=r"there is no file .*0\.png"):
        evaluate_gain(**small(synthetic=folder))


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    return scene_folders(tmp_path)


def test_the_command_prints_progress_table_and_sentence_and_writes_json(folders, tmp_path, capsys):
    options = [f"--{kind}={folder}" for kind, folder in folders.items()]

    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", *options, "--steps=1", "--side=16", f"--out={tmp_path / 'new' / 'gain.json'}"])

    printed = capsys.readouterr().out
    data = json.loads((tmp_path / "new" / "gain.json").read_text(encoding="utf-8"))
    assert printed.startswith("seed 0: AUROC ")
    assert data["sentence"] in printed
    assert "10 detectors in" in printed
    assert data["counts"] == {"good training": 4, "defect training": 4, "synthetic": 4, "good test": 4, "defect test": 4}


def test_the_command_refuses_a_leak_in_one_sentence(folders, capsys):
    scene(1002).save(folders["test_good"] / "again.png")

    with pytest.raises(SystemExit, match="1"):
        main(["evaluate", *(f"--{kind}={folder}" for kind, folder in folders.items())])

    assert capsys.readouterr().err.startswith("synthaug evaluate: a test photo must be new to the generator and the detector, 1 of 5")


def test_a_json_file_that_cannot_be_written_is_said_after_the_figures(folders, tmp_path, capsys):
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match=r"gain\.json could not be written"):
        evaluate(**folders, steps=1, side=16, out=tmp_path / "file" / "gain.json")

    assert "no difference can be claimed." in capsys.readouterr().out
