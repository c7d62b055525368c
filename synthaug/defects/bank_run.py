"""``synthaug bank``: cut defects out of pictures with masks, screen them, and say what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from synthaug.curation import copy_distances, thumbnails
from synthaug.defects.bank import FEWEST, BankFolder
from synthaug.defects.cutout import Cutout, Origin, Piece, cut_out, faulty_mask
from synthaug.errors import SettingError, UnusableFileError, require
from synthaug.manifest import Manifest
from synthaug.photos import read_folder
from synthaug.pixels import SUFFIXES, digest, read_image, read_mask, read_rgba

__all__ = ["bank"]

SHOWN = 20
"""So many left-out defects are named, the rest is counted."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A picture with a mask."""

    path: Path
    mask: Path
    group: str
    loras: tuple[str, ...] = ()
    seed: int | None = None
    parent: str | None = None


def bank(
    *, out: Path, photos: Path | None = None, samples: Path | None = None, masks: Path | None = None, defect: str = "defect",
    group: str = "", smallest: int = 12, copy: float = 0.3,
) -> None:  # fmt: skip
    """Cut defects out of pictures with masks into a bank; a second run goes on, or adds other pictures.

    Give photos of real defects with masks, or samples that ``synthaug generate`` made with the masks recovered from them; of screened
    samples those that were kept are taken. A picture of the same name in the folder of masks is the mask, bright = defect.

    Args:
        out: Folder of the bank.
        photos: Folder of photos of defects.
        samples: Folder of drawn images of defects.
        masks: Folder of masks; the sub-folder ``mask`` when left out.
        defect: Type of defect.
        group: How file names give the group of photos of one part: ``--group=-1`` cuts off the last part after an underscore.
        smallest: Pixels that a defect must have.
        copy: Distance below which a cut-out is a near-copy of an earlier one, 0 to 2.

    Raises:
        SettingError: If not exactly one of ``photos`` and ``samples`` is given, a value cannot be used, or the bank was begun otherwise.
        PhotoFolderError: If the photos cannot be used.
        UnusableFileError: If there are no masks, or the folder of samples cannot be used.
        OutputError: If something cannot be written.
    """
    require({
        "give either photos or samples": ((photos is None) != (samples is None), [str(photos), str(samples)]),
        "smallest must be at least 1": (smallest >= 1, smallest),
        "copy must be in [0, 2]": (0 <= copy <= 2, copy),
        "defect must not be empty": (bool(defect.strip()), defect),
    })  # fmt: skip
    sources = list(_photos(photos, masks, group) if photos is not None else _samples(samples or Path(), masks))
    folder = BankFolder(out)
    folder.settle({"smallest": smallest, "copy": copy})
    known = {entry.sha256: entry.source for entry in folder.entries}
    looks = _looks_of(folder)
    before, new = sum(len(entry.cutouts) for entry in folder.entries), 0
    for source in sources:
        image, mask = read_image(source.path), read_mask(source.mask)
        key = digest(image)
        if key in known:
            if known[key] != source.path.name:
                print(f"{source.path.name}: the same picture as {known[key]}")
            continue
        known[key], new = source.path.name, new + 1
        good, dropped, looks = _screened(image, mask, looks, smallest=smallest, copy=copy)
        cutouts = [
            Cutout(
                rgba=piece.rgba, mask=piece.mask,
                origin=Origin(
                    source=source.path.name, sha256=key, group=source.group, size=(image.shape[1], image.shape[2]), box=piece.box,
                    defect=defect, loras=source.loras, seed=source.seed, parent=source.parent,
                ),
            )
            for piece in good
        ]  # fmt: skip
        folder.add(source.path.name, key, cutouts, dropped)
    _tell(folder, before=before, new=new, total=len(sources))


def _screened(image: Tensor, mask: Tensor, looks: Tensor, *, smallest: int, copy: float) -> tuple[list[Piece], list[str], Tensor]:
    """What of a picture can be used, what was left out and why, and the looks of all cut-outs so far."""
    if fault := faulty_mask(image, mask):
        return [], [fault], looks
    good, dropped = [], []
    for piece in cut_out(image, mask, smallest=smallest):
        fault, look = piece.fault, thumbnails(piece.rgba[None, :3])
        if not fault and len(looks) and (nearest := float(copy_distances(look, looks).min())) < copy:
            fault = f"a near-copy of an earlier cut-out: distance {nearest:.2f}, {copy:g} is the limit"
        if fault:
            dropped.append(fault)
        else:
            good.append(piece)
            looks = torch.cat([looks, look])
    return good, dropped, looks


def _looks_of(folder: BankFolder) -> Tensor:
    """Thumbnails of what is in a bank already, (N, 3, 64, 64)."""
    files = [folder.folder / Path(row["file"]).name for entry in folder.entries for row in entry.cutouts]
    return torch.cat([torch.zeros(0, 3, 64, 64), *(thumbnails(read_rgba(file)[None, :3]) for file in files)])


def _photos(folder: Path, masks: Path | None, group: str) -> Iterator[_Source]:
    found = read_folder(folder, caption="a defect", masks=masks, group=group, fewest=1)
    with_masks = [photo for photo in found.photos if photo.mask is not None]
    _tell_missing(len(found.photos) - len(with_masks), len(found.photos), folder, masks or folder / "mask")
    for photo in with_masks:
        yield _Source(path=photo.path, mask=photo.mask or photo.path, group=photo.group)


def _samples(folder: Path, masks: Path | None) -> Iterator[_Source]:
    if not (folder / "manifest.jsonl").is_file():
        raise UnusableFileError(f"{folder} holds no manifest.jsonl; give the folder that synthaug generate made, or photos with --photos")
    manifest = Manifest(folder)
    samples = [sample for sample in manifest.samples if sample.verdict is None or sample.verdict.keep]
    place = masks or folder / "mask"
    found = [(sample, _beside(place, Path(sample.file).stem)) for sample in samples]
    _tell_missing(sum(mask is None for _, mask in found), len(found), folder, place)
    for sample, mask in found:
        if Path(sample.file).is_absolute() or ".." in Path(sample.file).parts:
            raise UnusableFileError(f"samples lie in their folder, {folder / 'manifest.jsonl'} names {sample.file!r}; delete its line")
        if mask is not None:
            request = sample.request
            yield _Source(
                path=folder / sample.file, mask=mask, group=Path(request.image).stem if request.image else Path(sample.file).stem,
                loras=tuple(lora.path for lora in request.loras), seed=request.seed, parent=request.image,
            )  # fmt: skip


def _beside(folder: Path, stem: str) -> Path | None:
    found = [folder / f"{stem}{suffix}" for suffix in (".png", *SUFFIXES)]
    return next((path for path in found if path.is_file()), None)


def _tell_missing(missing: int, total: int, folder: Path, masks: Path) -> None:
    if missing == total:
        raise UnusableFileError(
            f"a defect is cut out by its mask, none of the {total} pictures of {folder} has one in {masks}; a mask is a picture of the "
            "same name, bright where the defect is: put them there, or give their folder with --masks"
        )
    if missing:
        print(f"{missing} of {total} pictures have no mask in {masks} and were passed over")


def _tell(folder: BankFolder, *, before: int, new: int, total: int) -> None:
    count = sum(len(entry.cutouts) for entry in folder.entries)
    left_out = [(entry.source, why) for entry in folder.entries[len(folder.entries) - new :] for why in entry.dropped]
    print(f"{folder.folder}: {count} cut-outs, {count - before} of them new, from {new} pictures ({total - new} were there already)")
    for kind, number in Counter(why.split(":")[0] for _, why in left_out).most_common():
        print(f"left out {number:5d}  {kind}")
    for source, why in left_out[:SHOWN]:
        print(f"{source}: {why}")
    if len(left_out) > SHOWN:
        print(f"and {len(left_out) - SHOWN} more, see {folder.folder / 'bank.jsonl'}")
    if not count:
        raise SettingError(f"no defect could be used, {folder.folder} is empty; see above what was wrong, and choose another folder")
    if count < FEWEST:
        print(f"fewer than {FEWEST} defects look alike wherever they are put: add photos or draw some")
