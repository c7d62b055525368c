"""What an export is made of: pictures in order, each with its mask and where it comes from, read when they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from synthaug.datasets.shard_index import file_hash
from synthaug.datasets.shard_sources import SampleFolder, open_folder
from synthaug.defects.marked import mask_beside, read_marked, usable_mask
from synthaug.errors import SettingError, UnusableFileError
from synthaug.pixels import digest, picture_size, picture_text, read_image
from synthaug.records import Sample

__all__ = ["NORMAL_LABELS", "Item", "LeftOut", "check_name", "normals_of", "photos_of", "samples_of"]

NORMAL_LABELS = (0, "0", "good", "normal")
"""Labels of a sample without a mask that shows no defect."""

LeftOut = Callable[[str, str], None]
"""Told the name of a picture that is not exported, and why."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture to export."""

    read: Callable[[], tuple[Tensor, Tensor | None]]
    """Gives the picture, uint8 (3, H, W), and its mask, uint8 (H, W), 1 = defect; None without one."""

    source: str
    """Name of the file that it comes from."""

    defect: str = ""
    """Type of defect; "" for a normal picture."""

    group: str = ""
    """Group of the part that it shows."""

    links: tuple[str, ...]
    """Names of everything that it may not be split from: its group, its pixels, what it was made from."""

    mark: str
    """Changes with what it is made from."""

    parent: str = ""
    """The picture that it was made from, if any."""

    seed: int | None = None
    """Seed that it was made with."""

    text: dict[str, str] = field(default_factory=dict)
    """What its file says of how it was made."""

    has_mask: bool = False
    """Whether there is a mask."""

    donor: str = ""
    """Group of the photo that its defect was cut from, if another one."""


def check_name(defect: str) -> str:
    """Refuse a type of defect that cannot be the name of a folder inside another.

    Raises:
        SettingError: If it would leave the folder, is empty, or is ``good``, which is the folder of normal pictures.

    Example:
        >>> check_name("../../etc")
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: a type of defect becomes a folder, so it must be a plain name other than good, got '../../etc'; ...
    """
    if defect.strip() in ("", ".", "..", "good") or defect != defect.strip() or not defect.isprintable() or set(defect) & set('/\\:*?"<>|'):
        raise SettingError(
            f"a type of defect becomes a folder, so it must be a plain name other than good, got {defect!r}; give one with --defect"
        )
    return defect


def normals_of(folder: Path, *, group: str) -> Iterator[Item]:
    """Normal photos, by name."""
    for photo in read_marked(folder, group=group):
        yield Item(
            read=_reader(photo.path, None), source=photo.path.name, group=photo.group, mark=photo.sha256,
            links=(_link("normals", photo.group, photo.path), f"pixels {photo.sha256}"),
        )  # fmt: skip


def photos_of(folder: Path, masks: Path | None, *, group: str, defect: str, left_out: LeftOut) -> Iterator[Item]:
    """Photos of defects with masks that can be used, by name."""
    for photo in read_marked(folder, masks=masks, group=group):
        if photo.mask is None:
            left_out(photo.path.name, "it has no mask")
            continue
        mask, fault = usable_mask(photo.mask, picture_size(photo.path))
        if mask is None:
            left_out(photo.path.name, fault)
            continue
        yield Item(
            read=_reader(photo.path, photo.mask), source=photo.path.name, defect=check_name(defect), group=photo.group, has_mask=True,
            mark=f"{photo.sha256} {file_hash(photo.mask)}", links=(_link("photos", photo.group, photo.path), f"pixels {photo.sha256}"),
        )  # fmt: skip


def samples_of(
    folder: Path, masks: Path | None, *, group: str, defect: str, rejected: bool, bare: bool, left_out: LeftOut
) -> Iterator[Item]:  # fmt: skip
    """Drawn samples in the order of their plan: those that were kept, or all.

    Args:
        folder: What ``synthaug generate`` wrote.
        masks: Folder of masks; the sub-folder ``mask`` when left out.
        group: As for photos, for the name of the photo that a sample was drawn from.
        defect: Type of those whose label is a number.
        rejected: Whether rejected ones are taken, too.
        bare: Whether a defect may be without a mask.
        left_out: Told of samples that are not taken.
    """
    manifest = open_folder(folder)
    if rejected:
        taken = [(folder / each.file, each) for each in manifest.samples]
    else:
        chosen = SampleFolder(manifest)  # also says what is wrong with a folder that was screened in part
        taken = list(chosen.samples(0, len(chosen)))
    hashes: dict[str, str] = {}
    for path, sample in taken:
        if Path(sample.file).is_absolute() or ".." in Path(sample.file).parts or not path.resolve().is_relative_to(folder.resolve()):
            raise UnusableFileError(f"samples lie in their folder, {folder / 'manifest.jsonl'} names {sample.file!r}; delete its line")
        place = mask_beside(masks or folder / "mask", Path(sample.file).stem)
        label = sample.request.label
        kind = label if isinstance(label, str) and label not in NORMAL_LABELS else defect
        if place is None and label in NORMAL_LABELS:
            kind = ""
        elif place is None and not bare:
            left_out(sample.file, "it has no mask")
            continue
        elif place is not None:
            mask, fault = usable_mask(place, picture_size(path))
            if mask is None:
                left_out(sample.file, fault)
                continue
        yield _sample(path, sample, place, kind and check_name(kind), group, hashes)


def _sample(path: Path, sample: Sample, mask: Path | None, defect: str, rule: str, hashes: dict[str, str]) -> Item:
    """A sample; ``hashes`` keeps those of the photos that samples were drawn from, which are few."""
    links, own, parent = [f"pixels {sample.sha256}"], Path(sample.file).stem, sample.request.image
    if parent is not None:
        own = _cut(Path(parent).stem, rule)
        links.append(_link("normals", own, Path(parent)))
        if Path(parent).is_file():
            if parent not in hashes:
                hashes[parent] = digest(read_image(parent))
            links.append(f"pixels {hashes[parent]}")
    else:
        links.append(f"samples {own}")
    return Item(
        read=_reader(path, mask, sha256=sample.sha256), source=sample.file, defect=defect, group=own, links=tuple(links),
        mark=f"{sample.sha256} {sample.request.digest} {file_hash(mask) if mask else ''}", parent=Path(parent).name if parent else "",
        seed=sample.request.seed, text=picture_text(path), has_mask=mask is not None,
    )  # fmt: skip


def _cut(stem: str, rule: str) -> str:
    try:
        return "_".join(stem.split("_")[: int(rule)]) or stem if rule else stem
    except ValueError:
        raise SettingError(f'a group rule is how many parts to cut off a file name, such as "-1", got {rule!r}') from None


def _link(place: str, group: str, path: Path) -> str:
    """Name of a group; one that is only the file's own name means nothing in another folder, where it may be another part."""
    return f"{place} {group}" if group in ("", path.stem) else f"group {group}"


def _reader(path: Path, mask: Path | None, *, sha256: str = "") -> Callable[[], tuple[Tensor, Tensor | None]]:
    def read() -> tuple[Tensor, Tensor | None]:
        image = read_image(path)
        if sha256 and digest(image) != sha256:
            raise UnusableFileError(f"{path} is not the image that was drawn: its pixels have changed; delete it and draw it again")
        found, fault = usable_mask(mask, (image.shape[1], image.shape[2])) if mask is not None else (None, "")
        if fault:
            raise UnusableFileError(f"{fault}; it was another one when the export began")
        return image, found

    return read
