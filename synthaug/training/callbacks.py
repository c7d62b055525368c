"""Previews and progress of a training run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchvision.utils import make_grid
from typing_extensions import override

from synthaug.errors import SettingError
from synthaug.pixels import save_png
from synthaug.training.copy_rate import Draw, drawn, room_lacks
from synthaug.training.logs import log_picture
from synthaug.training.lora_training import LoraTraining
from synthaug.training.memory import free_caches

__all__ = ["PlainProgress", "SampleGrid"]


class SampleGrid(Callback):
    """Draw a few images every so often, each time from the same seeds.

    Training does not import drawing: ``preview`` is handed over, and meets training through a LoRA file. A run that logs to
    TensorBoard shows the grids there, too.

    Args:
        preview: Draws with a LoRA file, such as ``synthaug.generation.Preview``.
        every_n_steps: How often.
        folder: Where the grids go, ``step-000100.png`` and so on; ``samples`` beside the checkpoints when left out.
    """

    def __init__(self, preview: Draw, *, every_n_steps: int = 200, folder: Path | None = None) -> None:
        if every_n_steps < 1:
            raise SettingError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.preview, self.every_n_steps, self.folder = preview, every_n_steps, folder

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step % self.every_n_steps or (batch_idx + 1) % trainer.accumulate_grad_batches or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, LoraTraining)
        try:
            self._draw(trainer, pl_module, step)
        except OSError as error:  # a full disk costs the grid, not the run
            print(f"step {step}: the sample grid could not be written ({error.strerror or error}); training goes on", flush=True)
        except RuntimeError as error:
            room_lacks(error, step, "the sample grid")
            free_caches()

    def _draw(self, trainer: Trainer, pl_module: LoraTraining, step: int) -> None:
        folder = self.folder or Path(trainer.default_root_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        images = drawn(self.preview, trainer, pl_module)
        grid = make_grid(images, nrow=max(1, round(len(images) ** 0.5)), padding=2)
        save_png(grid, folder / f"step-{step:06d}.png")
        log_picture(trainer, "samples", grid, step - 1)  # Lightning counts from 0


class PlainProgress(Callback):
    """One line now and then, for logs and pipes.

    Args:
        every_n_steps: How often.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._losses: list[Tensor] = []
        self._since = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not trainer.is_global_zero:
            return
        self._losses.append(outputs["loss"].detach())
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step % self.every_n_steps and trainer.global_step != trainer.max_steps:
            return
        seconds, count = time.perf_counter() - self._since, len(self._losses) / trainer.accumulate_grad_batches
        loss = torch.stack(self._losses).mean().item()
        print(f"step {trainer.global_step} of {trainer.max_steps}, loss {loss:.4f}, {count / seconds:.2f} steps/s", flush=True)
        self._losses, self._since = [], time.perf_counter()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What was measured; the time it took is not training's."""
        if "val/loss" in trainer.callback_metrics and trainer.is_global_zero and not trainer.sanity_checking:
            print(f"step {trainer.global_step}, loss on what is kept back {float(trainer.callback_metrics['val/loss']):.4f}", flush=True)
