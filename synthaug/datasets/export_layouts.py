"""How exported pictures lie on disk: MVTec AD, CSV, COCO, YOLO.

MVTec AD: Bergmann et al. 2019, https://doi.org/10.1109/CVPR.2019.00982. COCO: https://cocodataset.org/#format-data; masks are
uncompressed RLE, column by column, beginning with what is not marked. YOLO: https://docs.ultralytics.com/datasets/detect/.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from torch import Tensor

from synthaug.datasets.export_folder import ExportFolder
from synthaug.datasets.export_items import Item
from synthaug.datasets.export_split import Side
from synthaug.defects.marked import pieces
from synthaug.pixels import digest

__all__ = ["COLUMNS", "LAYOUTS", "Row", "box_of", "rle_of", "write_items"]

COLUMNS = ("file", "split", "label", "defect", "mask", "group", "parent", "seed", "sha256", "source", "donor")
"""Of ``samples.csv``, which every layout has."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A picture that was written."""

    item: Item
    side: Side
    file: str
    """Relative to the export, with slashes."""
    mask: str
    """File of the mask; "" without one."""
    size: tuple[int, int]
    """Height and width."""
    sha256: str
    """Hash of the pixels."""
    objects: tuple[dict[str, Any], ...]
    """Box, area and mask of each defect, as COCO has them."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where files go, and what is written beside them."""

    folders: Callable[[Side, str], tuple[str, str]]
    """Folder of pictures and folder of masks, for a side and a type of defect."""

    finish: Callable[[ExportFolder, Sequence[Row]], None]
    """Writes what describes the pictures."""

    mask_ending: str = ""
    """Put behind the name of a picture for that of its mask."""

    bare: bool = False
    """Whether a defect may be without a mask."""

    normal_training: bool = False
    """Whether the training part is normal, and all defects are for the test."""


def write_items(items: Sequence[tuple[Item, Side]], folder: ExportFolder, layout: Layout, numbers: Counter[str]) -> list[Row]:
    """Write pictures and masks.

    Args:
        items: What to write, in order.
        folder: Where to.
        layout: How.
        numbers: Pictures so far in each folder; goes on counting.
    """
    rows = []
    for item, side in items:
        image, mask = item.read()
        images, masks = layout.folders(side, item.defect)
        name = f"{numbers[images]:06d}"
        numbers[images] += 1
        folder.write_image(f"{images}/{name}.png", image, item.text)
        mask_file = "" if mask is None else f"{masks}/{name}{layout.mask_ending}.png"
        objects: tuple[dict[str, Any], ...] = ()
        if mask is not None:
            folder.write_mask(mask_file, mask)
            objects = tuple({"bbox": box_of(part), "area": int(part.sum()), "segmentation": rle_of(part)} for part in pieces(mask))
        rows.append(
            Row(
                item=item, side=side, file=f"{images}/{name}.png", mask=mask_file, size=(image.shape[1], image.shape[2]),
                sha256=digest(image), objects=objects,
            )
        )  # fmt: skip
    return rows


def rle_of(mask: Tensor) -> dict[str, Any]:
    """Uncompressed run lengths of a mask, as COCO counts them: down the columns, zeros first.

    Args:
        mask: uint8 (H, W), 1 = defect.

    Example:
        >>> rle_of(torch.tensor([[1, 0], [1, 1]], dtype=torch.uint8))
        {'counts': [0, 2, 1, 1], 'size': [2, 2]}
    """
    flat = torch.cat([torch.zeros(1, dtype=torch.uint8), mask.T.flatten()])  # a zero in front makes the first run one of zeros
    _, counts = torch.unique_consecutive(flat, return_counts=True)
    counts[0] -= 1
    return {"counts": counts.tolist(), "size": list(mask.shape)}


def box_of(mask: Tensor) -> list[int]:
    """Left, top, width and height of what is marked."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1]


def _csv(folder: ExportFolder, rows: Sequence[Row]) -> None:
    out = io.StringIO()
    table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({
            "file": row.file, "split": row.side, "label": int(bool(row.item.defect)), "mask": row.mask, "sha256": row.sha256, **_about(row),
        })  # fmt: skip
    folder.write_text("samples.csv", out.getvalue())


def _about(row: Row) -> dict[str, Any]:
    """Where a picture comes from."""
    item = row.item
    return {
        "defect": item.defect, "group": item.group, "parent": item.parent, "seed": item.seed, "source": item.source, "donor": item.donor,
    }  # fmt: skip


def _kinds(rows: Sequence[Row]) -> list[str]:
    return sorted({row.item.defect for row in rows if row.item.defect})


def _coco(folder: ExportFolder, rows: Sequence[Row]) -> None:
    kinds = _kinds(rows)
    for side in _sides(rows):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, row in enumerate((row for row in rows if row.side == side), 1):
            images.append({
                "id": number, "file_name": row.file.rpartition("/")[2], "height": row.size[0], "width": row.size[1], "sha256": row.sha256,
                **_about(row),
            })  # fmt: skip
            for each in row.objects:
                about = {"id": len(annotations) + 1, "image_id": number, "category_id": kinds.index(row.item.defect) + 1, "iscrowd": 0}
                annotations.append({**about, **each})
        whole = {
            "info": {"description": "written by synthaug export"}, "licenses": [], "images": images, "annotations": annotations,
            "categories": [{"id": number, "name": kind, "supercategory": "defect"} for number, kind in enumerate(kinds, 1)],
        }  # fmt: skip
        folder.write_text(f"annotations/instances_{side}.json", json.dumps(whole, ensure_ascii=False) + "\n")
    _csv(folder, rows)


def _yolo(folder: ExportFolder, rows: Sequence[Row]) -> None:
    kinds = _kinds(rows)
    for row in rows:
        lines = [f"{kinds.index(row.item.defect)} {_centred(each['bbox'], row.size)}\n" for each in row.objects]
        folder.write_text(f"labels/{row.side}/{row.file.rpartition('/')[2].removesuffix('.png')}.txt", "".join(lines))
    sides = _sides(rows)
    data: dict[str, Any] = {side: f"images/{side}" for side in sides}
    if "test" in sides:
        data["val"] = data["test"]
    data["names"] = dict(enumerate(kinds))
    note = "# val is the test part, because the format asks for one: choose no epoch by it\n" if "test" in sides else ""
    folder.write_text("data.yaml", note + yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    folder.write_text("classes.txt", "".join(f"{kind}\n" for kind in kinds))
    _csv(folder, rows)


def _centred(box: Sequence[int], size: tuple[int, int]) -> str:
    """Middle and size of a box as shares of the picture."""
    (left, top, width, height), (rows, columns) = box, size
    return f"{(left + width / 2) / columns:.6f} {(top + height / 2) / rows:.6f} {width / columns:.6f} {height / rows:.6f}"


def _sides(rows: Sequence[Row]) -> list[Side]:
    sides: tuple[Side, ...] = ("train", "test")
    return [side for side in sides if any(row.side == side for row in rows)]


LAYOUTS = {
    "mvtec": Layout(
        folders=lambda side, defect: (f"{side}/{defect or 'good'}", f"ground_truth/{defect}"),
        mask_ending="_mask", finish=_csv, normal_training=True,
    ),
    "csv": Layout(folders=lambda _side, _defect: ("images", "masks"), finish=_csv, bare=True),
    "coco": Layout(folders=lambda side, _defect: (side, f"masks/{side}"), finish=_coco),
    "yolo": Layout(folders=lambda side, _defect: (f"images/{side}", f"masks/{side}"), finish=_yolo),
}  # fmt: skip
"""Layout -> how it is written."""
