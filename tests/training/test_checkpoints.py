"""Stopping a run anywhere, and going on."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fits import options

from synthaug.errors import NumericsError, OutputError, SettingError, UnusableFileError
from synthaug.lora.file import LoraFile
from synthaug.training.checkpoints import Checkpoints, as_text, newest
from synthaug.training.rate import adamw
from synthaug.training.run import fit
from synthaug.training.saving import SaveLora

MORE = ("--save_every", "2", "--model.ema", "0.9", "--model.shape.dropout", "0.2", "--data.held_out", "1")


def run(base: Path, photos: Path, out: Path, *more: str, steps: int = 6) -> LoraFile:
    fit(options(base, photos, out, *MORE, *more, steps=steps))
    return LoraFile.read(out)


def same(a: LoraFile, b: LoraFile) -> bool:
    """Whether every tensor is equal, bit for bit."""
    assert a.layers.keys() == b.layers.keys()
    mine, theirs = ({n: layer.tensors() for n, layer in file.layers.items()} for file in (a, b))
    return all(torch.equal(value, theirs[name][part]) for name, tensors in mine.items() for part, value in tensors.items())


def stop(monkeypatch, where, at):
    """Let a hook of a callback fail at a step, before it does anything."""
    kind, name = where
    whole = getattr(kind, name)

    def fail(self, trainer, *rest):
        if trainer.global_step == at:
            raise NumericsError("the lights went out")
        return whole(self, trainer, *rest)

    monkeypatch.setattr(kind, name, fail)


@pytest.mark.parametrize(
    ("where", "at"),
    [((SaveLora, "on_train_batch_end"), 5), ((SaveLora, "on_validation_end"), 4), ((Checkpoints, "on_validation_end"), 4)],
    ids=["in a step", "before the LoRA file is written", "between the LoRA file and the checkpoint"],
)
def test_a_run_that_was_stopped_anywhere_goes_on_as_if_it_had_not_been(where, at, photo_folder, tiny_base, tmp_path, monkeypatch):
    photos = photo_folder(6)
    whole = run(tiny_base, photos, tmp_path / "whole.safetensors")
    with monkeypatch.context() as patched:
        stop(patched, where, at)
        with pytest.raises(NumericsError, match="the lights went out"):
            run(tiny_base, photos, tmp_path / "cut.safetensors")

    cut = run(tiny_base, photos, tmp_path / "cut.safetensors", "--resume", "true")

    reports = [json.loads((tmp_path / f"{name}-fit" / "report.json").read_text(encoding="utf-8")) for name in ("whole", "cut")]
    assert same(whole, cut)
    assert [report["resumed_at"] for report in reports] == [None, 4 if at == 5 else 2]
    assert reports[0]["held_out_loss"] == reports[1]["held_out_loss"]
    assert reports[0]["loss"] == reports[1]["loss"]
    assert logged(tmp_path / "whole-fit") == logged(tmp_path / "cut-fit")


def logged(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as opened:
        return [(row["step"], row["train/loss"], row["val/loss"]) for row in csv.DictReader(opened)]


KILL = {
    "step": "LoraTraining.training_step = at(5, LoraTraining.training_step)",
    "writing": "os.fsync = at(4, os.fsync)",
    "before": "Checkpoints._save = at(4, Checkpoints._save)",
}
"""Where the process is killed: in a step, while a checkpoint is written, between the LoRA file and the checkpoint."""

SCRIPT = """
import os, signal, sys
from synthaug.training import LoraTraining
from synthaug.training import saving
from synthaug.training.checkpoints import Checkpoints
from synthaug.training.run import fit
now = 0
def at(step, whole):
    def killing(*args, **kwargs):
        if now >= step:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*args, **kwargs)
    return killing
def count(self, trainer, module, outputs, batch, index, whole=saving.SaveLora.on_train_batch_end):
    global now
    now = trainer.global_step
    whole(self, trainer, module, outputs, batch, index)
saving.SaveLora.on_train_batch_end = count
{kill}
fit(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", KILL)
def test_a_process_that_was_killed_goes_on_to_the_same_weights(where, photo_folder, tiny_base, tmp_path):
    photos = photo_folder(6)
    whole = run(tiny_base, photos, tmp_path / "whole.safetensors")
    argv = options(tiny_base, photos, tmp_path / "cut.safetensors", *MORE, steps=6)

    killed = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{kill}", KILL[where]), *argv],
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    cut = run(tiny_base, photos, tmp_path / "cut.safetensors", "--resume", "true")

    assert killed.returncode == -signal.SIGKILL
    assert same(whole, cut)


def test_the_last_two_checkpoints_stay_and_nothing_half_written(photo_folder, tiny_base, tmp_path):
    run(tiny_base, photo_folder(6), tmp_path / "a.safetensors")

    names = sorted(path.name for path in (tmp_path / "a-fit").iterdir() if "ckpt" in path.name)
    assert names == ["step-000004.ckpt", "step-000006.ckpt"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(photo_folder, tiny_base, tmp_path, capsys):
    photos, out = photo_folder(6), tmp_path / "a.safetensors"
    whole = run(tiny_base, photos, out)
    last = tmp_path / "a-fit" / "step-000006.ckpt"
    last.write_bytes(last.read_bytes()[:3000])
    capsys.readouterr()

    again = run(tiny_base, photos, out, "--resume", "true")

    said = capsys.readouterr().out
    assert "step-000006.ckpt cannot be read" in said
    assert "going on from step-000004.ckpt instead" in said
    assert same(whole, again)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_without_a_checkpoint_that_can_be_read_there_is_a_sentence(content, tmp_path):
    path = tmp_path / "step-000002.ckpt"
    if content is None:
        torch.save({"weights": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)

    with pytest.raises(UnusableFileError, match=r"no checkpoint in .* can be resumed from: step-000002.ckpt .*; leave --resume out"):
        newest(tmp_path)


def test_a_checkpoint_that_would_run_something_is_not_read(tmp_path):
    class Bad:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"synthaug": Bad()}, tmp_path / "step-000002.ckpt")

    with pytest.raises(UnusableFileError, match="cannot be read"):
        newest(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--model.shape.rank", "3"), "model.shape.rank was 2, now 3"),
        (("--model.seed", "1"), "model.seed was 0, now 1"),
        (("--data.batch_size", "1"), "data.batch_size was 2, now 1"),
        (("--model.base", "pocket"), 'model.base was ".*", now "pocket"'),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(more, sentence, photo_folder, tiny_base, tmp_path):
    photos, out = photo_folder(6), tmp_path / "a.safetensors"
    run(tiny_base, photos, out, steps=2)

    with pytest.raises(SettingError, match=rf"resumed with its own settings, {sentence}; set it back"):
        fit([*options(tiny_base, photos, out, *MORE, "--resume", "true"), *more])


def test_a_run_is_not_resumed_with_other_photos(photo_folder, tiny_base, tmp_path):
    out = tmp_path / "a.safetensors"
    run(tiny_base, photo_folder(6), out, steps=2)

    with pytest.raises(SettingError, match="6 of 6 are gone or changed and 7 are new"):
        run(tiny_base, photo_folder(7, name="others", seed=1), out, "--resume", "true")


def test_the_same_photos_in_another_place_are_the_same_photos(photo_folder, tiny_base, tmp_path):
    photos, out = photo_folder(6), tmp_path / "a.safetensors"
    run(tiny_base, photos, out, steps=2)
    photos.rename(tmp_path / "moved")

    assert run(tiny_base, tmp_path / "moved", out, "--resume", "true", steps=4).metadata["ss_max_train_steps"] == "4"


def test_another_base_under_the_same_name_is_noticed(photo_folder, tiny_base, other_base, tmp_path):
    place, photos, out = tmp_path / "base", photo_folder(6), tmp_path / "a.safetensors"
    place.symlink_to(tiny_base)
    run(place, photos, out, steps=2)
    place.unlink()
    place.symlink_to(other_base)

    with pytest.raises(SettingError, match="a run is resumed on its own base"):
        run(place, photos, out, "--resume", "true")


def test_a_full_disk_costs_one_checkpoint_and_is_said(photo_folder, tiny_base, tmp_path, capsys):
    photos, out, folder = photo_folder(6), tmp_path / "a.safetensors", tmp_path / "a-fit"
    folder.mkdir()
    (folder / ".step-000004.ckpt.part").symlink_to("/dev/full")

    full = run(tiny_base, photos, out)

    said = capsys.readouterr().out
    assert "the checkpoint of step 4 could not be written (No space left on device); training goes on, the next is tried at step 6" in said
    assert sorted(path.name for path in folder.glob("*.ckpt")) == ["step-000002.ckpt", "step-000006.ckpt"]
    assert "1 things were put right" in said
    assert same(full, run(tiny_base, photos, tmp_path / "b.safetensors"))


def test_a_file_that_could_not_be_written_on_the_way_is_written_at_the_end(photo_folder, tiny_base, tmp_path, capsys):
    out = tmp_path / "a.safetensors"
    (tmp_path / ".a.safetensors.part").symlink_to("/dev/full")

    run(tiny_base, photo_folder(6), out)

    assert "a.safetensors could not be written (No space left on device)" in capsys.readouterr().out
    assert LoraFile.read(out).metadata["ss_max_train_steps"] == "6"


def test_what_was_learned_is_kept_elsewhere_when_the_file_cannot_be_written(photo_folder, tiny_base, tmp_path, monkeypatch):
    whole = LoraFile.write

    def full(self, path, **more):
        if Path(path).parent == tmp_path:
            raise OutputError(f"{path} could not be written (No space left on device); free some space or choose another folder")
        whole(self, path, **more)

    monkeypatch.setattr(LoraFile, "write", full)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "refuge"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "refuge").mkdir()

    with pytest.raises(
        OutputError, match=r"No space left on device.*what was learned is in .*a\.safetensors: free some space, then move it"
    ):
        run(tiny_base, photo_folder(6), tmp_path / "a.safetensors")

    [kept] = (tmp_path / "refuge").glob("synthaug-*/a.safetensors")
    assert LoraFile.read(kept).metadata["ss_max_train_steps"] == "6"


def test_a_run_that_was_stopped_for_getting_worse_stays_stopped(photo_folder, tiny_base, tmp_path, monkeypatch):
    losses = iter([0.1, 0.5, 0.5, 0.5, 0.5, 0.5])
    monkeypatch.setattr("synthaug.training.LoraTraining.validation_step", lambda self, *_: self.log("val/loss", next(losses)))
    photos, out = photo_folder(6), tmp_path / "a.safetensors"
    run(tiny_base, photos, out, "--patience", "1", steps=20)

    run(tiny_base, photos, out, "--patience", "1", "--resume", "true", steps=20)

    report = json.loads((tmp_path / "a-fit" / "report.json").read_text(encoding="utf-8"))
    assert (report["steps"], len(report["held_out_loss"])) == (4, 2)
    assert "above its lowest" in report["ended"]


def test_the_file_of_a_resumed_run_holds_its_best_step_even_if_it_was_lost(photo_folder, tiny_base, tmp_path, monkeypatch):
    losses = iter([0.1, 0.5, 0.5])
    monkeypatch.setattr("synthaug.training.LoraTraining.validation_step", lambda self, *_: self.log("val/loss", next(losses)))
    photos, out = photo_folder(6), tmp_path / "a.safetensors"
    best = run(tiny_base, photos, out, steps=4)
    out.unlink()

    again = run(tiny_base, photos, out, "--resume", "true", steps=6)

    assert again.metadata["ss_steps"] == "2"
    assert same(best, again)


def test_a_new_run_forgets_the_checkpoints_of_an_older_longer_one(photo_folder, tiny_base, tmp_path):
    photos, out = photo_folder(6), tmp_path / "a.safetensors"
    run(tiny_base, photos, out, steps=8)

    run(tiny_base, photos, out, steps=4)

    assert newest(tmp_path / "a-fit").path.name == "step-000004.ckpt"


def test_settings_are_written_alike_in_every_process(tmp_path):
    assert as_text(adamw) == '"synthaug.training.rate.adamw"'
    assert as_text({"b": tmp_path, "a": (1, 2)}) == f'{{"a": [1, 2], "b": "{tmp_path}"}}'
