"""Folders of samples as ``synthaug generate`` leaves them, made without drawing; used by the tests of several packages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from synthaug.manifest import Manifest
from synthaug.pixels import digest, save_png
from synthaug.records import Request, Sample, Verdict


def request_of(index: int, label: int | str = 0) -> Request:
    return Request(prompt=f"いりこ number {index}", seed=1000 + index, index=index, size=(16, 24), label=label)


def picture_of(index: int) -> Tensor:
    """Noise, uint8 (3, 16, 24)."""
    return torch.randint(0, 256, (3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))


def blocks_of(index: int) -> Tensor:
    """A picture that JPEG keeps nearly as it is."""
    return picture_of(index)[:, ::16, ::8].repeat_interleave(16, 1).repeat_interleave(8, 2)


def make_samples(folder: Path, order: Sequence[int], *, label: int | str = 0, picture: Callable[[int], Tensor] = picture_of) -> Manifest:
    """A folder with these samples, appended in this order."""
    manifest = Manifest(folder)
    for index in order:
        request, image = request_of(index, label), picture(index)
        file = f"{index:06d}-{request.digest}.png"
        save_png(image, manifest.folder / file, text={"parameters": f"いりこ\nSeed: {request.seed}"})
        manifest.append(Sample(file=file, request=request, sha256=digest(image), seconds=index * 0.1))
    return manifest


def screened(manifest: Manifest, kept: set[int]) -> Manifest:
    """The same, keeping the samples with these indices."""
    manifest.judge([(s, Verdict(keep=s.request.index in kept, scores={"typical": 0.5})) for s in manifest.samples])
    return manifest


def contents(folder: Path) -> dict[str, str]:
    """Hash of each file, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
