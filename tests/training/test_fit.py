import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from fits import options

from synthaug.cli import main
from synthaug.errors import NumericsError, OutputError, SettingError
from synthaug.lora.file import LoraFile
from synthaug.photos.folder import read_folder
from synthaug.training import PhotoData, SaveLora
from synthaug.training.run import fit


def test_fit_writes_a_file_that_says_everything(photo_folder, tiny_base, tmp_path):
    folder, out = photo_folder(5), tmp_path / "iriko.safetensors"

    fit(options(tiny_base, folder, out))

    file = LoraFile.read(out)
    assert (file.base, file.caption, file.size, file.rank) == (str(tiny_base), "a photo of iriko", (32, 32), 2)
    assert {photo.sha256 for photo in file.photos} == {photo.sha256 for photo in read_folder(folder, trigger="x").photos}
    assert file.metadata["ss_steps"] == "4"
    assert file.metadata["ss_network_module"] == "networks.lora"
    assert json.loads(file.metadata["ss_tag_frequency"]) == {"photos": {"a photo of iriko": 5}}


def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_weights(photo_folder, tiny_base, tmp_path, monkeypatch):
    folder, more = photo_folder(5), ("--save_every", "1", "--model.ema", "0.9", "--model.shape.dropout", "0.1")
    fit(options(tiny_base, folder, tmp_path / "whole.safetensors", *more))

    whole_batch = PhotoData.batch

    def until_two(self, step, **share):
        if step == 2:
            raise NumericsError("the lights went out")
        return whole_batch(self, step, **share)

    monkeypatch.setattr(PhotoData, "batch", until_two)
    with pytest.raises(NumericsError, match="the lights went out"):
        fit(options(tiny_base, folder, tmp_path / "cut.safetensors", *more))
    monkeypatch.undo()
    fit(options(tiny_base, folder, tmp_path / "cut.safetensors", *more, "--resume", "true"))

    whole, cut = (LoraFile.read(tmp_path / f"{name}.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole.layers[name].up, cut.layers[name].up) for name in whole.layers)
    assert cut.metadata["ss_steps"] == "4"


def test_resuming_without_a_checkpoint_is_a_sentence_and_exit_1(photo_folder, tiny_base, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", *options(tiny_base, photo_folder(5), tmp_path / "new.safetensors", "--resume", "true")])

    assert ended.value.code == 1
    assert "--resume needs the checkpoint of an earlier run" in capsys.readouterr().err


def test_ctrl_c_writes_what_was_learned_and_says_how_to_go_on(photo_folder, tiny_base, tmp_path, capsys, monkeypatch):
    def pressed(self, trainer, *_):
        if trainer.global_step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(SaveLora, "on_train_batch_end", pressed, raising=False)
    out = tmp_path / "iriko.safetensors"

    with pytest.raises(SystemExit) as ended:
        main(["fit", *options(tiny_base, photo_folder(5), out, steps=50)])

    said = capsys.readouterr()
    assert ended.value.code == 1
    assert "go on with --resume true" in said.out
    assert LoraFile.read(out).metadata["ss_steps"] == "2"


def test_ctrl_c_before_the_first_step_writes_nothing_and_is_no_traceback(photo_folder, tiny_base, tmp_path, capsys, monkeypatch):
    def pressed(self, stage):
        raise KeyboardInterrupt

    monkeypatch.setattr(PhotoData, "setup", pressed)
    out = tmp_path / "iriko.safetensors"

    with pytest.raises(SystemExit) as ended:
        main(["fit", *options(tiny_base, photo_folder(5), out)])

    assert ended.value.code == 1
    assert "Traceback" not in capsys.readouterr().err
    assert not out.exists()


def test_a_wrong_option_ends_with_usage_and_exit_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--model.learning_rat", "1", "--data.photos", str(tmp_path)])

    assert ended.value.code == 2
    assert "learning_rat" in capsys.readouterr().err


def test_sample_grids_are_drawn_from_the_file_and_the_interim_file_goes(photo_folder, tiny_base, tmp_path):
    folder = tmp_path / "grids"
    grids = ["--trainer.callbacks+=synthaug.training.SampleGrid", "--trainer.callbacks.preview=synthaug.generation.Preview"]
    grids += ["--trainer.callbacks.preview.init_args.count=4", "--trainer.callbacks.preview.init_args.steps=2"]
    grids += ["--trainer.callbacks.every_n_steps=2", f"--trainer.callbacks.folder={folder}"]

    fit(options(tiny_base, photo_folder(5), tmp_path / "iriko.safetensors", *grids))

    assert sorted(path.name for path in folder.iterdir()) == ["step-000002.png", "step-000004.png"]


def test_a_grid_that_cannot_be_written_costs_the_grid_and_not_the_run(photo_folder, tiny_base, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OutputError("step-000002.png could not be written (No space left on device)")

    monkeypatch.setattr("synthaug.training.callbacks.save_png", full)
    grids = ["--trainer.callbacks+=synthaug.training.SampleGrid", "--trainer.callbacks.preview=synthaug.generation.Preview"]
    grids += ["--trainer.callbacks.preview.init_args.count=1", "--trainer.callbacks.preview.init_args.steps=1"]

    fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", *grids, "--trainer.callbacks.every_n_steps=2"))

    assert capsys.readouterr().out.count("the sample grid could not be written") == 2
    assert LoraFile.read(tmp_path / "a.safetensors").metadata["ss_steps"] == "4"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--data.batch_size", "0"), "batch_size must be at least 1, got 0"),
        (("--data.views.zoom", "0.5"), "views.zoom must be from 1 to 4; 1 cuts nothing off, got 0.5"),
        (("--data.views.count", "0"), "views.count must be at least 1"),
        (("--data.size", "[100,100]"), "size must be [height, width], each a multiple of 8, got (100, 100)"),
        (("--data.caption_dropout", "2"), "caption_dropout must be from 0 to 1; 0.1 is usual, got 2.0"),
        (("--model.shape.rank", "0"), "rank must be at least 1; 4 to 32 are usual, got 0"),
        (("--model.shape.alpha", "0"), "alpha must be above 0"),
        (("--model.shape.dropout", "1"), "dropout must be from 0 to below 1, got 1.0"),
        (("--model.learning_rate", "-1"), "learning_rate must be above 0; 1e-3 to 1e-4 are usual, got -1.0"),
        (("--model.learning_rate", "0"), "learning_rate must be above 0"),
        (("--model.text_learning_rate", "-1"), "text_learning_rate must be 0 or above"),
        (("--model.loss.snr_gamma", "-1"), "snr_gamma must be 0 or above"),
        (("--model.loss.noise_offset", "7"), "noise_offset must be from 0 to 1"),
        (("--model.loss.multires_noise", "2"), "multires_noise must be from 0 to 1"),
        (("--model.loss.input_perturbation", "-1"), "input_perturbation must be from 0 to 1"),
        (("--model.loss.steps", "[0.5,0.5]"), "steps must be two shares of the schedule, the first below the second, got (0.5, 0.5)"),
        (("--save_every", "0"), "save_every must be at least 1, got 0"),
    ],
)
def test_a_number_outside_its_range_is_a_sentence_before_anything_is_loaded(more, sentence, photo_folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", *options(tmp_path / "no base", photo_folder(5), tmp_path / "new.safetensors", *more)])

    err = capsys.readouterr().err
    assert ended.value.code in (1, 2)
    assert sentence in err
    assert "Traceback" not in err
    assert not (tmp_path / "new-fit").exists()


def test_a_lora_that_could_not_be_written_is_found_out_before_training(photo_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    folder = photo_folder(5)
    for out, sentence in (
        (tmp_path / "file" / "new.safetensors", "give --out in another folder"),
        (tmp_path, "is a folder; give it a name"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["fit", *options(tmp_path / "no base", folder, out)])

        err = capsys.readouterr().err
        assert ended.value.code == 1
        assert sentence in err
        assert "Traceback" not in err


def test_any_optimiser_may_be_named_and_the_file_says_which(photo_folder, tiny_base, tmp_path):
    out = tmp_path / "sgd.safetensors"

    fit(options(tiny_base, photo_folder(5), out, "--model.optimizer", "torch.optim.SGD", "--model.optimizer.momentum", "0.9",
                "--model.rate.course", "linear", "--model.rate.warm_up", "2"))  # fmt: skip

    metadata = LoraFile.read(out).metadata
    assert metadata["ss_optimizer"] == "torch.optim.sgd.SGD"
    assert (metadata["ss_lr_scheduler"], metadata["ss_lr_warmup_steps"]) == ("linear", "2")


def test_training_goes_on_from_a_file_in_another_layout(photo_folder, tiny_base, tmp_path):
    folder = photo_folder(5)
    fit(options(tiny_base, folder, tmp_path / "first.safetensors"))
    first = LoraFile.read(tmp_path / "first.safetensors")
    first.write(tmp_path / "theirs.safetensors", dtype=torch.float32, layout="diffusers")

    fit(options(tiny_base, folder, tmp_path / "second.safetensors", "--model.start", str(tmp_path / "theirs.safetensors"),
                "--model.learning_rate", "1e-9", "--model.shape.rank", "7"))  # fmt: skip

    second = LoraFile.read(tmp_path / "second.safetensors")
    assert second.rank == first.rank == 2
    assert (second.metadata["ss_network_dim"], second.metadata["ss_network_alpha"]) == ("2", "16.0")
    assert all(torch.allclose(second.layers[name].delta(), layer.delta(), atol=1e-3) for name, layer in first.layers.items())
    assert any(float(layer.delta().abs().max()) > 0 for layer in first.layers.values())


@pytest.mark.slow
def test_two_processes_train_as_one_with_their_batches_together(photo_folder, tiny_base, tmp_path):
    folder = photo_folder(5)
    two = options(tiny_base, folder, tmp_path / "two.safetensors", "--trainer.devices", "2", "--trainer.strategy", "ddp")

    subprocess.run([sys.executable, "-m", "synthaug", "fit", *two], check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    fit(options(tiny_base, folder, tmp_path / "one.safetensors", "--data.batch_size", "4"))

    one, both = (LoraFile.read(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one.layers.keys() == both.layers.keys()
    assert max(float((one.layers[name].delta() - both.layers[name].delta()).abs().max()) for name in one.layers) < 1e-4
    assert any(float(layer.delta().abs().max()) > 1e-4 for layer in one.layers.values())


def test_what_is_wrong_with_the_photos_is_said_before_the_first_step(photo_folder, tiny_base, tmp_path, capsys):
    fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", "--check_photos", "true", steps=1))

    said = capsys.readouterr().out
    assert "only 5 photos can be used; 20 are better" in said
    assert said.index("20 are better") < said.index("step 1 of 1")


def measuring(monkeypatch, *losses):
    """Let the measurements of a run be these."""
    left = iter(losses)
    monkeypatch.setattr("synthaug.training.LoraTraining.validation_step", lambda self, *_: self.log("val/loss", next(left)))
    return left


def test_the_file_is_the_one_with_the_lowest_loss_on_photos_kept_back(photo_folder, tiny_base, tmp_path, capsys, monkeypatch):
    measuring(monkeypatch, 0.5, 0.3, 0.4, 0.6)

    fit(options(tiny_base, photo_folder(6), tmp_path / "best.safetensors", "--data.held_out", "1", "--save_every", "1"))

    said = capsys.readouterr().out
    file = LoraFile.read(tmp_path / "best.safetensors")
    assert "as it was at step 2, where the loss on what was kept back was lowest (0.3000)" in said
    assert file.metadata["ss_steps"] == "2"
    assert json.loads(file.metadata["synthaug.validation"]) == {"step": 2, "loss": 0.3, "photos": 1, "views_of_each": 0}


def test_of_steps_that_are_about_as_good_the_last_is_written(photo_folder, tiny_base, tmp_path, capsys, monkeypatch):
    measuring(monkeypatch, 0.5, 0.3, 0.302, 0.6)

    fit(options(tiny_base, photo_folder(6), tmp_path / "best.safetensors", "--data.held_out", "1", "--save_every", "1"))

    assert "as it was at step 3, the last whose loss on what was kept back (0.3020) came within 1%" in capsys.readouterr().out
    assert LoraFile.read(tmp_path / "best.safetensors").metadata["ss_steps"] == "3"


def test_a_run_that_gets_worse_is_stopped_and_says_so(photo_folder, tiny_base, tmp_path, capsys, monkeypatch):
    left = measuring(monkeypatch, *[0.1] + [0.5] * 9)
    more = ("--data.held_out", "1", "--save_every", "1", "--patience", "2")

    fit(options(tiny_base, photo_folder(6), tmp_path / "a.safetensors", *more, steps=9))

    assert len(list(left)) == 10 - 3
    assert "ended before step 9: the loss on what was kept back had been above its lowest for 2 measurements" in capsys.readouterr().out


def test_without_patience_a_run_is_never_stopped(photo_folder, tiny_base, tmp_path, monkeypatch):
    left = measuring(monkeypatch, *[0.1] + [0.5] * 5)
    more = ("--data.held_out", "1", "--save_every", "1", "--patience", "0")

    fit(options(tiny_base, photo_folder(6), tmp_path / "a.safetensors", *more, steps=6))

    assert list(left) == []


def test_the_last_step_is_measured_wherever_it_falls(photo_folder, tiny_base, tmp_path, monkeypatch):
    measuring(monkeypatch, 0.5, 0.4)

    fit(options(tiny_base, photo_folder(6), tmp_path / "a.safetensors", "--data.held_out", "1", "--save_every", "3", steps=4))

    report = json.loads((tmp_path / "a-fit" / "report.json").read_text(encoding="utf-8"))
    assert [step for step, _ in report["held_out_loss"]] == [3, 4]


@pytest.mark.parametrize(
    ("count", "steps", "more", "expected"),
    [
        (12, 6, (), (2, 0)), (11, 6, (), (0, 1)), (12, 5, (), (0, 0)), (12, 6, ("--data.held_out", "0"), (0, 0)),
        (12, 6, ("--data.held_out", "3"), (3, 0)), (11, 6, ("--data.views.zoom", "1"), (0, 0)),
    ],
)  # fmt: skip
def test_what_is_kept_back_when_nothing_is_said(count, steps, more, expected, photo_folder, tiny_base, tmp_path):
    fit(options(tiny_base, photo_folder(count), tmp_path / "a.safetensors", "--save_every", "2", *more, steps=steps))

    photos = json.loads((tmp_path / "a-fit" / "report.json").read_text(encoding="utf-8"))["photos"]
    assert (photos["held_out"], photos["held_out_views"]) == expected


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_the_loss_on_photos_kept_back_is_the_same_every_time_it_is_measured(photo_folder, tiny_base, tmp_path):
    out = tmp_path / "a.safetensors"
    fit(options(tiny_base, photo_folder(6), out, "--data.held_out", "1", "--save_every", "1", "--model.learning_rate", "1e-12"))

    with (tmp_path / "a-fit" / "metrics.csv").open(encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    values = [float(row["val/loss"]) for row in rows if row.get("val/loss")]
    assert len(values) == 4
    assert max(values) - min(values) < 1e-6


def test_a_run_draws_its_regularisation_pictures_by_class_path_and_once(photo_folder, tiny_base, tmp_path, capsys):
    folder = photo_folder(5)
    regular = ["--data.regular_count", "3", "--data.regular_caption", "a fish", "--data.regular_share", "0.25"]
    regular += ["--data.drawer=synthaug.generation.RegularImages", "--data.drawer.steps=2", "--data.drawer.device=cpu"]
    regular += ["--data.buckets.enabled", "true", "--data.buckets.step", "8", "--data.buckets.smallest", "16"]
    regular += ["--data.cache", str(tmp_path / "cache")]

    fit(options(tiny_base, folder, tmp_path / "first.safetensors", *regular))
    first = capsys.readouterr().out
    fit(options(tiny_base, folder, tmp_path / "second.safetensors", *regular))
    second = capsys.readouterr().out

    assert "regularisation pictures: 3 of 3 drawn" in first
    assert "drawn" not in second
    a, b = (LoraFile.read(tmp_path / f"{name}.safetensors").layers for name in ("first", "second"))
    assert all(torch.equal(a[name].up, b[name].up) for name in a)


def test_the_bases_answers_are_not_asked_for_without_pictures_to_ask_them_on(photo_folder, tiny_base, tmp_path):
    with pytest.raises(SettingError, match=r"loss.prior 'base' needs regularisation pictures.*give --data.regular FOLDER"):
        fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", "--model.loss.prior", "base"))
