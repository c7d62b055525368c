"""``synthaug export``: pictures with masks, groups and seeds in the layouts that other tools read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from synthaug.datasets.export_composed import composed, links_of
from synthaug.datasets.export_folder import ExportFolder
from synthaug.datasets.export_items import Item, check_name, normals_of, photos_of, samples_of
from synthaug.datasets.export_layouts import LAYOUTS, write_items
from synthaug.datasets.export_split import Side, split
from synthaug.datasets.shard_index import file_hash
from synthaug.defects.bank import Bank
from synthaug.defects.cutout import Cutout
from synthaug.defects.masks import read_defect_mask
from synthaug.errors import SettingError, choose, require
from synthaug.pixels import digest

__all__ = ["export"]

SHOWN = 20
"""So many left-out pictures are named, the rest is counted."""


def export(  # noqa: PLR0913  # every argument is an option of the command line
    *, to: Literal["mvtec", "csv", "coco", "yolo"], out: Path, photos: Path | None = None, samples: Path | None = None,
    bank: Path | None = None, normals: Path | None = None, masks: Path | None = None, count: int = 100, test: float = 0.3, seed: int = 0,
    defect: str = "defect", group: str = "", rejected: bool = False, foreground: Path | None = None,
) -> None:  # fmt: skip
    """Write pictures as MVTec AD, CSV, COCO or YOLO; the same again writes the same bytes.

    Give photos with masks, samples of ``synthaug generate`` with masks, or a bank whose defects are put into the normal photos; normal
    photos may stand beside any of them. Pictures of one group, equal pictures, and a picture and what it was made from are never split
    between training and test. A picture whose mask is missing, empty, inverted or of another size is left out, and named.

    Args:
        to: Layout; ``samples.csv`` with groups, parents, seeds and hashes is in each.
        out: Folder of the export: empty, or begun by the same one.
        photos: Folder of photos of defects.
        samples: Folder of drawn images, of which the kept ones are taken once it was screened.
        bank: Folder of a bank; needs ``normals``.
        normals: Folder of normal photos.
        masks: Folder of masks of the photos or samples, bright = defect; the sub-folder ``mask`` when left out.
        count: Pictures to compose with the bank.
        test: Share of the groups that is for the test, in [0, 1), normal ones and those with defects each; with ``mvtec`` all with
            defects are.
        seed: Seed of the split and of composing.
        defect: Type of defect of photos, and of samples whose label is a number.
        group: How file names give the group of photos of one part: ``--group=-1`` cuts off the last part after an underscore.
        rejected: Whether samples are taken that were rejected.
        foreground: Mask of the object in the normal photos of a fixed camera, bright = object; defects of a bank stay on it.

    Raises:
        SettingError: If a value cannot be used, sources do not go together, nothing is left to export, or ``out`` holds something else.
        PhotoFolderError: If photos cannot be used.
        UnusableFileError: If a file is damaged or not what it was, or a name leaves its folder.
        OutputError: If something cannot be written.

    Example:
        >>> export(to="coco", out=Path("out"))
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: give one of photos, samples and bank, got none
    """
    layout = choose("layout", to, LAYOUTS)
    given = [name for name, value in (("photos", photos), ("samples", samples), ("bank", bank)) if value is not None]
    if len(given) != 1:
        raise SettingError(f"give one of photos, samples and bank, got {' and '.join(given) or 'none'}")
    require({
        "count must be at least 1": (count >= 1, count),
        "test must be in [0, 1)": (0 <= test < 1, test),
        "seed must be 0 to 2**63 - 1": (0 <= seed < 2**63, seed),
    })  # fmt: skip
    check_name(defect)
    _check_goes_with(given[0], {
        "masks": (masks is not None, ("photos", "samples")),
        "rejected": (rejected, ("samples",)),
        "foreground": (foreground is not None, ("bank",)),
    })  # fmt: skip
    if bank is not None and normals is None:
        raise SettingError(f"defects of a bank are put into normal photos, got {bank} without any; give their folder with --normals")
    gathered = _gathered(
        {"photos": photos, "samples": samples, "bank": bank, "normals": normals, "masks": masks},
        group=group, defect=defect, rejected=rejected, bare=layout.bare,
    )  # fmt: skip
    gathered.settle(test, seed, defects_to_test=layout.normal_training)
    parts = gathered.parts(count, 1.0 if layout.normal_training else test)
    area = read_defect_mask(foreground) if foreground is not None else None
    settings = [count, test, seed, file_hash(foreground) if foreground is not None else ""]
    folder = ExportFolder(out, mark=gathered.mark(settings), to=to)
    numbers: Counter[str] = Counter()
    rows = write_items(list(zip(gathered.items, gathered.sides, strict=True)), folder, layout, numbers)
    for side, part, normal, cutouts in parts:
        for item in composed(normal, cutouts, part, seed=seed, foreground=area):
            rows += write_items([(item, side)], folder, layout, numbers)
    layout.finish(folder, rows)
    for (side, kind), number in sorted(Counter((row.side, row.item.defect or "normal") for row in rows).items()):
        print(f"{number:6d}  {side}  {kind}")
    print(f"{len(rows)} pictures as {to} in {out}")


def _check_goes_with(source: str, options: Mapping[str, tuple[bool, Sequence[str]]]) -> None:
    """Refuse options that would do nothing."""
    for name, (is_given, fitting) in options.items():
        if is_given and source not in fitting:
            raise SettingError(f"{name} goes with {' or '.join(fitting)}, got it with {source}; leave it out")


def _gathered(places: Mapping[str, Path | None], *, group: str, defect: str, rejected: bool, bare: bool) -> _Gathered:
    """Everything that can be exported; what cannot is named."""
    left_out: list[tuple[str, str]] = []

    def leave(name: str, why: str) -> None:
        left_out.append((name, why))

    found, masks = _Gathered(), places["masks"]
    if (folder := places["normals"]) is not None:
        found.items += normals_of(folder, group=group)
    if (folder := places["photos"]) is not None:
        found.items += photos_of(folder, masks, group=group, defect=defect, left_out=leave)
    if (folder := places["samples"]) is not None:
        found.items += samples_of(folder, masks, group=group, defect=defect, rejected=rejected, bare=bare, left_out=leave)
    if (folder := places["bank"]) is not None:
        found.cutouts += Bank(folder)
    for kind in {cutout.origin.defect for cutout in found.cutouts}:
        check_name(kind)
    for name, why in left_out[:SHOWN]:
        print(f"left out {name}: {why}")
    if len(left_out) > SHOWN:
        print(f"and {len(left_out) - SHOWN} more were left out")
    if not any(item.defect for item in found.items) and not found.cutouts:
        raise SettingError(f"an export needs a defect, none of the {len(found.items) + len(left_out)} pictures has one that can be used")
    return found


@dataclass
class _Gathered:
    """What there is to export, and to which side each belongs."""

    items: list[Item] = field(default_factory=list)
    cutouts: list[Cutout] = field(default_factory=list)
    sides: list[Side] = field(default_factory=list)
    cutout_sides: list[Side] = field(default_factory=list)

    def settle(self, test: float, seed: int, *, defects_to_test: bool) -> None:
        """Split pictures and cut-outs together: a defect in training is on no picture of the test."""
        links = [*(item.links for item in self.items), *(links_of(cutout) for cutout in self.cutouts)]
        defective = [*(bool(item.defect) for item in self.items), *(True for _ in self.cutouts)]
        sides = split(links, defective, share=test, seed=seed, defects_to_test=defects_to_test)
        if defects_to_test and "train" not in sides:
            raise SettingError(
                "the training part of this layout is normal pictures, none is left for it; give --normals of other parts than the defects"
            )
        self.sides, self.cutout_sides = sides[: len(self.items)], sides[len(self.items) :]

    def mark(self, settings: Sequence[object]) -> str:
        """Hash that changes with anything that the export is made from."""
        items = [(item.source, item.mark, item.defect, item.group, side) for item, side in zip(self.items, self.sides, strict=True)]
        cutouts = [(digest(each.rgba[:3]), digest(each.rgba[3:].expand(3, -1, -1)), each.origin.defect) for each in self.cutouts]
        return hashlib.sha256(json.dumps([settings, items, cutouts]).encode()).hexdigest()

    def parts(self, count: int, test: float) -> list[tuple[Side, range, list[Item], list[Cutout]]]:
        """Which numbers of composed pictures belong to a side, and the normal pictures and cut-outs there.

        Raises:
            SettingError: If a side has no normal pictures, or no cut-outs.
        """
        if not self.cutouts:
            return []
        cut = count - (min(max(round(count * test), 1), count) if test else 0)
        sides: list[tuple[Side, range]] = [("train", range(cut)), ("test", range(cut, count))]
        return [(side, numbers, *self._on(side)) for side, numbers in sides if numbers]

    def _on(self, side: Side) -> tuple[list[Item], list[Cutout]]:
        normal = [item for item, own in zip(self.items, self.sides, strict=True) if own == side]
        cutouts = [cutout for cutout, own in zip(self.cutouts, self.cutout_sides, strict=True) if own == side]
        if not normal or not cutouts:
            raise SettingError(
                f"the {side} part needs normal pictures and defects, got {len(normal)} and {len(cutouts)}; give more groups of both, or "
                "another --test"
            )
        return normal, cutouts
