import csv
import importlib.util

import pytest
import torch
from fits import options
from lightning.pytorch.loggers import CSVLogger

from synthaug.training import logs
from synthaug.training.run import fit


def test_numbers_go_into_a_table_and_lost_tensorboard_is_a_sentence(photo_folder, tiny_base, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logs, "find_spec", lambda _: None)

    fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", "--trainer.log_every_n_steps", "1"))

    with (tmp_path / "a-fit" / "metrics.csv").open(encoding="utf-8") as opened:
        assert [row["step"] for row in csv.DictReader(opened)] == ["0", "1", "2", "3"]
    assert "TensorBoard is not installed, numbers go into metrics.csv alone; pip install tensorboard" in capsys.readouterr().out


def test_a_logger_that_is_named_takes_the_place_of_ours(photo_folder, tiny_base, tmp_path, capsys):
    more = ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir", str(tmp_path / "mine")]

    fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", *more, "--trainer.log_every_n_steps", "1"))

    assert list((tmp_path / "mine").rglob("metrics.csv"))
    assert not (tmp_path / "a-fit" / "metrics.csv").exists()
    assert "TensorBoard" not in capsys.readouterr().out


def test_no_logger_at_all_is_possible(photo_folder, tiny_base, tmp_path):
    fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", "--trainer.logger", "false"))

    assert not (tmp_path / "a-fit" / "metrics.csv").exists()


def test_what_was_logged_before_a_stop_stays_and_what_came_after_goes(tmp_path):
    folder = tmp_path / "a-fit"
    first = CSVLogger(tmp_path, name="", version="a-fit")
    for step in range(4):
        first.log_metrics({"train/loss": 1.0 - step / 10, **({"val/loss": 0.5} if step == 1 else {})}, step=step)
    first.save()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(logs, "find_spec", lambda _: None)
        patched.setattr("warnings.warn", lambda *_, **__: None)  # Lightning's warning of a folder that is not empty
        [logger] = logs.usual_loggers(folder, resumed_at=2)
    logger.log_metrics({"train/loss": 0.7}, step=2)
    logger.save()

    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as opened:
        rows = [(float(row["step"]), float(row["train/loss"]), row["val/loss"]) for row in csv.DictReader(opened)]
    assert rows == [(0.0, 1.0, ""), (1.0, 0.9, "0.5"), (2.0, 0.7, "")]


HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None


@pytest.mark.skipif(not HAS_TENSORBOARD, reason="TensorBoard is not installed")
def test_numbers_and_grids_are_in_tensorboards_events(photo_folder, tiny_base, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    class Grey:
        def draw(self, _):
            return torch.full((4, 3, 32, 32), 128, dtype=torch.uint8)

    from synthaug.training import SampleGrid
    from synthaug.training.command import FitCLI

    whole = FitCLI._callbacks
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FitCLI, "_callbacks", lambda self, files: [SampleGrid(Grey(), every_n_steps=2), *whole(self, files)])
        fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", "--trainer.log_every_n_steps", "1"))

    events = EventAccumulator(str(tmp_path / "a-fit" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2, 3]
    assert [event.step for event in events.Images("samples")] == [1, 3]


def test_a_full_disk_costs_rows_of_the_table_and_not_the_run(photo_folder, tiny_base, tmp_path, capsys, monkeypatch):
    whole, calls = CSVLogger.save, []

    def full_at_first(self):
        calls.append(1)
        if len(calls) < 3:
            raise OSError(28, "No space left on device")
        whole(self)

    monkeypatch.setattr(CSVLogger, "save", full_at_first)

    fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", "--trainer.log_every_n_steps", "1"))

    assert capsys.readouterr().out.count("could not be written (No space left on device); training goes on") == 1
    with (tmp_path / "a-fit" / "metrics.csv").open(encoding="utf-8") as opened:
        assert [row["step"] for row in csv.DictReader(opened)] == ["0", "1", "2", "3"]
