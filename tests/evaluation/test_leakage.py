from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from worlds import scene, scene_folders

from synthaug.errors import SettingError, UnusableFileError
from synthaug.evaluation.gain import evaluate_gain
from synthaug.evaluation.leakage import seen_by
from synthaug.evaluation.pictures import read_synthetic
from synthaug.manifest import Manifest
from synthaug.pixels import digest, read_image, save_png
from synthaug.records import LoraUse, Request, Sample, Verdict


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    """Four photos in every folder, all different."""
    return scene_folders(tmp_path)


def lora_that_saw(path: Path, photos: object) -> Path:
    save_file({"x.lora_down.weight": torch.zeros(1, 1)}, path, {"synthaug.photos": json.dumps(photos)})
    return path


def evaluate(folders, **more):
    return evaluate_gain(**{"steps": 1, "side": 16, **folders, **more})


def test_folders_with_nothing_in_common_are_evaluated(folders):
    assert evaluate(folders).cautions == ()


def test_a_test_photo_that_the_lora_has_seen_is_refused_by_name(folders, tmp_path):
    photo = folders["test_defect"] / "photo-02.png"
    lora = lora_that_saw(tmp_path / "iriko.safetensors", [{"sha256": digest(read_image(photo)), "group": "x"}])

    with pytest.raises(
        SettingError, match=r"1 of 4 defect test photos are not: .*photo-02\.png \(the LoRA iriko.* was trained on it\); take them out"
    ):
        evaluate(folders, lora=lora)


def test_the_pixels_are_recognised_under_another_name_and_in_another_format(folders, tmp_path):
    photo = folders["test_good"] / "photo-01.png"
    lora = lora_that_saw(tmp_path / "iriko.safetensors", [{"sha256": digest(read_image(photo)), "group": "x"}])
    save_png(read_image(photo), folders["test_good"] / "renamed.png")
    photo.unlink()

    with pytest.raises(SettingError, match=r"renamed\.png \(the LoRA"):
        evaluate(folders, lora=[lora])


def test_a_mirrored_and_compressed_training_photo_is_refused(folders):
    scene(2001).transpose(0).save(folders["test_defect"] / "other.jpg", quality=70)

    with pytest.raises(SettingError, match=r"other\.jpg \(it is nearly the same picture as .*photo-01\.png\)"):
        evaluate(folders)


def test_a_synthetic_image_that_repeats_a_test_photo_is_refused(folders):
    scene(3000).transpose(1).save(folders["synthetic"] / "drawn.png")

    with pytest.raises(SettingError, match=r"test_good/photo-00\.png \(it is nearly the same picture as .*drawn\.png\)"):
        evaluate(folders)


def test_the_same_photo_for_training_and_test_is_refused_and_only_three_are_named(folders):
    with pytest.raises(
        SettingError, match=r"4 of 4 good test photos .*it is the good training picture .*photo-02\.png\); and 1 more; take"
    ):
        evaluate({**folders, "test_good": folders["good"]})


def test_a_photo_of_a_part_that_was_trained_on_is_refused_by_its_group(folders):
    scene(77).save(folders["defect"] / "sheet7_a.png")
    scene(78).save(folders["test_defect"] / "sheet7_b.png")

    with pytest.raises(SettingError, match=r"sheet7_b\.png \(group 'sheet7': .*sheet7_a\.png is a photo of the same group\)"):
        evaluate(folders, group="-1")


def test_a_photo_of_a_part_that_the_lora_has_seen_is_refused_by_its_group(folders, tmp_path):
    scene(78).save(folders["test_defect"] / "sheet7_b.png")
    lora = lora_that_saw(tmp_path / "a.safetensors", [{"sha256": "0", "group": "sheet7"}])

    with pytest.raises(SettingError, match=r"group 'sheet7': the LoRA a\.safetensors was trained on a photo of this group"):
        evaluate(folders, lora=lora, group="-1")


def test_file_names_are_no_groups(folders, tmp_path):
    """photo-00 of one folder and photo-00 of another show different things."""
    lora = lora_that_saw(tmp_path / "a.safetensors", [{"sha256": "0", "group": "photo-00"}])

    assert evaluate(folders, lora=lora).cautions == ()


def test_a_photo_cannot_be_good_and_defect_at_once(folders):
    scene(3002).save(folders["test_defect"] / "twice.png")

    with pytest.raises(SettingError, match=r"either good or defect, .*twice\.png is the same picture as .*test_good/photo-02\.png"):
        evaluate(folders)


def drawn_by(folder: Path, lora: Path, *, image: Path | None = None) -> Path:
    """A folder with one kept image that says which LoRA and which photo it came from."""
    manifest = Manifest(folder)
    made = Request(prompt="x", seed=1, loras=(LoraUse(path=str(lora)),), image=None if image is None else str(image), strength=0.5)
    picture = torch.randint(0, 255, (3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    save_png(picture, folder / "a.png")
    sample = Sample(file="a.png", request=made, sha256=digest(picture))
    manifest.append(sample)
    manifest.judge([(sample, Verdict(keep=True))])
    return folder


def test_the_lora_that_the_manifest_names_is_checked_without_being_given(folders, tmp_path):
    photo = folders["test_defect"] / "photo-03.png"
    lora = lora_that_saw(tmp_path / "iriko.safetensors", [{"sha256": digest(read_image(photo)), "group": "x"}])

    with pytest.raises(SettingError, match=r"photo-03\.png \(the LoRA iriko"):
        evaluate({**folders, "synthetic": drawn_by(tmp_path / "drawn", lora)})


def test_the_photo_that_an_image_was_redrawn_from_is_no_test_photo(folders, tmp_path):
    lora = lora_that_saw(tmp_path / "iriko.safetensors", [{"sha256": "0", "group": "x"}])
    drawn = drawn_by(tmp_path / "drawn", lora, image=folders["test_good"] / "photo-00.png")

    with pytest.raises(SettingError, match=r"photo-00\.png \(synthetic images were redrawn from"):
        evaluate({**folders, "synthetic": drawn})


def test_what_could_not_be_checked_is_said(folders, tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x.lora_down.weight": torch.zeros(1, 1)}, foreign)
    drawn = drawn_by(tmp_path / "drawn", tmp_path / "gone.safetensors", image=tmp_path / "gone.png")

    cautions = seen_by([foreign], read_synthetic(drawn, side=16)).cautions

    assert [caution.split(",")[0] for caution in cautions] == [
        "foreign.safetensors does not list the photos it was trained on",
        f"Images were drawn with {tmp_path / 'gone.safetensors'}",
        f"Images were redrawn from {tmp_path / 'gone.png'}",
    ]


@pytest.mark.parametrize("content", [b"", b"not safetensors at all, only text", b"\x80\x04pickle"])
def test_a_lora_file_that_is_not_whole_is_refused(folders, tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)

    with pytest.raises(UnusableFileError, match=r"broken\.safetensors is not a whole LoRA file"):
        evaluate(folders, lora=path)


def test_a_lora_whose_list_of_photos_is_no_list_is_refused(folders, tmp_path):
    with pytest.raises(UnusableFileError, match=r"odd\.safetensors is not a whole LoRA file"):
        evaluate(folders, lora=lora_that_saw(tmp_path / "odd.safetensors", [{"name": "x"}]))


def test_a_lora_file_that_is_not_there_is_refused(folders, tmp_path):
    with pytest.raises(UnusableFileError, match=r"there is no LoRA file .*none\.safetensors; check the path"):
        evaluate(folders, lora=tmp_path / "none.safetensors")
