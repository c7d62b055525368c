"""``synthaug fit``: a LightningCLI around the module and the photos."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import set_parsing_settings
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from typing_extensions import override

from synthaug.errors import OutputError, SettingError, require
from synthaug.models.numerics import choose_precision
from synthaug.training.callbacks import PlainProgress, SaveLora
from synthaug.training.lora_training import LoraTraining
from synthaug.training.photo_data import PhotoData

__all__ = ["fit"]


class FitCLI(LightningCLI):
    """The command's options: ``--model.*``, ``--data.*``, ``--trainer.*`` and five of its own."""

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=Path, default=Path("lora.safetensors"), help="the LoRA file to write")
        parser.add_argument("--resume", type=bool, default=False, help="go on from the last checkpoint beside the LoRA file")
        parser.add_argument("--save_every", type=int, default=50, help="steps from one checkpoint to the next")
        parser.add_argument("--patience", type=int, default=10, help="stop after so many measurements without progress; 0 never")
        parser.link_arguments("model.base", "data.base")

    @property
    def folder(self) -> Path:
        """Where metrics, checkpoints and sample grids go: beside the LoRA file."""
        out: Path = self.config.out
        return out.parent / f"{out.stem}-fit"

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer of the configuration, with files, progress and precision filled in."""
        require({
            "save_every must be at least 1": (self.config.save_every >= 1, self.config.save_every),
            "patience must be 0 measurements or more": (self.config.patience >= 0, self.config.patience),
        })  # fmt: skip
        _make_folder(self.folder, self.config.out)
        settings: dict[str, Any] = {**self.config_init.trainer, **kwargs}
        on_terminal = sys.stdout.isatty()
        given = settings["callbacks"] or []
        callbacks = [
            *(given if isinstance(given, list) else [given]),
            SaveLora(self.config.out),
            ModelCheckpoint(
                self.folder, every_n_train_steps=self.config.save_every, save_last=True, save_top_k=0, enable_version_counter=False
            ),
            RichProgressBar() if on_terminal else PlainProgress(),
        ]
        if settings["precision"] is None:
            settings["precision"] = _trainer_precision(settings["accelerator"])
        if settings["logger"] is False:
            settings["logger"] = CSVLogger(self.folder.parent, name="", version=self.folder.name)
        settings["default_root_dir"] = settings["default_root_dir"] or self.folder
        if self.config_init.data.held_out:
            settings |= {"val_check_interval": self.config.save_every, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
            if self.config.patience:
                callbacks.append(EarlyStopping("val/loss", patience=self.config.patience))
        else:
            settings["limit_val_batches"] = 0
        return Trainer(**{**settings, "callbacks": callbacks, "enable_progress_bar": on_terminal})


def fit(argv: Sequence[str]) -> None:
    """Train a LoRA; ``argv`` is what follows ``synthaug fit``.

    Beside ``NAME.safetensors`` a folder ``NAME-fit`` gets ``metrics.csv`` and a checkpoint to resume from.

    Raises:
        SettingError: If there is nothing to resume from.
        OutputError: If the LoRA file cannot be written.
        NumericsError: If the loss is NaN.
        KeyboardInterrupt: When it was stopped by hand; the LoRA file then holds what was learned.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    _quiet()
    cli = FitCLI(
        LoraTraining,
        PhotoData,
        args=list(argv),
        run=False,
        save_config_callback=None,
        trainer_defaults={
            "accelerator": "auto", "devices": 1, "max_steps": 400, "gradient_clip_val": 1.0, "precision": None,
            "enable_model_summary": False, "enable_checkpointing": True, "log_every_n_steps": 5, "logger": False,
        },
        parser_kwargs={"description": "Train a LoRA on a folder of photos.", "prog": "synthaug fit", "allow_abbrev": False},
        seed_everything_default=0,
    )  # fmt: skip
    out, last = cli.config.out, cli.folder / "last.ckpt"
    if cli.config.resume and not last.exists():
        raise SettingError(f"--resume needs the checkpoint of an earlier run, there is no {last}; leave --resume out to start anew")
    started = time.perf_counter()
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=last if cli.config.resume else None, weights_only=False)
    except SystemExit:  # Lightning's answer to Ctrl-C
        print(f"stopped at step {cli.trainer.global_step}; {out} holds what was learned, go on with --resume true", flush=True)
        raise KeyboardInterrupt from None
    if cli.trainer.is_global_zero:
        best = next(callback for callback in _callbacks(cli.trainer) if isinstance(callback, SaveLora)).best
        which = "" if best is None else f", as it was at step {best[1]}, where the loss on the photos kept back was lowest ({best[0]:.4f})"
        print(f"{out} written after {cli.trainer.global_step} steps, {time.perf_counter() - started:.1f} s{which}")


def _callbacks(trainer: Trainer) -> list[Callback]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]  # set by the trainer's connector


def _make_folder(folder: Path, out: Path) -> None:
    """Find out before training, not after, whether the LoRA file can be written.

    Raises:
        OutputError: If it cannot.
    """
    if out.is_dir():
        raise OutputError(f"--out must be a file, {out} is a folder; give it a name such as {out / 'lora.safetensors'}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}); give --out in another folder") from error


def _trainer_precision(accelerator: str) -> str:
    """Lightning's name for the precision that suits the card; a CPU that multiplies bf16 in hardware is used so."""
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"
    autocast = choose_precision("auto", "cuda").autocast
    return {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}.get(autocast, "32-true") if autocast else "32-true"


def _quiet() -> None:
    """Keep Lightning's advertisements and its advice for other people's runs out of the output."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*Checkpoint directory.*exists.*",
        ".*logs directory.*exists.*",
        "LightningCLI's args parameter.*",
        "Be aware that when using .ckpt_path.*",  # another --save_every is no reason to worry
        "Found .* in eval mode.*",  # the frozen base is meant to be in eval mode
    ):
        warnings.filterwarnings("ignore", text)
