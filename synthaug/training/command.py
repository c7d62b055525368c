"""The options of ``synthaug fit``, and what becomes of those that were left out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from typing_extensions import override

from synthaug.errors import OutputError, SettingError, SynthaugError, require
from synthaug.training.callbacks import PlainProgress
from synthaug.training.checkpoints import Checkpoints, Found, WholeFiles, as_text, differences, newest
from synthaug.training.defaults import Card
from synthaug.training.logs import MISSING_TENSORBOARD, has_tensorboard, is_first, usual_loggers
from synthaug.training.lora_training import LoraTraining
from synthaug.training.opening import CHOSEN, Opening, choices, held_out
from synthaug.training.photo_data import PhotoData
from synthaug.training.report import LossCurve
from synthaug.training.saving import SaveLora
from synthaug.training.views import Views

__all__ = ["FitCLI", "say"]

KEPT_BACK = ("data.held_out", "data.held_out_views")

MAY_CHANGE = {"data.photos", "data.cache", "data.base", "data.prediction"}
"""Options that a resumed run may set anew: the photos themselves are compared by their content."""

ALSO = ("trainer.precision", "trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "trainer.devices", "trainer.num_nodes")
"""Options of the trainer that change what is learned."""

LENGTH = "trainer.max_steps"
"""Kept for a resumed run that is not told how long to be; it may be told otherwise."""


def say(line: str) -> None:
    """Print, in the first of several processes."""
    if is_first():
        print(line, flush=True)


class FitCLI(LightningCLI):
    """The command's options: ``--model.*``, ``--data.*``, ``--trainer.*`` and a few of its own.

    Args:
        argv: What follows ``synthaug fit``.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = list(argv)
        self.resumed: Found | None = None
        """The checkpoint to go on from."""
        self.chosen: dict[str, str] = {}
        """What was chosen, by option."""
        self._trouble: SynthaugError | None = None
        super().__init__(
            LoraTraining,
            PhotoData,
            args=list(argv),
            run=False,
            save_config_callback=None,
            trainer_defaults={
                "accelerator": "auto", "devices": 1, "max_steps": 400, "gradient_clip_val": 1.0, "precision": None,
                "enable_model_summary": False, "enable_checkpointing": True, "log_every_n_steps": 5, "logger": None,
            },
            parser_kwargs={"description": "Train a LoRA on a folder of photos.", "prog": "synthaug fit", "allow_abbrev": False},
            seed_everything_default=0,
        )  # fmt: skip

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=Path, default=Path("lora.safetensors"), help="the LoRA file to write")
        parser.add_argument("--resume", type=bool, default=False, help="go on from the last checkpoint beside the LoRA file")
        parser.add_argument("--save_every", type=int, default=50, help="steps from one checkpoint, and one measurement, to the next")
        parser.add_argument(
            "--patience", type=int, default=5, help="stop after so many measurements in a row that were worse than the lowest; 0 never"
        )
        parser.add_argument("--check_photos", type=bool, default=True, help="look at the photos first and say what is wrong with them")
        parser.link_arguments("model.base", "data.base")
        parser.link_arguments("model.prediction", "data.prediction")

    @property
    def folder(self) -> Path:
        """Where metrics, checkpoints, sample grids and the report go: beside the LoRA file."""
        out: Path = self.config.out
        return out.parent / f"{out.stem}-fit"

    @property
    def resumed_at(self) -> int | None:
        """Step that the run goes on from."""
        return None if self.resumed is None else int(self.resumed.path.stem.removeprefix("step-"))

    @property
    def settings(self) -> dict[str, str]:
        """What the run is, by option."""
        return _settings(self.config)

    @override
    def before_instantiate_classes(self) -> None:
        """Fill in what was left out: from the run that is resumed, or from the card, the base and the photos.

        Raises:
            SettingError: If a resumed run was set otherwise, or there is none.
        """
        linked = ["--model.base", self.config.model.base, "--model.prediction", self.config.model.prediction or "null"]
        argv = [*linked, *self._argv]  # what is linked to others must be there
        given = set(vars(self.parser.parse_args(argv, defaults=False).as_flat()))
        left = [name for name in (*CHOSEN, *KEPT_BACK) if name not in given]
        if any(name in given for name in KEPT_BACK):
            left = [name for name in left if name not in KEPT_BACK]
        if self.config.resume:
            self._take_over(left)
            return
        try:
            self._choose(left)
        except SynthaugError as error:
            self._trouble = error  # a number outside its range is told first

    def _take_over(self, left: Sequence[str]) -> None:
        """Settings of the run that is resumed, where none are given."""
        self.resumed = newest(self.folder)
        for sentence in self.resumed.damaged:
            say(f"{sentence}; going on from {self.resumed.path.name} instead")
        for name in left:
            if name in self.resumed.settings:
                self.config[name] = json.loads(self.resumed.settings[name])
        now = self.settings
        was = {**self.resumed.settings, LENGTH: now[LENGTH]}
        if found := differences(was, now, usual=_settings(self.parser.get_defaults())):
            raise SettingError(
                f"a run is resumed with its own settings, {'; '.join(found)}; set it back, or leave --resume out to start anew"
            )

    def _choose(self, left: Sequence[str]) -> None:
        config, made_of = self.config, ["the file of the photos says"] if Path(self.config.data.photos).suffix == ".toml" else []
        wanted = [name for name in left if name in CHOSEN and not (made_of and name == "data.batch_size")]
        if wanted:
            values, said = choices(
                Card.here(config.trainer.accelerator),
                base=config.model.base,
                prediction=config.model.prediction,
                photos=Path(config.data.photos),
                size=config.data.size,
            )
            self._set({name: values[name] for name in wanted})
            for line in said:
                say(line)
        if set(KEPT_BACK) <= set(left):
            measurements = config.trainer.max_steps // max(1, config.save_every)
            differ = Views(**config.data.views.as_dict()).differ
            values, why = held_out(Path(config.data.photos), group=config.data.group, measurements=measurements, views_differ=differ)
            self._set(values)
            say(why)
        if wanted:
            say("not given, so chosen: " + ", ".join(f"--{name} {self.chosen[name]}" for name in wanted))

    def _set(self, values: dict[str, object]) -> None:
        for name, value in values.items():
            self.config[name] = value
            self.chosen[name] = as_text(value)

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer of the configuration, with files, progress and measurements filled in."""
        require({
            "save_every must be at least 1": (self.config.save_every >= 1, self.config.save_every),
            "patience must be 0 measurements or more": (self.config.patience >= 0, self.config.patience),
        })  # fmt: skip
        _make_folder(self.folder, self.config.out)
        if self._trouble is not None:
            raise self._trouble
        settings: dict[str, Any] = {**self.config_init.trainer, **kwargs}
        on_terminal = sys.stdout.isatty()
        files = WholeFiles()
        callbacks = [*_listed(settings["callbacks"]), *self._callbacks(files), RichProgressBar() if on_terminal else PlainProgress()]
        if settings["logger"] in (None, True):
            settings["logger"] = usual_loggers(self.folder, resumed_at=self.resumed_at)
            if not has_tensorboard():
                say(MISSING_TENSORBOARD)
        settings["default_root_dir"] = settings["default_root_dir"] or self.folder
        settings["plugins"] = [*_listed(settings["plugins"]), files]
        settings |= self._measurements(settings)
        return Trainer(**{**settings, "callbacks": callbacks, "enable_progress_bar": on_terminal})

    def _callbacks(self, files: WholeFiles) -> list[Callback]:
        resumed = None if self.resumed is None else self.resumed.path
        return [
            Opening(look=self.config.check_photos and self.resumed is None),
            LossCurve(),
            SaveLora(self.config.out, patience=self.config.patience),
            Checkpoints(self.folder, every=self.config.save_every, settings=self.settings, files=files, resumed=resumed),
        ]

    def _measurements(self, settings: dict[str, Any]) -> dict[str, Any]:
        """When the photos kept back are looked at: at every checkpoint, if there are some."""
        if not self.config.data.held_out and not self.config.data.held_out_views:
            return {"limit_val_batches": 0}
        every = self.config.save_every * settings["accumulate_grad_batches"]
        return {"val_check_interval": every, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}


def _settings(config: Namespace) -> dict[str, str]:
    """What makes a run what it is, by option."""
    flat = vars(config.as_flat())
    mine = {name for name in flat if name.startswith(("model.", "data.")) and name not in MAY_CHANGE}
    return {name: as_text(flat[name]) for name in sorted(mine | {"seed_everything", LENGTH, *ALSO}) if name in flat}


def _listed(given: Any) -> list[Any]:
    """What may be left out, one thing, or several."""
    if given is None:
        return []
    return list(given) if isinstance(given, list) else [given]


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
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}); give --out in another folder") from error
