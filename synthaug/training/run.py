"""``synthaug fit``: a LightningCLI around the module and the photos."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from jsonargparse import set_parsing_settings

from synthaug.training.command import FitCLI, say
from synthaug.training.report import lines_of, report_of, write_report

__all__ = ["fit"]


def fit(argv: Sequence[str]) -> None:
    """Train a LoRA; ``argv`` is what follows ``synthaug fit``.

    Beside ``NAME.safetensors`` a folder ``NAME-fit`` gets ``metrics.csv``, TensorBoard's events, checkpoints to resume from and
    ``report.json``. What is not given is chosen for the card, the base and the photos, and said before the start.

    Raises:
        SettingError: If there is nothing to resume from, or the run that is resumed was set otherwise.
        UnusableFileError: If no checkpoint can be read.
        OutputError: If the LoRA file cannot be written.
        NumericsError: If the loss is NaN.
        KeyboardInterrupt: When it was stopped by hand; the LoRA file then holds what was learned.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    _quiet()
    cli = FitCLI(argv)
    trainer, path = cli.trainer, None if cli.resumed is None else cli.resumed.path
    try:
        trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=path, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if trainer.global_step > 0:
            _tell(cli)
            say(f"stopped at step {trainer.global_step}; {cli.config.out} holds what was learned, go on with --resume true")
        raise KeyboardInterrupt from None
    _tell(cli)


def _tell(cli: FitCLI) -> None:
    """Print what became of the run, and write it down."""
    if not cli.trainer.is_global_zero:
        return
    report = report_of(cli.trainer, cli.settings, chosen=cli.chosen, resumed_at=cli.resumed_at)
    for line in lines_of(report):
        say(line)
    write_report(report, cli.folder / "report.json")


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
