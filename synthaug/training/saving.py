"""The LoRA file of a run: which step's weights it holds, and where it goes when the disk is full."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from synthaug.errors import OutputError
from synthaug.lora.codec import read_updates
from synthaug.lora.file import LoraFile
from synthaug.training.lora_training import LoraTraining
from synthaug.training.metadata import metadata_of
from synthaug.training.photo_data import PhotoData
from synthaug.training.progress import TIE, Progress

__all__ = ["SaveLora", "lora_file"]


def lora_file(trainer: Trainer, module: LoraTraining, *, name: str, started: float, measured: tuple[int, float] | None = None) -> LoraFile:
    """What has been learned so far, as a file that describes itself."""
    data = trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer.fit
    assert isinstance(data, PhotoData)
    layers = module.layers()
    metadata = metadata_of(trainer, module, data, layers, name=name, started=started, measured=measured)
    second = layers["text_encoder_2"]
    return LoraFile.of(
        layers["unet"], layers["text_encoder"], metadata, text_encoder_2=second or None, two_encoders=module.family == "sdxl"
    )


class SaveLora(Callback):
    """Write the LoRA file at the end and when the run is stopped; where something was kept back, the best step's.

    Args:
        path: The file; its stem is the LoRA's name.
        patience: Stop the run after so many measurements in a row that were worse than the lowest; 0 never does.
    """

    def __init__(self, path: Path, *, patience: int = 0) -> None:
        self.path, self.patience = path, patience
        self.progress = Progress()
        """Losses on what was kept back; empty when nothing was."""
        self.repairs: list[str] = []
        """What could not be written, in words."""
        self.written: Path | None = None
        """The file that holds the result, once it is there."""
        self._best: LoraFile | None = None
        self._started = 0.0

    @property
    def choice(self) -> str:
        """Which step's weights the file holds, and why."""
        kept, lowest = self.progress.kept, self.progress.lowest
        if kept is None or lowest is None:
            return "as it was at the end: nothing was kept back to measure it on"
        if kept == lowest:
            return f"as it was at step {kept[0]}, where the loss on what was kept back was lowest ({kept[1]:.4f})"
        return (
            f"as it was at step {kept[0]}, the last whose loss on what was kept back ({kept[1]:.4f}) came within {TIE:.0%} of the lowest "
            f"({lowest[1]:.4f} at step {lowest[0]})"
        )

    @property
    def gave_up(self) -> bool:
        """Whether the run was stopped because it got worse."""
        return self.patience > 0 and self.progress.worse >= self.patience

    @override
    def state_dict(self) -> dict[str, Any]:
        """Measurements, and the best weights, since the file may be another's when the run goes on."""
        best = None if self._best is None else (_tensors(self._best), dict(self._best.metadata))
        return {"measured": self.progress.measured, "best": best, "started": self._started, "repairs": self.repairs}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.progress = Progress(measured=[(int(step), float(loss)) for step, loss in state_dict["measured"]])
        self._started, self.repairs = state_dict["started"], list(state_dict["repairs"])
        if state_dict["best"] is not None:
            tensors, metadata = state_dict["best"]
            self._best = LoraFile(layers=read_updates(tensors, metadata, self.path), metadata=metadata)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had been stopped for getting worse is not trained on."""
        self._started = self._started or time.time()
        trainer.should_stop |= self.gave_up

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Lightning measures when a stop is asked for: so the last step is measured too, wherever it falls."""
        trainer.should_stop |= trainer.global_step >= trainer.max_steps > 0

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are about as good as the best so far; stop when they get worse and worse."""
        loss = trainer.callback_metrics.get("val/loss")
        if loss is None or trainer.sanity_checking:
            return
        together = trainer.strategy.reduce(loss.detach().to(trainer.strategy.root_device), reduce_op="mean")
        self.progress.add(trainer.global_step, float(together))
        if self.progress.kept == self.progress.measured[-1]:
            self._keep(trainer, pl_module)
        trainer.should_stop |= self.gave_up

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ctrl-C keeps what was learned, if training had begun; a failure does not overwrite a good file."""
        if isinstance(exception, KeyboardInterrupt) and self._started and trainer.global_step > 0:
            self.on_train_end(trainer, pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the result for good.

        Raises:
            OutputError: If it could be written nowhere, or in the folder for temporary files alone.
        """
        if not trainer.is_global_zero:
            return
        best = self._best or self._now(trainer, pl_module)
        try:
            best.write(self.path)
            self.written = self.path
        except OutputError as error:
            raise OutputError(f"{error}; {self._elsewhere(best)}") from error

    def _keep(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the weights, and write them; when that fails it is tried again at the end."""
        if not trainer.is_global_zero:
            return
        self._best = self._now(trainer, pl_module)
        try:
            self._best.write(self.path)
        except OutputError as error:
            self.repairs.append(f"step {trainer.global_step}: {error}; training goes on, it is tried again later")
            print(self.repairs[-1], flush=True)

    def _now(self, trainer: Trainer, pl_module: LightningModule) -> LoraFile:
        assert isinstance(pl_module, LoraTraining)
        return lora_file(trainer, pl_module, name=self.path.stem, started=self._started, measured=self.progress.kept)

    def _elsewhere(self, file: LoraFile) -> str:
        """Keep what was learned in the folder for temporary files; says how that went, and the way on."""
        refuge = Path(tempfile.mkdtemp(prefix="synthaug-")) / self.path.name
        try:
            file.write(refuge)
        except OutputError as error:
            return f"nor could it be kept elsewhere ({error}); free some space and go on from the last checkpoint with --resume true"
        self.written = refuge
        return f"what was learned is in {refuge}: free some space, then move it"


def _tensors(file: LoraFile) -> dict[str, Any]:
    """Tensors by their name in a file."""
    return {f"{name}.{part}": value.contiguous() for name, layer in file.layers.items() for part, value in layer.tensors().items()}
