"""Where the numbers of a run go when no logger is asked for: ``metrics.csv`` and TensorBoard."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from typing_extensions import override

from synthaug.errors import OutputError

__all__ = ["MISSING_TENSORBOARD", "has_tensorboard", "is_first", "log_picture", "usual_loggers"]

MISSING_TENSORBOARD = (
    "TensorBoard is not installed, numbers go into metrics.csv alone; pip install tensorboard, or name another logger with --trainer.logger"
)


def usual_loggers(folder: Path, *, resumed_at: int | None) -> list[Logger]:
    """CSV and, where it is installed, TensorBoard.

    Args:
        folder: The run's own.
        resumed_at: Step that the run goes on from: what was logged before it stays, what was logged after it is logged again;
            None for a new run.

    Raises:
        OutputError: If earlier numbers cannot be rewritten.
    """
    written = _Metrics(folder.parent, name="", version=folder.name, flush_logs_every_n_steps=1)
    if is_first():
        before = _rows(folder / "metrics.csv", resumed_at)
        written.experiment.metrics = before  # the writer starts anew and would drop them
        if resumed_at is None:
            _forget(folder / "tensorboard")
    if not has_tensorboard():
        return [written]
    more: dict[str, Any] = {} if resumed_at is None else {"purge_step": resumed_at}
    return [written, TensorBoardLogger(folder.parent, name="", version=folder.name, sub_dir="tensorboard", default_hp_metric=False, **more)]


class _Metrics(CSVLogger):
    """Numbers as CSV; a full disk costs the newest rows until there is room again, not the run."""

    _trouble = False

    @override
    def save(self) -> None:
        try:
            super().save()
        except OSError as error:
            if not self._trouble:
                print(f"{self.log_dir}/metrics.csv could not be written ({error.strerror}); training goes on and tries again", flush=True)
            self._trouble = True


def is_first() -> bool:
    """Whether this is the first of several processes, or the only one; known before there is a trainer."""
    return getattr(rank_zero_only, "rank", None) in (None, 0)


def has_tensorboard() -> bool:
    """Whether events can be written."""
    return find_spec("tensorboard") is not None or find_spec("tensorboardX") is not None


def log_picture(trainer: Trainer, name: str, picture: Tensor, step: int) -> None:
    """Show a picture, uint8 (3, H, W), in every TensorBoard log of the run."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, step)


def _rows(file: Path, until: int | None) -> list[dict[str, Any]]:
    """What was logged up to a step."""
    if until is None or not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as opened:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(opened)]
    return [row for row in rows if float(row["step"]) < until]


def _forget(events: Path) -> None:
    """Remove the events of an earlier run of this name, which would be drawn into the same curves."""
    try:
        for file in events.glob("events.out.tfevents.*"):
            file.unlink()
    except OSError as error:
        raise OutputError(f"{events} cannot be emptied ({error.strerror}); give --out in another folder") from error
