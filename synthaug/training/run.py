"""``synthaug fit``: a LightningCLI around the module and the photos."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import set_parsing_settings
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from typing_extensions import override

from synthaug.errors import SettingError
from synthaug.models.numerics import choose_precision
from synthaug.training.callbacks import PlainProgress, SaveLora
from synthaug.training.lora_training import LoraTraining
from synthaug.training.photo_data import PhotoData

__all__ = ["fit"]


class FitCLI(LightningCLI):
    """The command's options: ``--model.*``, ``--data.*``, ``--trainer.*``, ``--out``, ``--resume``."""

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=Path, default=Path("lora.safetensors"), help="the LoRA file to write")
        parser.add_argument("--resume", type=bool, default=False, help="go on from the last checkpoint beside the LoRA file")
        parser.link_arguments("model.base", "data.base")


def fit(argv: Sequence[str]) -> None:
    """Train a LoRA; ``argv`` is what follows ``synthaug fit``.

    Beside ``NAME.safetensors`` a folder ``NAME-fit`` gets ``metrics.csv`` and a checkpoint to resume from.

    Raises:
        SettingError: If there is nothing to resume from.
        NumericsError: If the loss is NaN.
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
        parser_kwargs={"description": "Train a LoRA on a folder of photos.", "prog": "synthaug fit"},
        seed_everything_default=0,
    )  # fmt: skip
    out: Path = cli.config.out
    folder = out.parent / f"{out.stem}-fit"
    last = folder / "last.ckpt"
    if cli.config.resume and not last.exists():
        raise SettingError(f"--resume needs the checkpoint of an earlier run, there is no {last}; leave --resume out to start anew")
    trainer = _with_outputs(cli, out, folder)
    trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=last if cli.config.resume else None, weights_only=False)
    if trainer.interrupted:
        print(f"stopped at step {trainer.global_step}; {out} holds what was learned, go on with --resume true", flush=True)
        raise KeyboardInterrupt
    print(f"{out} written after {trainer.global_step} steps")


def _with_outputs(cli: FitCLI, out: Path, folder: Path) -> Trainer:
    """The trainer of the configuration, with files, progress and precision filled in."""
    settings: dict[str, Any] = dict(cli.config_init.trainer)
    on_terminal = sys.stdout.isatty()
    callbacks = list(settings.pop("callbacks") or [])
    callbacks += [
        SaveLora(out),
        ModelCheckpoint(folder, every_n_train_steps=100, save_last=True, save_top_k=0, enable_version_counter=False),
        RichProgressBar() if on_terminal else PlainProgress(),
    ]
    if settings["precision"] is None:
        settings["precision"] = _trainer_precision(settings["accelerator"])
    settings["logger"] = CSVLogger(out.parent, name="", version=folder.name) if settings["logger"] is False else settings["logger"]
    return Trainer(**{**settings, "callbacks": callbacks, "enable_progress_bar": on_terminal})


def _trainer_precision(accelerator: str) -> str:
    """Lightning's name for the precision that suits the card; a CPU that multiplies bf16 in hardware is used so."""
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"
    autocast = choose_precision("auto", "cuda").autocast
    return {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}.get(autocast, "32-true") if autocast else "32-true"


def _quiet() -> None:
    """Keep Lightning's advertisements and its advice for other people's runs out of the output."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for text in (".*does not have many workers.*", ".*isinstance.treespec, LeafSpec.*", ".*Checkpoint directory.*exists.*"):
        warnings.filterwarnings("ignore", text)


