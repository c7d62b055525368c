"""Where a shard's samples come from: a folder that was drawn and screened, or a plan that is still to be drawn."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from synthaug.datasets.shard_index import file_hash
from synthaug.errors import SettingError
from synthaug.manifest import Manifest
from synthaug.records import Request, Sample

if TYPE_CHECKING:
    from synthaug.generation import Plan, Sampler

__all__ = ["DrawnPlan", "SampleFolder", "Source", "open_folder"]


class Source(Protocol):
    """An ordered set of samples."""

    def __len__(self) -> int: ...

    def mark(self, start: int, stop: int) -> str:
        """Hash that changes with anything the samples ``start`` to ``stop`` are made from."""

    def samples(self, start: int, stop: int) -> Iterator[tuple[Path, Sample]]:
        """Files and samples, in order; they need to exist only once they are asked for."""

    def finished(self, start: int, stop: int) -> None:
        """Told when these samples are safe in a shard."""


class SampleFolder:
    """Samples of a folder that was written by ``synthaug generate``: all of them, or the kept ones once it was screened.

    Args:
        manifest: The folder.

    Raises:
        SettingError: If there are no samples, none was kept, or some were drawn after the screening.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._folder = manifest.folder
        everything = manifest.samples
        unscreened = [sample for sample in everything if sample.verdict is None]
        if not everything:
            raise SettingError(f"{manifest.folder} holds no samples; draw some with: synthaug generate --out {manifest.folder}")
        if 0 < len(unscreened) < len(everything):
            raise SettingError(
                f"a folder must be screened as a whole or not at all, {len(unscreened)} of {len(everything)} samples in {manifest.folder} "
                "have no verdict; run synthaug curate again"
            )
        chosen = everything if unscreened else manifest.kept
        if not chosen:
            raise SettingError(f"all {len(everything)} samples in {manifest.folder} were rejected; look at the reasons, or draw others")
        self._samples = sorted(chosen, key=lambda sample: (sample.request.index, sample.request.digest))

    def __len__(self) -> int:
        return len(self._samples)

    def mark(self, start: int, stop: int) -> str:
        """See :class:`Source`."""
        return _hash([(s.request.digest, s.sha256, s.verdict and asdict(s.verdict)) for s in self._samples[start:stop]])

    def samples(self, start: int, stop: int) -> Iterator[tuple[Path, Sample]]:
        """See :class:`Source`."""
        return ((self._folder / sample.file, sample) for sample in self._samples[start:stop])

    def finished(self, start: int, stop: int) -> None:
        """The folder is the user's; nothing is done to it."""


class DrawnPlan:
    """Samples of a plan, drawn in batches that lie in a work folder until their shard is finished.

    The same requests always go through the network together: a batch that was cut short is drawn again as
    a whole, since another company can change a pixel by 1/255, and with it the bytes of the shard.

    Args:
        plan: What to draw.
        sampler: Draws.
        work: Folder for batches; removed when it is empty.
        draw_batch: Requests drawn at a time.

    Raises:
        SettingError: If the plan is empty, or ``draw_batch`` is below 1.
    """

    def __init__(self, plan: Plan, sampler: Sampler, work: Path, *, draw_batch: int) -> None:
        if draw_batch < 1:
            raise SettingError(f"draw_batch must be 1 or more, got {draw_batch}")
        if len(plan) == 0:
            raise SettingError("a plan must ask for at least one image to fill shards, got count=0; give a count")
        self._plan, self._sampler, self._work, self._draw_batch = plan, sampler, work, draw_batch
        self._origin = [plan.base, *(file_hash(Path(use.path)) for use in plan.loras if Path(use.path).is_file())]

    def __len__(self) -> int:
        return len(self._plan)

    def mark(self, start: int, stop: int) -> str:
        """See :class:`Source`."""
        return _hash([*self._origin, *(self._plan[index].digest for index in range(start, stop))])

    def samples(self, start: int, stop: int) -> Iterator[tuple[Path, Sample]]:
        """See :class:`Source`."""
        for at in range(start, stop, self._draw_batch):
            batch = [self._plan[index] for index in range(at, min(at + self._draw_batch, stop))]
            manifest = self._drawn(batch, self._batch_folder(start, stop, at))
            yield from ((manifest.folder / sample.file, sample) for sample in manifest.samples)

    def finished(self, start: int, stop: int) -> None:
        """See :class:`Source`."""
        for at in range(start, stop, self._draw_batch):
            shutil.rmtree(self._batch_folder(start, stop, at), ignore_errors=True)
        if self._work.is_dir() and not any(self._work.iterdir()):
            self._work.rmdir()

    def _batch_folder(self, start: int, stop: int, at: int) -> Path:
        return self._work / f"{self.mark(start, stop)[:16]}-{self._draw_batch}-{at:08d}"

    def _drawn(self, batch: Sequence[Request], folder: Path) -> Manifest:
        from synthaug.generation.folder import draw_into  # loads the networks' libraries, which a folder does not need

        manifest = Manifest(folder)
        if all(request in manifest for request in batch):
            return manifest
        shutil.rmtree(folder)
        manifest = Manifest(folder)
        draw_into(manifest, batch, self._sampler, batch_size=self._draw_batch)
        return manifest


def open_folder(folder: Path) -> Manifest:
    """Manifest of a folder that must be there.

    Raises:
        SettingError: If there is no such folder, or it holds no manifest.
    """
    if not (folder / "manifest.jsonl").is_file():
        raise SettingError(f"there is no manifest.jsonl in {folder}; give a folder that synthaug generate has written")
    return Manifest(folder)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
