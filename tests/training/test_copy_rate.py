import json
from pathlib import Path

import pytest
import torch
from fits import options

from synthaug.errors import SettingError
from synthaug.training import CopyRate, SampleGrid
from synthaug.training.run import fit


class Blank:
    """Draws grey pictures and remembers that the file was there."""

    def __init__(self) -> None:
        self.seen: list[Path] = []

    def draw(self, lora: Path) -> torch.Tensor:
        assert lora.is_file()
        self.seen.append(lora)
        return torch.full((3, 3, 32, 32), 128, dtype=torch.uint8)


class Rising:
    """Finds more copies each time."""

    def __init__(self) -> None:
        self.times = 0

    def score(self, images: torch.Tensor, photos: torch.Tensor) -> dict[str, float]:
        assert images.shape[1:] == photos.shape[1:]
        self.times += 1
        return {"copy_rate": self.times / 4, "coverage": 0.5}


def watched(monkeypatch, watcher):
    """Give every trainer of ``fit`` this callback, as YAML would."""
    monkeypatch.setattr("synthaug.training.command.FitCLI._callbacks", with_watcher(watcher))


def with_watcher(watcher):
    from synthaug.training.command import FitCLI

    whole = FitCLI._callbacks
    return lambda self, files: [watcher, *whole(self, files)]


def test_copies_are_counted_logged_and_reported(photo_folder, tiny_base, tmp_path, monkeypatch, capsys):
    draw = Blank()
    watched(monkeypatch, CopyRate(draw, Rising(), every_n_steps=2))

    fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors"))

    report = json.loads((tmp_path / "a-fit" / "report.json").read_text(encoding="utf-8"))
    said = capsys.readouterr().out
    assert report["samples"] == [{"step": 2, "copy_rate": 0.25, "coverage": 0.5}, {"step": 4, "copy_rate": 0.5, "coverage": 0.5}]
    assert "samples/copy_rate" in (tmp_path / "a-fit" / "metrics.csv").read_text(encoding="utf-8")
    assert "of the images drawn at step 4, 50% were copies of photos" in said
    assert not any(lora.exists() for lora in draw.seen)


def test_a_run_is_stopped_when_too_many_are_copies(photo_folder, tiny_base, tmp_path, monkeypatch, capsys):
    watched(monkeypatch, CopyRate(Blank(), Rising(), every_n_steps=2, stop_above=0.3))

    fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", steps=9))

    assert "ended before step 9: too many of the images drawn were copies of photos" in capsys.readouterr().out
    assert json.loads((tmp_path / "a-fit" / "report.json").read_text(encoding="utf-8"))["steps"] == 4


def test_drawing_and_scoring_do_not_change_what_is_learned(photo_folder, tiny_base, tmp_path, monkeypatch):
    from synthaug.lora.file import LoraFile

    class Loud(Blank):
        def draw(self, lora: Path) -> torch.Tensor:
            torch.rand(7)
            return super().draw(lora)

    photos, more = photo_folder(5), ("--model.shape.dropout", "0.3")
    fit(options(tiny_base, photos, tmp_path / "plain.safetensors", *more))
    watched(monkeypatch, CopyRate(Loud(), Rising(), every_n_steps=1))
    fit(options(tiny_base, photos, tmp_path / "watched.safetensors", *more))

    plain, seen = (LoraFile.read(tmp_path / f"{name}.safetensors").layers for name in ("plain", "watched"))
    assert all(torch.equal(plain[name].up, seen[name].up) for name in plain)


def test_drawing_that_runs_out_of_memory_is_left_out_and_training_goes_on(photo_folder, tiny_base, tmp_path, monkeypatch, capsys):
    class TooLarge(Blank):
        def draw(self, lora: Path) -> torch.Tensor:
            super().draw(lora)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")

    rate, draw = CopyRate(TooLarge(), Rising(), every_n_steps=2, stop_above=0.1), TooLarge()
    whole = with_watcher(rate)
    monkeypatch.setattr(
        "synthaug.training.command.FitCLI._callbacks", lambda self, files: [SampleGrid(draw, every_n_steps=2), *whole(self, files)]
    )

    fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", steps=3))

    said = capsys.readouterr().out
    assert json.loads((tmp_path / "a-fit" / "report.json").read_text(encoding="utf-8"))["steps"] == 3
    assert rate.measured == []
    for what in ("the copy rate", "the sample grid"):
        assert f"step 2: memory does not hold drawing beside training, {what} is left out (CUDA out of memory" in said


@pytest.mark.parametrize("callback", [SampleGrid, lambda draw, **settings: CopyRate(draw, Rising(), **settings)])
def test_another_failure_of_drawing_ends_the_run(callback, photo_folder, tiny_base, tmp_path, monkeypatch):
    class Broken(Blank):
        def draw(self, lora: Path) -> torch.Tensor:
            super().draw(lora)
            raise RuntimeError("shapes cannot be multiplied")

    watched(monkeypatch, callback(Broken(), every_n_steps=1))

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit(options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", steps=1))


def test_measurements_survive_a_checkpoint():
    watcher, again = CopyRate(Blank(), Rising(), stop_above=0.3), CopyRate(Blank(), Rising(), stop_above=0.3)
    watcher.measured = [(200, {"copy_rate": 0.4})]

    again.load_state_dict(watcher.state_dict())

    assert again.measured == watcher.measured
    assert again.too_many


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"every_n_steps": 0}, "every_n_steps must be at least 1, got 0"),
        ({"stop_above": 2.0}, "stop_above must be a share from 0 to 1, got 2.0"),
    ],
)
def test_numbers_outside_their_range_are_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        CopyRate(Blank(), Rising(), **settings)


@pytest.mark.slow
def test_drawing_and_scoring_are_handed_over_by_name(photo_folder, tiny_base, tmp_path):
    config = tmp_path / "watch.yaml"
    config.write_text(
        """
trainer:
  callbacks:
    - class_path: synthaug.training.CopyRate
      init_args:
        every_n_steps: 4
        preview: {class_path: synthaug.generation.Preview, init_args: {count: 3, steps: 2}}
        score: {class_path: synthaug.curation.PhotoLikeness}
""",
        encoding="utf-8",
    )

    fit(["--config", str(config), *options(tiny_base, photo_folder(5), tmp_path / "a.safetensors")])

    [sample] = json.loads((tmp_path / "a-fit" / "report.json").read_text(encoding="utf-8"))["samples"]
    assert sample.keys() == {"step", "copy_rate", "coverage", "distance_ratio"}
