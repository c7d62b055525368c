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
        UnusableFileError: If a line in the middle of the manifest cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder {folder} cannot be made ({error.strerror}); choose another one") from error
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
            OutputError: If the line cannot be written.
        """
        line = {"file": sample.file, "sha256": sample.sha256, "seconds": round(sample.seconds, 4), "request": sample.request.to_json()}
        try:
            with (self.folder / "manifest.jsonl").open("a", encoding="utf-8") as out:
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise OutputError(f"{self.folder}/manifest.jsonl could not be written ({error.strerror}); free some space") from error
        self._samples[sample.request.digest] = sample

    def judge(self, verdicts: Iterable[tuple[Sample, Verdict]]) -> None:
        """Replace all verdicts.

        Raises:
            OutputError: If they cannot be written; the old ones are then still there.
        """
        lines = []
        for sample, verdict in verdicts:
            self._samples[sample.request.digest] = replace(sample, verdict=verdict)
            lines.append(json.dumps({"file": sample.file, **asdict(verdict)}, ensure_ascii=False))
        part = self.folder / ".verdicts.jsonl.part"
        try:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")
            part.replace(self.folder / "verdicts.jsonl")
        except OSError as error:
            raise OutputError(f"{self.folder}/verdicts.jsonl could not be written ({error.strerror}); free some space") from error

    def _read(self) -> list[Sample]:
        path = self.folder / "manifest.jsonl"
        if not path.exists():
            return []
        text = path.read_bytes()
        whole, _, torn = text.rpartition(b"\n")
        if torn:
            path.write_bytes(whole + b"\n" if whole else b"")
        verdicts = self._verdicts()
        samples = []
        for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
            try:
                data = json.loads(line)
                request = Request.from_json(data["request"])
                samples.append(
                    Sample(
                        file=data["file"], request=request, sha256=data["sha256"], seconds=data["seconds"],
                        verdict=verdicts.get(data["file"]),
                    )
                )  # fmt: skip
            except (KeyError, TypeError, ValueError) as error:
                raise UnusableFileError(f"{path}, line {number} is not a sample ({error}); delete the line to go on") from error
        return samples

    def _verdicts(self) -> dict[str, Verdict]:
        path = self.folder / "verdicts.jsonl"
        if not path.exists():
            return {}
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {row.pop("file"): Verdict(**row) for row in rows}
