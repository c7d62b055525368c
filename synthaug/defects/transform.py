"""Put defects into normal images, as a transform: image, mask, boxes, label and defect type change together."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from typing_extensions import override

from synthaug.defects.bank import Bank
from synthaug.defects.change import Change, DefectSource, Foreground, Plane
from synthaug.defects.compose import FromBank, Pasting
from synthaug.defects.marks import Label, is_plain, marked, with_boxes, with_defects
from synthaug.errors import SettingError, require
from synthaug.photos.regions import grown

__all__ = ["SyntheticDefect"]

log = logging.getLogger(__name__)

_SEEDS = 2**53

APART = 2
"""Pixels that defects of one image keep from each other."""


class SyntheticDefect(v2.Transform):  # type: ignore[misc]  # torchvision ships no types, so its class is Any
    """Put defects into a normal image: those of a bank, or hand-made ones.

    What a sample says of the image changes with it. A ``tv_tensors.Mask`` (H, W) or (1, H, W) gets the defect as 1; with boxes beside it,
    a mask (N, H, W) is taken for one per object and gets another. ``BoundingBoxes`` get a box per defect. The label is the first number or
    text behind the image in a tuple, or stands under ``label`` in a dict; ``labels`` (N,) gets one entry per defect; ``defect`` becomes its
    type. Only normal samples change: those whose label is ``normal``, or which have none. Everything else passes through untouched.

    All randomness is drawn from torch's global generator, as in every transform of v2, so workers and seeds behave as usual. An image
    where no place is found for a defect, or where it could not be seen, stays normal in all respects; this is logged once. Put it
    before transforms that normalise, and before those that turn or crop where a foreground is given.

    Args:
        source: A bank or its folder, or a hand-made recipe such as ``CutPaste()`` of :mod:`synthaug.defects`.
        p: Probability that a normal image gets defects, in [0, 1].
        count: How many defects, or (low, high) to draw from; as many as find a place.
        pasting: How the defects of a bank are put in; not for hand-made ones, which have settings of their own.
        foreground: Where the object is: a mask (H, W) for all images of a fixed camera (see ``object_mask``), or a function of a uint8
            image (3, H, W). The whole image when left out.
        normal: Label of a normal image, a number or text.
        label: Label of an image with a defect.

    Shapes:
        One image per sample: ``tv_tensors.Image`` or plain tensor (C, H, W), C 1 or 3, uint8 or float in [0, 1]; PIL images RGB or L.

    Raises:
        SettingError: If a value cannot be used; when called, for batches, several images, videos, marks that do not fit the image.
        UnusableFileError: If the bank cannot be used.

    Example:
        >>> from synthaug.defects import CutPaste
        >>> image = tv_tensors.Image(torch.arange(64).to(torch.uint8).expand(3, 64, 64))
        >>> mask = tv_tensors.Mask(torch.zeros(64, 64, dtype=torch.uint8))
        >>> out, target = SyntheticDefect(CutPaste(kind="scar"), p=1.0)(image, {"mask": mask, "label": 0, "defect": ""})
        >>> target["label"], target["defect"], bool((out != image).any(0)[target["mask"] == 0].any())
        (1, 'cutpaste scar', False)
    """

    _transformed_types = (tv_tensors.Image, Image.Image, is_plain, tv_tensors.Mask, tv_tensors.BoundingBoxes, Label)

    def __init__(
        self,
        source: Path | str | Bank | DefectSource,
        *,
        p: float = 0.5,
        count: int | tuple[int, int] = 1,
        pasting: Pasting | None = None,
        foreground: Foreground = None,
        normal: int | str = 0,
        label: int | str = 1,
    ) -> None:
        super().__init__()
        low, high = count if isinstance(count, tuple) else (count, count)
        require({
            "p must be in [0, 1]": (0 <= p <= 1, p),
            "count must be at least 1, or (low, high) in this order": (1 <= low <= high, count),
            "normal and label must be two labels of one kind": (
                isinstance(normal, str) == isinstance(label, str) and normal != label, (normal, label),
            ),
        })  # fmt: skip
        if isinstance(source, Path | str):
            source = Bank(source)
        if pasting is not None and not isinstance(source, Bank):
            raise SettingError(f"pasting is for the defects of a bank, got it with {type(source).__name__}, which has settings of its own")
        self.p, self.count, self.normal, self.label = p, (low, high), normal, label
        self._source: DefectSource = FromBank(source, pasting) if isinstance(source, Bank) else source
        self._foreground = _plane(foreground) if isinstance(foreground, Tensor) else foreground
        self._told = False

    @override
    def forward(self, *inputs: Any) -> Any:
        """Transform one sample."""
        return super().forward(marked(inputs if len(inputs) > 1 else inputs[0]))

    @override
    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse what could not be kept true."""
        image = _image_of(flat_inputs)
        if image is None:
            return
        size = tuple(F.get_size(image))
        for inpt in flat_inputs:
            if isinstance(inpt, tv_tensors.Mask) and tuple(inpt.shape[-2:]) != size:
                raise SettingError(f"a mask must have the size of its image, got {tuple(inpt.shape[-2:])} beside {size}; resize both alike")
            if isinstance(inpt, tv_tensors.BoundingBoxes) and tuple(inpt.canvas_size) != size:
                raise SettingError(f"boxes must be of the image's size, got {tuple(inpt.canvas_size)} beside {size}; resize both alike")
            if inpt is not image and is_plain(inpt) and inpt.ndim >= 2 and tuple(inpt.shape[-2:]) == size:
                raise SettingError(
                    f"a plain tensor {tuple(inpt.shape)} beside an image of this size may be its mask; wrap it in tv_tensors.Mask"
                )
            if isinstance(inpt, Label) and not inpt.speaks(self.normal):
                raise SettingError(
                    f"the label {inpt.value!r} is of another kind than normal={self.normal!r} and label={self.label!r}; "
                    "give both as your data has them"
                )

    @override
    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw everything random here, down to the pixels of the defects; ``transform`` only writes them."""
        image = _image_of(flat_inputs)
        sound = all(inpt.is_normal(self.normal) for inpt in flat_inputs if isinstance(inpt, Label))
        chosen, seed = float(torch.rand(())) < self.p, int(torch.randint(_SEEDS, ()))
        if image is None or not sound or not chosen:
            return {"changes": []}
        picture = _picture(image)
        changes, after = self._changes(picture, np.random.default_rng(seed))
        boxed = any(isinstance(inpt, tv_tensors.BoundingBoxes) for inpt in flat_inputs)
        return {"changes": changes, "boxed": boxed, "after": after, "touched": (after != picture).any(0)}

    def _changes(self, picture: Plane, rng: np.random.Generator) -> tuple[list[Change], Plane]:
        """Defects one after the other, and the picture with all of them."""
        after, free = picture, self._object(picture)
        found: list[Change] = []
        for _ in range(int(rng.integers(self.count[0], self.count[1] + 1))):
            change = self._source.draw(after, free, rng)
            if change is None:
                break
            if not found:
                after, free = picture.copy(), free.copy()
            found.append(change)
            after[:, *change.window] = change.pixels
            free[change.window] &= (grown(torch.from_numpy(change.mask).float(), APART) == 0).numpy()
        if not found and not self._told:
            self._told = True
            log.warning(
                "no place was found for a defect in an image of %d x %d, which stays normal; if this is so for many, look at the "
                "foreground, and whether the defects are too large or too faint for these images", *picture.shape[1:],
            )  # fmt: skip
        return found, after

    def _object(self, picture: Plane) -> NDArray[np.bool_]:
        if self._foreground is None:
            return np.ones(picture.shape[1:], bool)
        where = (
            self._foreground
            if isinstance(self._foreground, np.ndarray)
            else _plane(self._foreground(torch.from_numpy(picture).to(torch.uint8)))
        )
        if where.shape != picture.shape[1:]:
            raise SettingError(
                f"the foreground must have the size of the image, got {where.shape} beside {picture.shape[1:]}; put SyntheticDefect before "
                "transforms that resize or crop, or give a function"
            )
        return where

    @override
    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Change one input."""
        changes = params["changes"]
        if not changes:
            return inpt.value if isinstance(inpt, Label) else inpt
        if isinstance(inpt, Label):
            return inpt.changed(self.label, changes)
        if isinstance(inpt, tv_tensors.Mask):
            return with_defects(inpt, changes, one_each=params["boxed"])
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return with_boxes(inpt, changes)
        if isinstance(inpt, Image.Image):
            return F.to_pil_image(_written(F.pil_to_tensor(inpt), params))
        out = _written(inpt.as_subclass(Tensor), params)
        return tv_tensors.wrap(out, like=inpt) if isinstance(inpt, tv_tensors.Image) else out


def _plane(mask: Tensor) -> NDArray[np.bool_]:
    where = mask.as_subclass(Tensor).detach().cpu().squeeze().numpy() > 0
    if where.ndim != 2 or not where.any():
        raise SettingError(
            f"a foreground must be a mask (H, W) that marks the object, got shape {tuple(mask.shape)}, {int(where.sum())} pixels marked"
        )
    return where


def _image_of(flat_inputs: list[Any]) -> Any:
    """The one image of a sample; None if there is none.

    Raises:
        SettingError: If there are several, or one is a batch, a video or of another kind.
    """
    if any(isinstance(inpt, tv_tensors.Video) for inpt in flat_inputs):
        raise SettingError("a defect is put into a single image, got a Video; pass its frames one by one")
    images = [inpt for inpt in flat_inputs if isinstance(inpt, (tv_tensors.Image, Image.Image))]
    images = images or [inpt for inpt in flat_inputs if is_plain(inpt)][:1]
    if len(images) > 1:
        raise SettingError(f"a sample must hold one image, got {len(images)}; if one of them is a mask, wrap it in tv_tensors.Mask")
    if not images:
        return None
    [image] = images
    if isinstance(image, Image.Image):
        if image.mode not in ("RGB", "L"):
            raise SettingError(f"a picture must be RGB or L, got mode {image.mode}; convert it first: picture.convert('RGB')")
    elif image.ndim != 3 or image.shape[0] not in (1, 3):
        raise SettingError(
            f"an image must be (C, H, W) with C 1 or 3, got shape {tuple(image.shape)}; apply it before images become a batch"
        )
    elif image.dtype != torch.uint8 and not image.is_floating_point():
        raise SettingError(f"an image must be uint8 or float in [0, 1], got {image.dtype}")
    return image


def _picture(image: Any) -> Plane:
    """An image as float32 (3, H, W), 0 to 255."""
    tensor = F.pil_to_tensor(image) if isinstance(image, Image.Image) else image.as_subclass(Tensor).detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
        low, high = (float(limit) for limit in tensor.aminmax())
        if not (low >= 0 and high <= 1):
            raise SettingError(f"a float image must be in [0, 1], got {low:g} to {high:g}; put SyntheticDefect before what normalises")
        tensor = tensor * 255
    planes: Plane = tensor.expand(3, -1, -1).numpy().astype(np.float32)
    return planes


def _written(image: Tensor, params: dict[str, Any]) -> Tensor:
    """An image (C, H, W) with defects, in its own type and range; what was not touched keeps its very bits."""
    pixels = torch.from_numpy(params["after"])
    if len(image) == 1:
        pixels = F.rgb_to_grayscale(pixels)
    value = pixels.round().to(torch.uint8) if image.dtype == torch.uint8 else (pixels / 255).to(image.dtype)
    return torch.where(torch.from_numpy(params["touched"]).to(image.device), value.to(image.device), image.detach())
