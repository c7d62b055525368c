"""Write WebDataset shards: the same bytes every time, whole or not at all.

A shard is a tar with, per sample, the image, ``json`` (request, infotext, pixel hash, verdict) and the
label: ``cls`` for a number, ``label.txt`` for a word, so that any reader of WebDataset understands it.

Format: https://github.com/webdataset/webdataset; tar: POSIX.1-1988 (ustar).
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from synthaug.datasets.shard_index import ImageFormat, Shard, ShardIndex, file_hash
from synthaug.datasets.shard_sources import DrawnPlan, SampleFolder, Source, open_folder
from synthaug.errors import OutputError, SettingError, UnusableFileError, choose
from synthaug.manifest import Manifest
from synthaug.pixels import digest, image_bytes, picture_text, read_image
from synthaug.records import Sample

if TYPE_CHECKING:
    from synthaug.generation import Plan

__all__ = ["write_shards"]

Tell = Callable[[int, int], None]


def write_shards(
    source: Plan | Manifest | Path | str,
    out: Path | str,
    *,
    per_shard: int = 1000,
    image: ImageFormat = "png",
    draw_batch: int = 16,
    device: str = "auto",
    tell: Tell = lambda _done, _of: None,
) -> ShardIndex:
    """Write samples as WebDataset shards.

    Equal samples give equal bytes: order of the plan, fixed times and owners in the tars, sorted JSON. A run
    that was killed goes on where it stopped and ends with the same bytes; finished shards are looked at and
    kept, and no unfinished file ever has a shard's name. A longer plan, or a folder to which samples were
    added at the end, extends the shards that are there.

    Args:
        source: A plan, which is drawn; or a folder written by ``synthaug generate``, of which only the kept
            samples are taken once it has been screened by ``synthaug curate``.
        out: Folder of the shards, made if it is not there.
        per_shard: Samples per shard.
        image: ``png`` keeps every pixel; ``jpg`` is smaller and does not.
        draw_batch: Images of a plan drawn at a time.
        device: Where a plan is drawn: ``auto``, ``cpu``, ``cuda`` …
        tell: Called after each sample with the number done and the number in all.

    Returns:
        The index, as written to ``index.json``.

    Raises:
        SettingError: If a value cannot be used, there is nothing to write, or ``out`` holds other shards.
        UnusableFileError: If an image of the folder is gone, damaged, or not what was drawn.
        OutputError: If the disk is full or the folder cannot be written; the sentence says what is finished.

    Example:
        >>> write_shards("no-such-folder", "shards")
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: there is no manifest.jsonl in no-such-folder; give a folder that synthaug generate has written
    """
    out = Path(out)
    if per_shard < 1:
        raise SettingError(f"per_shard must be 1 or more, got {per_shard}")
    choose("image format", image, _ENCODERS)
    samples = _opened(source, out, draw_batch=draw_batch, device=device)
    found = ShardIndex.read(out)
    if found is not None:
        found.check_same_layout(out, image=image, per_shard=per_shard)
        _check_same_samples(found, samples, out)
    index = ShardIndex(image=image, per_shard=per_shard, total=len(samples))
    known = () if found is None else found.shards
    for number, start in enumerate(range(0, index.total, per_shard)):
        try:
            out.mkdir(parents=True, exist_ok=True)
            shard = _kept_or_written(samples, out, index, known[number] if number < len(known) else None, tell)
            index = replace(index, shards=(*index.shards, shard))
            index.write(out)
            samples.finished(start, start + shard.count)
        except OSError as error:
            of = -(-index.total // per_shard)
            raise OutputError(
                f"{out / index.file(number)} could not be written ({error.strerror or error}); {number} of {of} shards are finished and "
                "stay; free some space or make the folder writable, and run the same again: it goes on from there"
            ) from error
    return index


def _opened(source: Plan | Manifest | Path | str, out: Path, *, draw_batch: int, device: str) -> Source:
    """Look at a source as samples in order."""
    if isinstance(source, (str, Path)):
        return SampleFolder(open_folder(Path(source)))
    if isinstance(source, Manifest):
        return SampleFolder(source)
    from synthaug.generation import Sampler  # loads the networks' libraries, which a folder does not need

    return DrawnPlan(source, Sampler.for_drawing(source.base, source, device=device), out / ".drawn", draw_batch=draw_batch)


def _check_same_samples(found: ShardIndex, samples: Source, out: Path) -> None:
    """Refuse to write over shards of something else; nothing of the user's is lost by a mistyped path."""
    for number, shard in enumerate(found.shards):
        start = number * found.per_shard
        if start + shard.count > len(samples) or samples.mark(start, start + shard.count) != shard.mark:
            raise SettingError(
                f"{out} already holds shards of other samples ({shard.file} is the first that differs); choose another folder, "
                "or delete this one"
            )


def _kept_or_written(samples: Source, out: Path, index: ShardIndex, known: Shard | None, tell: Tell) -> Shard:
    """The next shard: as it lies there if it is whole, else written."""
    start = index.count
    stop = min(start + index.per_shard, index.total)
    if known is not None and known.count == stop - start and known.is_whole(out):
        tell(stop, index.total)
        return known
    path = out / index.file(len(index.shards))
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as raw:
            with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for done, (file, sample) in enumerate(samples.samples(start, stop), start + 1):
                    for name, data in _members(file, sample, index.image):
                        _add(tar, name, data)
                    tell(done, index.total)
            raw.flush()
            os.fsync(raw.fileno())
        shard = Shard(file=path.name, count=stop - start, bytes=part.stat().st_size, sha256=file_hash(part), mark=samples.mark(start, stop))
        part.replace(path)
    except BaseException:  # also Ctrl-C: what is unfinished goes, whatever the reason
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    return shard


def _members(file: Path, sample: Sample, image: ImageFormat) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a sample's files."""
    key = f"{sample.request.index:06d}-{sample.request.digest}"
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UnusableFileError(f"{file} cannot be read ({error.strerror}); draw it again, or screen the folder again") from error
    pixels = read_image(file, data=data)
    if digest(pixels) != sample.sha256:
        raise UnusableFileError(f"{file} is not the image that was drawn: its pixels have changed; delete it and draw it again")
    text = picture_text(file).get("parameters", "")
    yield f"{key}.{image}", data if file.suffix == f".{image}" else image_bytes(pixels, image, text={"parameters": text})
    about = {"request": sample.request.to_json(), "sha256": sample.sha256, "infotext": text}
    if sample.verdict is not None:
        about["verdict"] = asdict(sample.verdict)
    yield f"{key}.json", json.dumps(about, sort_keys=True, ensure_ascii=False).encode()
    label = sample.request.label
    yield f"{key}.cls" if isinstance(label, int) else f"{key}.label.txt", str(label).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file that says nothing of when, where and by whom it was made."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.uid, info.gid, info.uname, info.gname = len(data), 0o644, 0, 0, 0, "", ""
    tar.addfile(info, io.BytesIO(data))


_ENCODERS = {"png": "every pixel", "jpg": "smaller"}
