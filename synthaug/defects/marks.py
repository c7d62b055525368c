"""What a sample says of its image, changed along with it: label, defect type, mask and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from synthaug.defects.change import Change
from synthaug.errors import SettingError

__all__ = ["Label", "is_plain", "marked", "with_boxes", "with_defects"]

KEYS = ("label", "labels", "defect")
"""Entries of a dict that change."""


@dataclass(frozen=True, eq=False)
class Label:
    """A label on its way through a transform: torchvision's walk over a sample takes it for one thing, as it does an image."""

    key: str
    value: Any

    def speaks(self, normal: int | str) -> bool:
        """Whether the label is of the kind that ``normal`` is."""
        return self.key != "label" or isinstance(self.value, str) == isinstance(normal, str)

    def is_normal(self, normal: int | str) -> bool:
        """Whether it says nothing against a normal image."""
        return self.key != "label" or bool(self.value == normal)

    def changed(self, label: int | str, changes: Sequence[Change]) -> Any:
        """What it says once there are defects."""
        if self.key == "defect":
            return changes[0].kind
        if self.key == "labels":
            return torch.cat([self.value, self.value.new_full((len(changes),), int(label))])
        return torch.full_like(self.value, int(label)) if isinstance(self.value, Tensor) else type(self.value)(label)


def is_plain(inpt: Any) -> bool:
    """A tensor that is not one of torchvision's own kinds; v2 takes the first one in a sample for the image."""
    return isinstance(inpt, Tensor) and not isinstance(inpt, tv_tensors.TVTensor)


def marked(sample: Any) -> Any:
    """A sample whose labels are wrapped in :class:`Label`.

    Example:
        >>> marked(("image", {"label": 0, "path": "a.png"}))[1]
        {'label': Label(key='label', value=0), 'path': 'a.png'}
    """
    if isinstance(sample, dict):
        out = copy(sample)
        for key, value in sample.items():
            out[key] = Label(key, value) if key in KEYS and _fitting(key, value) else marked(value)
        return out
    if isinstance(sample, tuple | list):
        entries = [marked(entry) for entry in sample]
        at = next((row for row, entry in enumerate(sample) if row and _is_scalar(entry)), None)
        if at is not None:
            entries[at] = Label("label", sample[at])
        return type(sample)(*entries) if hasattr(sample, "_fields") else type(sample)(entries)
    return sample


def _fitting(key: str, value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 1 if key == "labels" else _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | str | np.integer) or (isinstance(value, Tensor) and is_plain(value) and value.ndim == 0)


def with_defects(mask: Any, changes: Sequence[Change], *, one_each: bool) -> Any:
    """A mask with the defects as 1.

    Args:
        mask: ``tv_tensors.Mask`` (H, W), (1, H, W) or (N, H, W).
        changes: The defects.
        one_each: Whether (N, H, W) has one mask per object, and gets another for each defect.

    Raises:
        SettingError: If it has another shape.
    """
    plain = mask.as_subclass(Tensor)
    if mask.ndim == 3 and one_each:
        more = plain.new_zeros((len(changes), *mask.shape[1:]))
        for row, change in zip(more, changes, strict=True):
            _mark(row, change)
        return tv_tensors.wrap(torch.cat([plain, more]), like=mask)
    if mask.ndim == 2 or (mask.ndim == 3 and len(mask) == 1):
        out = plain.clone()
        for change in changes:
            _mark(out if out.ndim == 2 else out[0], change)
        return tv_tensors.wrap(out, like=mask)
    raise SettingError(f"a mask must be (H, W) or (1, H, W), or (N, H, W) with N boxes beside it, got shape {tuple(mask.shape)}")


def _mark(plane: Tensor, change: Change) -> None:
    plane[change.window].masked_fill_(torch.from_numpy(change.mask).to(plane.device), 1)


def with_boxes(boxes: Any, changes: Sequence[Change]) -> Any:
    """Boxes with one more per defect, in their own format.

    Raises:
        SettingError: If they are rotated.
    """
    formats = tv_tensors.BoundingBoxFormat
    if boxes.format not in (formats.XYXY, formats.XYWH, formats.CXCYWH):
        raise SettingError(f"boxes must be XYXY, XYWH or CXCYWH, got {boxes.format.name}; convert them first")
    more = torch.tensor([change.box for change in changes], dtype=torch.float32, device=boxes.device)
    more = F.convert_bounding_box_format(more, old_format=formats.XYXY, new_format=boxes.format)
    return tv_tensors.wrap(torch.cat([boxes.as_subclass(Tensor), more.to(boxes.dtype)]), like=boxes)
