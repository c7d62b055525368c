import json

import pytest
from fits import options

from synthaug.lora.file import LoraFile
from synthaug.training.metadata import base_names
from synthaug.training.run import fit


@pytest.mark.parametrize(
    ("family", "prediction", "names"),
    [
        ("sd1", "epsilon", ("sd_v1", "stable-diffusion-v1")),
        ("sd1", "v_prediction", ("sd_v1", "stable-diffusion-v1")),
        ("sd2", "epsilon", ("sd_v2", "stable-diffusion-v2-512")),
        ("sd2", "v_prediction", ("sd_v2_v", "stable-diffusion-v2-768-v")),
        ("sdxl", "epsilon", ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base")),
    ],
)
def test_bases_are_called_what_other_tools_call_them(family, prediction, names):
    assert base_names(family, prediction) == names


def test_folders_of_kohyas_kind_are_written_with_repeats_and_tags(photo_folder, tiny_base, tmp_path):
    (tmp_path / "set").mkdir()
    photo_folder(5).rename(tmp_path / "set" / "10_iriko fish")
    photo_folder(3, name="others", seed=1).rename(tmp_path / "set" / "2_sardine")

    fit(options(tiny_base, tmp_path / "set", tmp_path / "a.safetensors"))

    metadata = LoraFile.read(tmp_path / "a.safetensors").metadata
    assert json.loads(metadata["ss_dataset_dirs"]) == {
        "10_iriko fish": {"n_repeats": 10, "img_count": 5},
        "2_sardine": {"n_repeats": 2, "img_count": 3},
    }
    assert metadata["ss_num_train_images"] == "56"
    assert json.loads(metadata["ss_tag_frequency"]) == {"10_iriko fish": {"iriko fish": 5}, "2_sardine": {"sardine": 3}}


def test_regularisation_pictures_are_counted_in_a_folder_of_their_own(photo_folder, tiny_base, tmp_path):
    regular = photo_folder(4, name="fish", seed=1)
    more = ("--data.regular", str(regular), "--data.regular_caption", "a photo of a fish", "--model.loss.prior_weight", "0.5")

    fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", *more))

    metadata = LoraFile.read(tmp_path / "a.safetensors").metadata
    assert json.loads(metadata["ss_reg_dataset_dirs"]) == {"fish": {"n_repeats": 1, "img_count": 4}}
    assert (metadata["ss_num_reg_images"], metadata["ss_prior_loss_weight"]) == ("4", "0.5")
    assert len(json.loads(metadata["synthaug.photos"])) == 5 + 4, "regularisation photos are seen, too"
    assert json.loads(metadata["synthaug.prior"]) == {"images": 4, "weight": 0.5, "target": "images"}


def test_accumulation_and_average_and_parts_are_told(photo_folder, tiny_base, tmp_path):
    more = ("--trainer.accumulate_grad_batches", "2", "--model.ema", "0.9", "--model.shape.parts", "{attention: {rank: 3}}")

    fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", *more))

    metadata = LoraFile.read(tmp_path / "a.safetensors").metadata
    assert (metadata["ss_gradient_accumulation_steps"], metadata["ss_total_batch_size"], metadata["ss_steps"]) == ("2", "4", "4")
    assert metadata["synthaug.ema"] == "0.9"
    assert json.loads(metadata["ss_network_args"])["parts"] == {"attention": {"dim": 3, "alpha": None}}


def test_photos_kept_back_are_told_and_count_as_seen(photo_folder, tiny_base, tmp_path):
    fit(options(tiny_base, photo_folder(6), tmp_path / "a.safetensors", "--data.held_out", "1", "--save_every", "2"))

    file = LoraFile.read(tmp_path / "a.safetensors")
    assert file.metadata["ss_num_validation_images"] == "1"
    assert json.loads(file.metadata["synthaug.validation"])["photos"] == 1
    assert len(file.photos) == 6


def test_readers_find_what_they_look_for(photo_folder, tiny_base, tmp_path):
    fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors"))

    metadata = LoraFile.read(tmp_path / "a.safetensors").metadata
    assert metadata["ss_v2"] == "False"
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert json.loads(metadata["ss_bucket_info"]) == {"buckets": {"0": {"resolution": [32, 32], "count": 5}}}
    assert metadata["ss_resolution"] == "(32, 32)"


def test_the_caption_of_the_file_is_one_that_was_trained_and_not_the_pattern_it_came_from(photo_folder, tiny_base, tmp_path):
    folder = photo_folder(5)
    for photo in folder.iterdir():
        photo.with_suffix(".txt").write_text("a {small|small} iriko\na {small|small} iriko\n")
    (tmp_path / "set.toml").write_text(
        '[[datasets]]\nresolution = 32\n[[datasets.subsets]]\nimage_dir = "photos"\nenable_wildcard = true\ncaption_extension = ".txt"\n'
    )

    fit(options(tiny_base, tmp_path / "set.toml", tmp_path / "a.safetensors"))

    assert LoraFile.read(tmp_path / "a.safetensors").caption == "a small iriko"


def test_where_no_caption_is_common_the_common_tags_are_what_brings_the_thing_out(photo_folder, tiny_base, tmp_path):
    folder = photo_folder(5)
    for number, photo in enumerate(sorted(folder.iterdir())):
        photo.with_suffix(".txt").write_text(f"iriko fish, seen from side {number}, on white paper")

    fit(options(tiny_base, folder, tmp_path / "a.safetensors"))

    assert LoraFile.read(tmp_path / "a.safetensors").caption == "iriko fish, on white paper"
