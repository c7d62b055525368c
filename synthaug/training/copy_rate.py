"""Does the LoRA learn the photos by heart? Draw with it now and then, and compare with them."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from synthaug.errors import require
from synthaug.photos.folder import load_pictures
from synthaug.training.lora_training import LoraTraining
from synthaug.training.memory import free_caches, is_out_of_memory
from synthaug.training.photo_data import PhotoData
from synthaug.training.saving import lora_file

__all__ = ["CopyRate", "Draw", "Score", "drawn", "room_lacks"]


class Draw(Protocol):
    """Draws with a LoRA file; ``synthaug.generation.Preview`` is one."""

    def draw(self, lora: Path) -> Tensor:
        """Images, uint8 (N, 3, H, W)."""


class Score(Protocol):
    """Compares drawn images with the photos; ``synthaug.curation.PhotoLikeness`` is one."""

    def score(self, images: Tensor, photos: Tensor) -> dict[str, float]:
        """Numbers by name, ``copy_rate`` among them; images and photos are uint8 (N, 3, H, W) and (M, 3, H, W)."""


def drawn(draw: Draw, trainer: Trainer, module: LoraTraining) -> Tensor:
    """Images drawn with what has been learned so far, through a file that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="synthaug-") as folder:
        interim = Path(folder) / "interim.safetensors"
        lora_file(trainer, module, name="interim", started=time.time()).write(interim)
        return draw.draw(interim)


def room_lacks(error: RuntimeError, step: int, what: str) -> None:
    """Say that something was left out because memory did not hold it; training goes on.

    Args:
        error: Raised again if it is another one.
        step: When.
        what: What was left out, such as ``the sample grid``.
    """
    if not is_out_of_memory(error):
        raise error
    first = str(error).splitlines()[0].rstrip(".")
    print(f"step {step}: memory does not hold drawing beside training, {what} is left out ({first}); training goes on", flush=True)


class CopyRate(Callback):
    """Measure every so often how much drawn images resemble the photos, and stop when too many are copies.

    Training imports neither drawing nor scoring: both are handed over, in YAML by ``class_path``. The images of each
    measurement come from the same seeds, so that a resumed run measures what the uninterrupted one would have.

    Args:
        preview: Draws with a LoRA file, such as ``synthaug.generation.Preview``; 16 images or more tell something.
        score: Compares, such as ``synthaug.curation.PhotoLikeness``.
        every_n_steps: How often.
        stop_above: Stop the run when more than this share of images are copies; never when left out.

    Raises:
        SettingError: If a number is outside its range.
    """

    def __init__(self, preview: Draw, score: Score, *, every_n_steps: int = 200, stop_above: float | None = None) -> None:
        require({
            "every_n_steps must be at least 1": (every_n_steps >= 1, every_n_steps),
            "stop_above must be a share from 0 to 1": (stop_above is None or 0 <= stop_above <= 1, stop_above),
        })  # fmt: skip
        self.preview, self.score, self.every_n_steps, self.stop_above = preview, score, every_n_steps, stop_above
        self.measured: list[tuple[int, dict[str, float]]] = []
        """Step and numbers of every measurement."""
        self._photos: Tensor | None = None

    @property
    def too_many(self) -> bool:
        """Whether the last measurement found more copies than are allowed."""
        return bool(self.measured) and self.stop_above is not None and self.measured[-1][1]["copy_rate"] > self.stop_above

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"measured": self.measured}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.measured = [(int(step), dict(numbers)) for step, numbers in state_dict["measured"]]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had been stopped for its copies is not trained on."""
        trainer.should_stop |= self._agreed(trainer)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step % self.every_n_steps or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.is_global_zero:
            self._measure(trainer, pl_module, step)
        trainer.should_stop |= self._agreed(trainer)

    def _measure(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        assert isinstance(pl_module, LoraTraining)
        try:
            images = drawn(self.preview, trainer, pl_module)
        except RuntimeError as error:
            room_lacks(error, step, "the copy rate")
            free_caches()
            return
        numbers = {name: float(value) for name, value in self.score.score(images, self._pictures(trainer)).items()}
        self.measured.append((step, numbers))
        for logger in trainer.loggers:
            logger.log_metrics({f"samples/{name}": value for name, value in numbers.items()}, step=step - 1)  # Lightning counts from 0
        print(f"step {step}, of {len(images)} images drawn: " + ", ".join(f"{k} {v:.3f}" for k, v in numbers.items()), flush=True)

    def _agreed(self, trainer: Trainer) -> bool:
        """Every process stops when the first one says so."""
        return bool(trainer.strategy.broadcast(self.too_many))

    def _pictures(self, trainer: Trainer) -> Tensor:
        """The photos at the size they are trained at, read once."""
        if self._photos is None:
            data = trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer.fit
            assert isinstance(data, PhotoData)
            assert data.found is not None
            assert data.size is not None
            self._photos = load_pictures(data.found.photos, data.size)
        return self._photos
