"""Checkpoints to resume from: written whole or not at all, the last two kept, the newest readable one found again.

A checkpoint says which settings, photos, captions and masks it belongs to, so that a run goes on as itself or not at all.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override

from synthaug.errors import SettingError, UnusableFileError
from synthaug.training.contents import changed_contents
from synthaug.training.photo_data import PhotoData

__all__ = ["Checkpoints", "Found", "WholeFiles", "as_text", "differences", "newest"]

KEPT = 2
"""So many checkpoints stay: should the last be damaged, the one before it serves."""

MARK = "synthaug"
"""Key of a checkpoint under which settings and hashes of what was trained on are found."""


class WholeFiles(TorchCheckpointIO):
    """Write a checkpoint under another name first; a full disk costs this checkpoint and not the run."""

    trouble: OSError | None = None
    """Why the last checkpoint could not be written; None when it was."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        self.trouble = None
        try:
            with part.open("wb") as opened:
                opened.write(buffer.getbuffer())
                opened.flush()
                os.fsync(opened.fileno())
            part.replace(path)
        except OSError as error:
            self.trouble = error
            with suppress(OSError):  # the first failure is the one to tell
                part.unlink(missing_ok=True)


class Checkpoints(Checkpoint):
    """Keep the state of a run every so often, after the photos kept back have been looked at, if they are.

    Args:
        folder: Where ``step-000050.ckpt`` and so on go.
        every: Steps from one to the next.
        settings: What the run is, by option; a run with other settings cannot go on from its checkpoints.
        files: Writes them, and says when it could not.
        resumed: The checkpoint that this run goes on from.
    """

    def __init__(self, folder: Path, *, every: int, settings: Mapping[str, str], files: WholeFiles, resumed: Path | None = None) -> None:
        self.folder, self.every, self.settings, self.files = folder, every, dict(settings), files
        self.repairs: list[str] = []
        """What could not be written, in words."""
        self._own = [] if resumed is None else [resumed]
        self._at = -1
        self._contents: dict[str, list[str]] = {}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at the photos before the weights are loaded.

        Raises:
            SettingError: If they, their captions or their masks are not those that the checkpoint was trained on.
        """
        if self._contents:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer.fit
        assert isinstance(data, PhotoData)
        self._contents = data.contents()
        if not self._own:
            return
        self._at = trainer.global_step
        if changed := changed_contents(read(self._own[0])[MARK], self._contents):
            raise SettingError(f"a run is resumed with its own {changed}; put them back, or leave --resume out to start anew")

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse another base under the same name.

        Raises:
            SettingError: If the weights differ.
        """
        was, now = checkpoint[MARK]["base_hash"], pl_module.base_hash
        if was != now:
            raise SettingError(
                f"a run is resumed on its own base, {was[:8]} has become {str(now)[:8]}; bring the base back, "
                "or leave --resume out to start anew"
            )

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[MARK] = {"settings": self.settings, "base_hash": pl_module.base_hash, **self._contents}

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.every == 0 and not sum(trainer.num_val_batches):
            self._save(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What was just measured belongs to the checkpoint; Lightning calls this after every other callback."""
        if not trainer.sanity_checking:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step == self._at:
            return
        self._at = trainer.global_step
        path = self.folder / f"step-{self._at:06d}.ckpt"
        trainer.save_checkpoint(path)
        if not trainer.is_global_zero:
            return
        if self.files.trouble is None:
            self._own = [*self._own, path][-KEPT:]
            for old in set(checkpoints_in(self.folder)) - set(self._own):
                old.unlink(missing_ok=True)
            return
        kept = f"{self._own[-1].name} is still there" if self._own else "there is none yet"
        self.repairs.append(
            f"the checkpoint of step {self._at} could not be written ({self.files.trouble.strerror}); training goes on, the next is tried "
            f"at step {self._at + self.every}, {kept}: free some space in {self.folder}"
        )
        print(self.repairs[-1], flush=True)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A checkpoint to go on from."""

    path: Path

    settings: dict[str, str]
    """What the run was."""

    damaged: tuple[str, ...]
    """Newer ones that could not be read, with the reason."""


def checkpoints_in(folder: Path) -> list[Path]:
    """Every checkpoint of a folder, the oldest first."""
    return sorted(path for path in folder.glob("step-*.ckpt") if re.fullmatch(r"step-\d+\.ckpt", path.name))


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content: tensors and plain values; anything else in the file is refused, not run.

    Raises:
        UnusableFileError: If it is damaged or no checkpoint of ours.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        first = next(iter(str(error).splitlines()), "it ends too early")
        raise UnusableFileError(f"{path.name} cannot be read ({first[:120]})") from error
    if not isinstance(content, dict) or MARK not in content:
        raise UnusableFileError(f"{path.name} is no checkpoint of synthaug fit")
    return content


def newest(folder: Path) -> Found:
    """The newest checkpoint that can be read.

    Raises:
        SettingError: If there is none at all.
        UnusableFileError: If none can be read.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints_in(folder)):
        try:
            return Found(path=path, settings=read(path)[MARK]["settings"], damaged=tuple(damaged))
        except UnusableFileError as error:
            damaged.append(str(error))
    if damaged:
        raise UnusableFileError(f"no checkpoint in {folder} can be resumed from: {'; '.join(damaged)}; leave --resume out to start anew")
    raise SettingError(f"--resume needs the checkpoint of an earlier run, there is none in {folder}; leave --resume out to start anew")


def differences(was: Mapping[str, str], now: Mapping[str, str], *, usual: Mapping[str, str] | None = None) -> list[str]:
    """Settings that two runs have set differently, in words; one that only one of them has is told by the option it belongs to.

    Args:
        was: Settings of the run that is resumed.
        now: Settings that are asked for.
        usual: What options are when they are left out, for those that ``was`` does not know.

    Example:
        >>> differences({"model.shape.rank": "8", "model.seed": "0"}, {"model.shape.rank": "16", "model.seed": "0"})
        ['model.shape.rank was 8, now 16']
        >>> differences({"data.buckets": "null"}, {"data.buckets.enabled": "true", "data.buckets.step": "64"})
        ['data.buckets was null, now enabled true, step 64']
        >>> differences({"m.loss.a": "0"}, {"m.loss.a": "0", "m.loss.b": "1", "m.c": "2"}, usual={"m.loss.b": "1", "m.c": "1"})
        ['m.c was 1, now 2']
    """
    known = was.keys() | {option for name in was for option in _above(name)}
    was = {name: value for name, value in (usual or {}).items() if name not in known and not was.keys() & set(_above(name))} | dict(was)
    names = was.keys() | now.keys()
    options = {next((option for option in _above(name) if option in names), name) for name in names}
    told = {option: (_told(was, option), _told(now, option)) for option in sorted(options)}
    return [f"{option} was {before}, now {after}" for option, (before, after) in told.items() if before != after]


def _above(name: str) -> list[str]:
    """Options that a setting may belong to, the outermost first: ``a.b`` for ``a.b.c``, but not ``a``, which holds everything."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(2, len(parts))]


def _told(settings: Mapping[str, str], option: str) -> str:
    """The value of an option, or of everything that belongs to it."""
    if option in settings:
        return settings[option]
    inner = {name.removeprefix(f"{option}."): value for name, value in sorted(settings.items()) if name.startswith(f"{option}.")}
    return inner.get("class_path") or ", ".join(f"{name} {value}" for name, value in inner.items()) or "null"


def as_text(value: object) -> str:
    """A setting as it is compared and printed, in every process alike.

    Example:
        >>> as_text(json.dumps), as_text((0.0, 1.0))
        ('"json.dumps"', '[0.0, 1.0]')
    """
    return json.dumps(value, default=_named, sort_keys=True)


def _named(value: object) -> str:
    """Functions and classes by their name, since their text says where they lie in memory."""
    name = getattr(value, "__qualname__", None)
    return str(value) if name is None else f"{getattr(value, '__module__', '')}.{name}"
