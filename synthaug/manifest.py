"""A folder of samples: PNG files and ``manifest.jsonl``, one line each.

Lines are appended as images are finished, so a killed run loses nothing that was drawn; a line that
was cut short by a crash is dropped when the folder is opened again. Verdicts go into
``verdicts.jsonl``, rewritten as a whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from synthaug.errors import OutputError, UnusableFileError
from synthaug.records import Request, Sample, Verdict

__all__ = ["Manifest"]


class Manifest:
    """The samples of a folder.

    Args:
        folder: Made if it is not there.

    Raises:
        OutputError: If the folder cannot be made.
        UnusableFileError: If a whole line of the manifest, or the verdicts, cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     manifest = Manifest(Path(folder))
        ...     manifest.append(Sample(file="0.png", request=Request(prompt="a fish", seed=1), sha256="00"))
        ...     [sample.file for sample in Manifest(Path(folder)).samples]
        ['0.png']
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder {folder} cannot be made ({error.strerror}); choose another one") from error
        self._torn_at: int | None = None
        self._samples = {sample.request.digest: sample for sample in self._read()}

    @property
    def samples(self) -> list[Sample]:
        """All samples by their place in the plan, verdicts included."""
        return sorted(self._samples.values(), key=lambda sample: sample.request.index)

    @property
    def kept(self) -> list[Sample]:
        """Samples that were screened and kept."""
        return [sample for sample in self.samples if sample.verdict is not None and sample.verdict.keep]

    def __contains__(self, request: Request) -> bool:
        found = self._samples.get(request.digest)
        return found is not None and (self.folder / found.file).exists()

    def append(self, sample: Sample) -> None:
        """Note a sample whose image is already on disk.

        Raises:
            OutputError: If the line cannot be written; the next one that can be takes its place.
        """
        line = {"file": sample.file, "sha256": sample.sha256, "seconds": round(sample.seconds, 4), "request": sample.request.to_json()}
        if sample.repairs:
            line["repairs"] = list(sample.repairs)
        path = self.folder / "manifest.jsonl"
        try:
            with path.open("ab") as out:
                if self._torn_at is not None:
                    out.truncate(self._torn_at)
                self._torn_at = out.seek(0, os.SEEK_END)  # until the whole line is on disk
                out.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise OutputError(f"{path} could not be written ({error.strerror}); free some space") from error
        self._torn_at = None
        self._samples[sample.request.digest] = sample

    def judge(self, verdicts: Iterable[tuple[Sample, Verdict]]) -> None:
        """Replace all verdicts; samples without one count as not screened.

        Raises:
            OutputError: If they cannot be written; the old ones are then still there.
        """
        given = list(verdicts)
        lines = [json.dumps({"file": sample.file, **asdict(verdict)}, ensure_ascii=False) + "\n" for sample, verdict in given]
        part, path = self.folder / ".verdicts.jsonl.part", self.folder / "verdicts.jsonl"
        try:
            part.write_text("".join(lines), encoding="utf-8")
            part.replace(path)
        except OSError as error:
            raise OutputError(f"{path} could not be written ({error.strerror}); free some space") from error
        by_digest = {sample.request.digest: verdict for sample, verdict in given}
        self._samples = {name: replace(sample, verdict=by_digest.get(name)) for name, sample in self._samples.items()}

    def _read(self) -> list[Sample]:
        path = self.folder / "manifest.jsonl"
        if not path.exists():
            return []
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        if torn:
            self._torn_at = len(whole) + 1 if whole else 0
        verdicts = self._verdicts()
        samples = []
        for number, line in enumerate(whole.split(b"\n") if whole else (), 1):
            try:
                data = json.loads(line)
                request = Request.from_json(data["request"])
                name, sha256, seconds, repairs = data["file"], data["sha256"], data["seconds"], tuple(data.get("repairs", ()))
            except (KeyError, TypeError, ValueError) as error:
                raise UnusableFileError(f"{path}, line {number} is not a sample ({error}); delete the line to go on") from error
            samples.append(Sample(file=name, request=request, sha256=sha256, seconds=seconds, repairs=repairs, verdict=verdicts.get(name)))
        return samples

    def _verdicts(self) -> dict[str, Verdict]:
        path = self.folder / "verdicts.jsonl"
        if not path.exists():
            return {}
        try:
            rows = [json.loads(line) for line in path.read_bytes().splitlines()]
            return {row.pop("file"): Verdict(**row) for row in rows}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UnusableFileError(f"{path} holds no verdicts ({error}); delete it and run synthaug curate again") from error
