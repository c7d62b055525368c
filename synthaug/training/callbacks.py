"""Files, previews and progress of a training run."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchvision.utils import make_grid
from typing_extensions import override

from synthaug.errors import SettingError
from synthaug.lora.file import LoraFile
from synthaug.pixels import save_png
from synthaug.training.lora_training import LoraTraining
from synthaug.training.metadata import RunFacts, metadata_of
from synthaug.training.photo_data import PhotoData

__all__ = ["Draw", "PlainProgress", "SampleGrid", "SaveLora", "lora_file"]


def lora_file(trainer: Trainer, module: LoraTraining, *, name: str, started: float) -> LoraFile:
    """What has been learned so far, as a file that describes itself."""
    data = trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer.fit
    assert isinstance(data, PhotoData)
    assert data.found is not None
    assert data.size is not None
    common = Counter(data.found.captions).most_common(1)[0][0]
    facts = RunFacts(
        name=name, base=module.base, base_hash=module.base_hash, prediction_type=module.kind, caption=common, size=data.size,
        rank=module.shape.rank, alpha=module.shape.alpha, targets=module.shape.targets, conv_rank=module.shape.conv_rank,
        conv_alpha=module.shape.conv_alpha, dora=module.shape.dora, dropout=module.shape.dropout, up_ratio=module.up_ratio,
        optimizer=f"{type(trainer.optimizers[0]).__module__}.{type(trainer.optimizers[0]).__qualname__}", course=module.rate.course,
        warm_up=module.rate.warm_up, learning_rate=module.learning_rate,
        text_learning_rate=module.text_learning_rate, batch_size=data.batch_size, steps=trainer.global_step,
        max_steps=trainer.max_steps, seed=module.seed, loss=module.loss,
        caption_dropout=data.caption_dropout, gradient_checkpointing=module.gradient_checkpointing,
        precision=str(trainer.precision), started=started, finished=time.time(),
    )  # fmt: skip
    layers = module.layers()
    return LoraFile.of(layers["unet"], layers["text_encoder"], metadata_of(facts, data.found.photos))


class SaveLora(Callback):
    """Write the LoRA file at the end, and when the run is stopped before; with photos kept back, the best one seen.

    Args:
        path: The file; its stem is the LoRA's name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best: tuple[float, int] | None = None
        """Loss and step of the best file so far; None without photos kept back."""
        self._started = 0.0

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"] if self.path.exists() else None

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are the best so far."""
        loss = trainer.callback_metrics.get("val/loss")
        if loss is None or trainer.sanity_checking:
            return
        if self.best is None or float(loss) < self.best[0]:
            self.best = (float(loss), trainer.global_step)
            self._write(trainer, pl_module)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.time()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ctrl-C keeps what was learned; a failure does not overwrite a good file."""
        if isinstance(exception, KeyboardInterrupt):
            self.on_train_end(trainer, pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.best is None:
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, LoraTraining)
        lora_file(trainer, pl_module, name=self.path.stem, started=self._started).write(self.path)


class Draw(Protocol):
    """Draws with a LoRA file; ``synthaug.generation.Preview`` is one."""

    def draw(self, lora: Path) -> Tensor:
        """Images, uint8 (N, 3, H, W)."""


class SampleGrid(Callback):
    """Draw a few images every so often, each time from the same seeds.

    Training does not import drawing: ``preview`` is handed over, and meets training through a LoRA file.

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
        if trainer.global_step % self.every_n_steps or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, LoraTraining)
        folder = self.folder or Path(trainer.default_root_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        interim = folder / "interim.safetensors"
        lora_file(trainer, pl_module, name="interim", started=time.time()).write(interim)
        images = self.preview.draw(interim)
        interim.unlink()
        grid = make_grid(images, nrow=max(1, round(len(images) ** 0.5)), padding=2)
        save_png(grid, folder / f"step-{trainer.global_step:06d}.png")


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
        if trainer.global_step % self.every_n_steps and trainer.global_step != trainer.max_steps:
            return
        seconds, count = time.perf_counter() - self._since, len(self._losses)
        loss = torch.stack(self._losses).mean().item()
        print(f"step {trainer.global_step} of {trainer.max_steps}, loss {loss:.4f}, {count / seconds:.2f} steps/s", flush=True)
        self._losses, self._since = [], time.perf_counter()
