"""What a run says about itself: ``report.json`` beside its checkpoints, and the lines that are printed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from synthaug.errors import OutputError
from synthaug.training.copy_rate import CopyRate
from synthaug.training.photo_data import PhotoData
from synthaug.training.saving import SaveLora

__all__ = ["LossCurve", "lines_of", "report_of", "write_report"]

POINTS = 40
"""So many points has the curve of the loss."""


class LossCurve(Callback):
    """The mean loss of each fortieth of the run, whoever logs or does not."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        """Last step and mean loss of each part."""
        self.seconds = 0.0
        """Time in training, earlier parts of a resumed run included."""
        self._open: list[Tensor] = []
        self._since = 0.0

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points, "open": self._means(), "seconds": self._so_far()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = [(int(step), float(loss)) for step, loss in state_dict["points"]]
        self._open, self.seconds = [torch.tensor(loss) for loss in state_dict["open"]], float(state_dict["seconds"])

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._open.append(outputs["loss"].detach())
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step % max(1, trainer.max_steps // POINTS) == 0 or trainer.global_step == trainer.max_steps:
            losses = self._means()
            self.points.append((trainer.global_step, sum(losses) / len(losses)))
            self._open = []

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds, self._since = self._so_far(), 0.0

    def _means(self) -> list[float]:
        return torch.stack(self._open).float().tolist() if self._open else []

    def _so_far(self) -> float:
        return self.seconds + (time.perf_counter() - self._since if self._since else 0.0)


def report_of(trainer: Trainer, settings: Mapping[str, str], *, chosen: Mapping[str, str], resumed_at: int | None) -> dict[str, Any]:
    """Everything worth knowing of a finished run, as plain values.

    Args:
        trainer: After its ``fit``.
        settings: What the run was, by option.
        chosen: What was chosen for the user, by option, in words.
        resumed_at: Step it went on from; None for one that was not stopped.
    """
    callbacks = list(trainer.callbacks)  # type: ignore[attr-defined]  # set by the trainer's connector
    saver = next(one for one in callbacks if isinstance(one, SaveLora))
    curve = next(one for one in callbacks if isinstance(one, LossCurve))
    watchers = [one for one in callbacks if isinstance(one, CopyRate)]
    kept = saver.progress.kept
    return {
        "lora": str(saver.written or saver.path),
        "checkpoint": {"step": trainer.global_step if kept is None else kept[0], "why": saver.choice},
        "steps": trainer.global_step, "max_steps": trainer.max_steps, "ended": _end(trainer, saver, watchers), "resumed_at": resumed_at,
        "seconds": round(curve.seconds, 1), "photos": _photos(trainer), "loss": _loss(curve),
        "held_out_loss": [list(one) for one in saver.progress.measured],
        "samples": [{"step": step, **numbers} for watcher in watchers for step, numbers in watcher.measured],
        "repairs": [_plain(one) for one in [*_repairs(trainer.lightning_module), *(r for one in callbacks for r in _repairs(one))]],
        "chosen": dict(chosen), "settings": {name: json.loads(value) for name, value in settings.items()},
        "torch": torch.__version__, "device": str(trainer.strategy.root_device), "precision": str(trainer.precision),
    }  # fmt: skip


def _end(trainer: Trainer, saver: SaveLora, watchers: Iterable[CopyRate]) -> str:
    """Why the run ended."""
    if trainer.global_step >= trainer.max_steps:
        return "all steps were made"
    if any(watcher.too_many for watcher in watchers):
        return "too many of the images drawn were copies of photos"
    if saver.gave_up:
        return f"the loss on what was kept back had been above its lowest for {saver.patience} measurements in a row"
    return "it was stopped by hand"


def _photos(trainer: Trainer) -> dict[str, Any]:
    """What became of the photos."""
    data = trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer.fit
    assert isinstance(data, PhotoData)
    assert data.found is not None
    skipped = [{"file": path.name, "why": why} for path, why in data.found.skipped]
    return {"found": len(data.found.photos), "skipped": skipped, **_plain(data.facts())}


def _loss(curve: LossCurve) -> dict[str, Any]:
    """The curve, and how it began and ended."""
    losses = [loss for _, loss in curve.points]
    part = max(1, len(losses) // 10)
    ends = {"first": sum(losses[:part]) / part, "last": sum(losses[-part:]) / part} if losses else {}
    return {**{name: round(value, 5) for name, value in ends.items()}, "curve": [[step, round(loss, 5)] for step, loss in curve.points]}


def _repairs(of: object) -> list[Any]:
    """What a module or a callback put right."""
    return list(getattr(of, "repairs", ()))


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write the report.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        path.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the report {path} could not be written ({error.strerror}); the LoRA file is whole") from error


def lines_of(report: Mapping[str, Any]) -> list[str]:
    """What is printed at the end of a run."""
    lines = [f"{report['lora']} written after {report['steps']} steps, {report['seconds']} s, {report['checkpoint']['why']}"]
    if report["steps"] < report["max_steps"]:
        lines.append(f"ended before step {report['max_steps']}: {report['ended']}")
    if skipped := report["photos"]["skipped"]:
        lines.append(f"{len(skipped)} photos were skipped, the first: {skipped[0]['file']}: {skipped[0]['why']}")
    if report["samples"]:
        last = report["samples"][-1]
        lines.append(f"of the images drawn at step {last['step']}, {last['copy_rate']:.0%} were copies of photos")
    if repairs := report["repairs"]:
        lines.append(f"{len(repairs)} things were put right on the way, see repairs in the report")
    return lines
