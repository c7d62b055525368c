"""``synthaug curate``: screen a folder of drawn images against real photos."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from synthaug.curation.report import SetReport
from synthaug.curation.report import report as sum_up
from synthaug.curation.scores import Reference, Scores
from synthaug.curation.selection import DAMAGED, Limits, count_reasons, judge
from synthaug.curation.sheet import MOST, Entry, write_sheet
from synthaug.errors import OutputError, UnusableFileError
from synthaug.manifest import Manifest
from synthaug.photos import load_pictures, read_folder
from synthaug.pixels import digest, framed, read_image
from synthaug.records import Photo, Sample, Verdict

__all__ = ["curate", "reference_of", "screen"]

_BATCH = 32


def curate(
    *, samples: Path, photos: Path, keep: float = 0.7, farthest: float = 2.0, copy: float = 0.35, sheet: Path | None = None,
    report: Path | None = None,
) -> None:  # fmt: skip
    """Screen drawn images: odd ones, blanks, copies of photos and repeats are crossed out with a reason.

    The verdicts go beside the images; a second run replaces them. No image is deleted.

    Args:
        samples: Folder that ``synthaug generate`` made.
        photos: Folder of real photos to compare with.
        keep: Largest share of the images to keep, the most typical first; 1 keeps all that pass.
        farthest: Odd beyond this many times the distance that photos keep from each other.
        copy: A copy below this many times the photos' own copy distance.
        sheet: Where to write the contact sheet; ``sheet.png`` beside the images when left out.
        report: Where to write the numbers as JSON, if anywhere.

    Raises:
        UnusableFileError: If the folder holds no images that ``synthaug generate`` made.
        PhotoFolderError: If the photos cannot be used.
        SettingError: If a limit cannot be used.
        OutputError: If something cannot be written.
    """
    limits = Limits(share=keep, farthest=farthest, copy=copy)
    manifest = _manifest(samples)
    found = read_folder(photos, caption="a photo").photos
    verdicts, entries, whole = screen(manifest, found, limits)
    manifest.judge(zip(manifest.samples, verdicts, strict=True))
    sheet = sheet or samples / "sheet.png"
    write_sheet(entries, sheet, title=samples.resolve().name)
    counts = count_reasons(verdicts)
    kept = sum(verdict.keep for verdict in verdicts)
    print(f"kept {kept} of {len(verdicts)} images in {samples}, compared with {len(found)} photos")
    for kind, count in counts.items():
        print(f"rejected {count:5d}  {kind}")
    for sample, verdict in zip(manifest.samples, verdicts, strict=True):
        if verdict.reason.startswith(DAMAGED):
            print(f"{sample.file}: {verdict.reason}")
    print(whole or "no image could be read")
    if not kept:
        print("nothing was kept: look at the contact sheet, then train longer, draw more, or raise --farthest")
    print(f"contact sheet: {sheet}")
    if report is not None:
        _write_report(report, {"kept": kept, "rejected": counts, **(asdict(whole) if whole else {})})


def screen(manifest: Manifest, photos: Sequence[Photo], limits: Limits = Limits()) -> tuple[list[Verdict], list[Entry], SetReport | None]:
    """Judge the samples of a folder; nothing is written.

    A sample whose file is missing, unreadable or not what was drawn is rejected, not an error.

    Args:
        manifest: At least one sample.
        photos: What to compare with; they are cropped to the commonest shape of the samples.
        limits: Where to draw the lines.

    Returns:
        Verdicts and entries of a contact sheet, both in the order of ``manifest.samples``, and what the
        samples are like as a whole; None if none of them can be read.
    """
    samples = manifest.samples
    size = Counter(sample.request.size for sample in samples).most_common(1)[0][0]
    reference = reference_of(photos, size)
    found: list[Tensor | str] = []
    parts: list[Scores] = []
    for start in range(0, len(samples), _BATCH):
        batch = [_picture(manifest.folder, sample) for sample in samples[start : start + _BATCH]]
        good = [framed(picture, size) for picture in batch if isinstance(picture, Tensor)]
        if good:
            parts.append(reference.scores(torch.stack(good)))
        found += [_small(picture, len(samples)) for picture in batch]
    readable = [row for row, picture in enumerate(found) if isinstance(picture, Tensor)]
    verdicts = [Verdict(keep=False, reason=picture if isinstance(picture, str) else "") for picture in found]
    whole = None
    if parts:
        scores = Scores.joined(parts)
        names = [Path(samples[row].file).stem for row in readable]
        for row, verdict in zip(readable, judge(scores, reference, limits, names=names), strict=True):
            verdicts[row] = verdict
        whole = sum_up(scores, reference, limits)
    entries = [
        Entry(name=Path(sample.file).stem.split("-")[0], picture=picture if isinstance(picture, Tensor) else None, verdict=verdict)
        for sample, picture, verdict in zip(samples, found, verdicts, strict=True)
    ]
    return verdicts, entries, whole


def reference_of(photos: Sequence[Photo], size: tuple[int, int]) -> Reference:
    """Photos to compare with, cropped to ``size``; of equal ones the first counts.

    Raises:
        SettingError: If fewer than 3 different photos are left.
    """
    different = tuple({photo.sha256: photo for photo in reversed(photos)}.values())[::-1]
    return Reference(load_pictures(different, size), names=[photo.path.name for photo in different])


def _manifest(folder: Path) -> Manifest:
    """The manifest of a folder that must hold samples already."""
    if not folder.is_dir():
        raise UnusableFileError(f"there is no folder {folder}; give the folder that synthaug generate made")
    manifest = Manifest(folder)
    if not manifest.samples:
        raise UnusableFileError(
            f"{folder} holds no manifest.jsonl with images; give the folder that synthaug generate made, or draw images into it first"
        )
    return manifest


def _picture(folder: Path, sample: Sample) -> Tensor | str:
    """The picture of a sample, or why there is none."""
    try:
        picture = read_image(folder / sample.file)
    except UnusableFileError as error:
        return f"{DAMAGED}: {error}"
    if digest(picture) != sample.sha256:
        return f"{DAMAGED}: its pixels are not those that were drawn; delete it and run synthaug generate again"
    return picture


def _small(picture: Tensor | str, count: int) -> Tensor | str:
    """What the contact sheet needs of a picture, so that thousands of large ones fit into memory."""
    if isinstance(picture, str):
        return picture
    _, height, width = picture.shape
    scale = min(1.0, (288 if count <= MOST else 112) / max(height, width))
    return framed(picture, (max(1, round(height * scale)), max(1, round(width * scale))))


def _write_report(path: Path, content: dict[str, object]) -> None:
    try:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} could not be written ({error.strerror}); free some space or choose another folder") from error
