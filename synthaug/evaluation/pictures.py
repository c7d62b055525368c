"""What goes into an evaluation: photos and synthetic images, wherever they come from, with what is needed to check them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from synthaug.errors import SettingError
from synthaug.manifest import Manifest
from synthaug.photos.folder import read_folder
from synthaug.pixels import digest, framed, read_image
from synthaug.records import Photo

__all__ = ["PhotoSource", "Pictures", "SyntheticSource", "read_photos", "read_synthetic"]

PhotoSource = Path | str | Sequence[Photo] | Tensor
"""A folder of photos, photos, or a tensor uint8 (N, 3, H, W)."""

SyntheticSource = Path | str | Tensor
"""A folder of images, with a manifest or without, or a tensor uint8 (N, 3, H, W)."""


LOOKS = 64


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures of one kind, framed to one size, with what tells them apart."""

    kind: str
    """What they are, for messages: ``"training defect"``, ``"good test"`` …"""

    images: Tensor
    """uint8 (N, 3, side, side)."""

    looks: Tensor
    """uint8 (N, 3, 64, 64), to find near-copies by, whatever ``side`` is."""

    names: tuple[str, ...]
    """File, or place in the tensor."""

    hashes: tuple[str, ...]
    """SHA-256 of the upright pixels, before framing."""

    groups: tuple[str | None, ...]
    """The physical part that each shows; None where only the file's name is known."""

    loras: tuple[Path, ...] = ()
    """LoRA files that drew them."""

    parents: tuple[Path, ...] = ()
    """Photos that they were redrawn from."""

    skipped: int = 0
    """Files that could not be read."""

    def __len__(self) -> int:
        return len(self.names)


def read_photos(source: PhotoSource, kind: str, *, side: int, group: str = "") -> Pictures:
    """Read photos and frame them.

    Args:
        source: A folder, photos, or a tensor uint8 (N, 3, H, W).
        kind: What they are, for messages.
        side: Height and width in pixels.
        group: How a folder's file names give the group, as in :func:`synthaug.photos.read_folder`.

    Raises:
        PhotoFolderError: If a folder holds no usable photo.
        SettingError: If there is no photo, or a tensor is not uint8 (N, 3, H, W).
        UnusableFileError: If a photo given by itself cannot be read.
    """
    if isinstance(source, Tensor):
        return _from_tensor(source, kind, side)
    skipped = 0
    if isinstance(source, Path | str):
        found = read_folder(source, caption="a photo", group=group, fewest=1)
        source, skipped = found.photos, len(found.skipped)
    photos = tuple(source)
    if not photos:
        raise SettingError(f"at least 1 {kind} photo is needed, got none; give a folder, photos or a tensor")
    images, looks = _framed_twice((read_image(photo.path) for photo in photos), side)
    return Pictures(
        kind=kind, images=images, looks=looks, names=tuple(str(photo.path) for photo in photos),
        hashes=tuple(photo.sha256 for photo in photos),
        groups=tuple(None if photo.group in ("", photo.path.stem) else photo.group for photo in photos), skipped=skipped,
    )  # fmt: skip


def read_synthetic(source: SyntheticSource, *, side: int) -> Pictures:
    """Read synthetic images: those that screening kept, or all pictures of a folder without a manifest.

    Args:
        source: A folder, or a tensor uint8 (N, 3, H, W).
        side: Height and width in pixels.

    Raises:
        PhotoFolderError: If a folder is not there or holds no picture.
        SettingError: If a folder's images were not screened, or none was kept, or a tensor cannot be used.
        UnusableFileError: If an image is missing or damaged.
    """
    if isinstance(source, Tensor):
        return _from_tensor(source, "synthetic", side)
    folder = Path(source)
    if not (folder / "manifest.jsonl").is_file():
        return read_photos(folder, "synthetic", side=side)
    samples = Manifest(folder).samples
    kept = [sample for sample in samples if sample.verdict is not None and sample.verdict.keep]
    if not kept:
        screened = sum(sample.verdict is not None for sample in samples)
        raise SettingError(
            f"only synthetic images that were screened and kept are used, {folder} holds {len(samples)}, {screened} of them screened, "
            "none kept; draw some with synthaug generate and screen them with synthaug curate"
        )
    requests = [sample.request for sample in kept]
    images, looks = _framed_twice((read_image(folder / sample.file) for sample in kept), side)
    return Pictures(
        kind="synthetic", images=images, looks=looks,
        names=tuple(str(folder / sample.file) for sample in kept), hashes=tuple(sample.sha256 for sample in kept),
        groups=(None,) * len(kept), loras=tuple({Path(use.path): None for request in requests for use in request.loras}),
        parents=tuple({Path(request.image): None for request in requests if request.image}),
    )  # fmt: skip


def _framed_twice(images: Iterable[Tensor], side: int) -> tuple[Tensor, Tensor]:
    """For the detector and for finding near-copies; one picture at a time, for they may be large."""
    pairs = [(framed(image, (side, side)), framed(image, (LOOKS, LOOKS))) for image in images]
    return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])


def _from_tensor(images: Tensor, kind: str, side: int) -> Pictures:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise SettingError(
            f"{kind} pictures must be uint8 (N, 3, H, W) with N at least 1, got {images.dtype} {tuple(images.shape)}; "
            "convert them, for instance with synthaug.pixels.to_uint8"
        )
    framed_images, looks = _framed_twice(images, side)
    places = tuple(f"{kind} picture {place}" for place in range(len(images)))
    return Pictures(
        kind=kind, images=framed_images, looks=looks, names=places,
        hashes=tuple(digest(image) for image in images), groups=(None,) * len(images),
    )  # fmt: skip
