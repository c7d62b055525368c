"""A folder of images: what a plan still lacks is drawn into it, and what it holds must be of the same files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synthaug.errors import SettingError, UnusableFileError
from synthaug.generation.lora_tags import file_hash, lora_hash_of
from synthaug.generation.plan import Plan
from synthaug.generation.progress import Tell
from synthaug.generation.sampler import Sampler
from synthaug.manifest import Manifest
from synthaug.pixels import ImageFormat, digest, picture_text, read_image, save_image
from synthaug.records import Request, Sample, infotext, parse_infotext
from synthaug.records.infotext import hashes_in

__all__ = ["draw_into", "pictures_of"]


def draw_into(
    manifest: Manifest, plan: Sequence[Request] | Plan, sampler: Sampler, *, batch_size: int = 16,
    tell: Tell = lambda _done, _of: None, format: ImageFormat = "png",  # noqa: A002  # as on the command line
    one_base: bool = False,
) -> int:  # fmt: skip
    """Draw those requests of a plan that a folder does not hold yet.

    Args:
        manifest: The folder.
        plan: What it should hold in the end.
        sampler: Draws.
        batch_size: Requests per call of the sampler.
        tell: Called after each batch with the number drawn and the number to draw.
        format: Kind of file.
        one_base: Whether the caller sees to it that all images of the folder are of one base, so that it need not be loaded to be compared.

    Returns:
        How many images were drawn.

    Raises:
        SettingError: If the batch size is below 1, a request cannot be drawn, or the folder was drawn with another base, or with a LoRA, an
            embedding, a photo or a mask that has changed since.
        OutputError: If the disk is full; what was drawn before is kept, and the next run goes on from there.
    """
    if batch_size < 1:
        raise SettingError(f"batch_size must be at least 1, got {batch_size}")
    files = _Files()
    _require_same_files(manifest, plan, None if one_base else sampler, files)
    missing = [request for request in plan if request not in manifest]
    done = 0
    for batch in _batches(missing, batch_size):
        started = time.perf_counter()
        drawn = sampler.draw(batch)
        seconds = (time.perf_counter() - started) / len(batch)
        for request, image, repairs in zip(batch, drawn.images, drawn.repairs, strict=True):
            name = f"{request.index:06d}-{request.digest}.{format}"
            text = infotext(
                request, base=sampler.base_name, base_hash=sampler.base.fingerprint,
                lora_hashes={Path(use.path).stem: files.hash("LoRA", use.path) for use in request.loras},
                embedding_hashes={Path(path).stem: files.hash("embedding", path) for path in request.embeddings},
                picture_hashes={kind: files.hash(kind, path) for kind, path in pictures_of(request).items()},
            )  # fmt: skip
            described = json.dumps(request.to_json(), sort_keys=True, ensure_ascii=False)
            save_image(image, manifest.folder / name, text={"parameters": text, "synthaug": described})
            kept = read_image(manifest.folder / name) if format == "jpg" else image
            manifest.append(Sample(file=name, request=request, sha256=digest(kept), seconds=seconds, repairs=repairs))
        done += len(batch)
        tell(done, len(missing))
    return done


def pictures_of(request: Request) -> dict[str, str]:
    """Files of the pictures that a request starts from, by what they are: ``image`` and ``mask``.

    Example:
        >>> pictures_of(Request(prompt="a fish", seed=1, image="fish.png", strength=0.5))
        {'image': 'fish.png'}
    """
    return {kind: path for kind, path in (("image", request.image), ("mask", request.mask)) if path is not None}


class _Files:
    """Hashes of files, each read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def hash(self, what: str, path: str) -> str:
        """Of a ``LoRA``, an ``embedding``, an ``image`` or a ``mask``.

        Raises:
            SynthaugError: If it cannot be read.
        """
        if (what, path) not in self._known:
            self._known[what, path] = lora_hash_of(path) if what == "LoRA" else file_hash(path, what=what)
        return self._known[what, path]


def _require_same_files(manifest: Manifest, plan: Iterable[Request], sampler: Sampler | None, files: _Files) -> None:
    """Refuse to add to images that were drawn with another file of the same name, or to take them for new ones.

    Raises:
        SettingError: If a file has changed since the folder was drawn, or it was drawn with another base.
    """
    samples = manifest.samples
    unknown = {use for request in plan for use in _used(request)} if samples else set()
    base = set() if sampler is None else {("base", sampler.base_name)}
    unknown |= base
    for sample in samples:
        asked = (base | _used(sample.request)) & unknown
        if not asked:
            continue
        values = parse_infotext(_parameters(manifest.folder / sample.file)).values
        for what, path in sorted(asked):
            then = _hash_told(values, what, path)
            if then is None:
                continue
            unknown.remove((what, path))
            now = sampler.base.fingerprint if sampler and what == "base" else files.hash(what, path)
            if not now.startswith(then):
                raise SettingError(
                    f"all images of a folder must come from one {what}, {manifest.folder} was drawn with another {path} (hash {then}, now "
                    f"{now[: len(then)]}); give --out another folder, or delete this one"
                )


def _used(request: Request) -> set[tuple[str, str]]:
    """What each file is that an image is drawn with, and its path."""
    named = {"LoRA": [use.path for use in request.loras], "embedding": request.embeddings}
    return {(what, path) for what, paths in named.items() for path in paths} | set(pictures_of(request).items())


def _hash_told(values: Mapping[str, str], what: str, path: str) -> str | None:
    """How the hash of a file begins by what an image says of itself; None if it does not say."""
    if what == "base":
        return values.get("Model hash") if values.get("Version", "").startswith("synthaug") else None
    if what in ("image", "mask"):
        return values.get(f"synthaug {what} hash")
    return hashes_in(values.get("Lora hashes" if what == "LoRA" else "TI hashes", "")).get(Path(path).stem)


def _parameters(file: Path) -> str:
    """The infotext of an image; "" if it cannot be read, which curation will say of it."""
    try:
        return picture_text(file).get("parameters", "")
    except UnusableFileError:
        return ""


def _batches(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    """Requests that can be drawn in one call: of one size, and with the same LoRAs, so that these are seldom changed."""
    together: dict[Any, list[Request]] = {}
    for request in requests:
        together.setdefault((request.size, request.hires, request.loras), []).append(request)
    return (alike[at : at + size] for alike in together.values() for at in range(0, len(alike), size))
