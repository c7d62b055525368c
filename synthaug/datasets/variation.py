"""Draw a photo again, a little different: image to image, as a transform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from typing_extensions import override

from synthaug.datasets.drawer import refuse_forked_gpu
from synthaug.datasets.plans import lora_plan
from synthaug.errors import SettingError
from synthaug.generation import Sampler
from synthaug.records import Request
from synthaug.seeds import seed_for

__all__ = ["SyntheticVariation", "size_like"]

_SEEDS = 2**53
_ROUNDING = 1e-3


def _is_plain(inpt: Any) -> bool:
    """A tensor that is not one of torchvision's own kinds; v2 takes the first one in a sample for the image."""
    return isinstance(inpt, Tensor) and not isinstance(inpt, tv_tensors.TVTensor)


def _count(flat_inputs: list[Any]) -> int:
    """Images in the batch (..., C, H, W) that a sample holds; a plain tensor is one only where there is nothing better, as in v2."""
    images = [inpt for inpt in flat_inputs if isinstance(inpt, (tv_tensors.Image, Image.Image))]
    images += [inpt for inpt in flat_inputs if _is_plain(inpt)]
    return math.prod(images[0].shape[:-3]) if images and isinstance(images[0], Tensor) else 1


class SyntheticVariation(v2.Transform):  # type: ignore[misc]  # torchvision ships no types, so its class is Any
    """Redraw the photo it is given with a LoRA: noise is added to it, and only the last part of a run is done.

    Whether, with which seed and how strongly is drawn once per call from torch's global generator, as in every
    transform of v2; all images of a sample or batch share them, but each has noise of its own. With ``per_image``
    each image of a batch decides for itself. A batch is redrawn in one go, which is much faster than image by
    image: apply it to what the loader hands out, or in its ``collate_fn``.

    The whole photo is redrawn, nothing is cropped: it is resized to about as many pixels as the LoRA was
    trained at, in its own shape (sides rounded to multiples of 8), and the result is resized back, so a larger
    photo loses fine detail. An image comes back in its own type, size and range. Everything else in the sample
    passes through untouched.

    Args:
        lora: The LoRA file.
        strength: Share of the run that is redone, in (0, 1], or (low, high) to draw it evenly from there.
        p: Probability that a sample is changed, in [0, 1].
        per_image: Draw p and strength anew for each image of a batch (N, C, H, W).
        prompt: What to draw; ``{this|that}`` is decided per sample; the LoRA's own caption when left out.
        keeps_geometry: Your word that at this strength nothing moves that a mask, box or keypoint marks.
            Without it a sample that holds one is refused; with it they pass through.
        steps: Denoising steps of a whole run.
        guidance: Scale of classifier-free guidance.
        size: Height and width whose area photos are redrawn at; the LoRA's own when left out.
        device: ``auto``, ``cpu``, ``cuda`` …
        base: The base model; the one the LoRA was trained on when left out.

    Shapes:
        ``tv_tensors.Image`` or plain tensor (..., C, H, W), C 1 or 3, uint8 or float in [0, 1]; PIL images
        RGB or L.

    Raises:
        SettingError: If a value cannot be used; when called, if a sample holds a video, a picture of another mode, one with values
            outside its range, or marks without ``keeps_geometry``.
        UnusableFileError: If the LoRA file cannot be used.
        WrongBaseModelError: If ``base`` is not the one the LoRA was made for.

    Example:
        >>> SyntheticVariation("iriko.safetensors", p=1.5)
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: p must be in [0, 1], got 1.5

    Adding noise and denoising: Meng et al. 2022, SDEdit, https://arxiv.org/abs/2108.01073.
    """

    _transformed_types = (tv_tensors.Image, Image.Image, _is_plain)

    def __init__(  # noqa: PLR0913  # a transform is configured by its constructor alone
        self,
        lora: Path | str,
        *,
        strength: float | Sequence[float] = 0.5,
        p: float = 0.5,
        per_image: bool = False,
        prompt: str | None = None,
        keeps_geometry: bool = False,
        steps: int = 20,
        guidance: float = 4.0,
        size: tuple[int, int] | None = None,
        device: str = "auto",
        base: str | None = None,
    ) -> None:
        super().__init__()
        if not (_is_number(p) and 0 <= p <= 1):
            raise SettingError(f"p must be in [0, 1], got {p!r}")
        self.strength, self.p, self.per_image, self.keeps_geometry = _range_of(strength), p, per_image, keeps_geometry
        self._plan = lora_plan(lora, prompt=prompt, base=base, steps=steps, guidance=guidance, size=size)
        self._sampler = Sampler.for_drawing(self._plan.base, self._plan, device=device)

    @override
    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse what would not be true of the redrawn photo any more."""
        marks = (tv_tensors.Mask, tv_tensors.BoundingBoxes, *_KEYPOINTS)
        for inpt in flat_inputs:
            kind = type(inpt).__name__
            if isinstance(inpt, marks) and not self.keeps_geometry:
                raise SettingError(
                    f"a {kind} marks a place, and a photo redrawn at strength {self.strength[1]:g} may have moved what is there; "
                    "leave it out, or pass keeps_geometry=True once you have looked at images of this strength"
                )
            if isinstance(inpt, tv_tensors.Video):
                raise SettingError(f"a photo is redrawn by itself, got a {kind}, whose frames would not fit each other; pass single images")

    @override
    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw everything random here; ``transform`` only applies it."""
        count = _count(flat_inputs) if self.per_image else 1
        chosen = (torch.rand(count) < self.p).tolist() if flat_inputs else [False]
        if not any(chosen):
            return {"seed": None}
        low, high = self.strength
        seed, strengths = int(torch.randint(_SEEDS, ())), (low + (high - low) * torch.rand(count, dtype=torch.float64)).tolist()
        return {"seed": seed, "chosen": chosen, "strengths": strengths}

    @override
    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Redraw one input."""
        if params["seed"] is None:
            return inpt
        if isinstance(inpt, Image.Image):
            if inpt.mode not in ("RGB", "L"):
                raise SettingError(f"a picture must be RGB or L, got mode {inpt.mode}; convert it first: picture.convert('RGB')")
            return F.to_pil_image(self._redrawn(F.pil_to_tensor(inpt), params))
        out = self._redrawn(inpt.as_subclass(Tensor), params)
        return tv_tensors.wrap(out, like=inpt) if isinstance(inpt, tv_tensors.Image) else out

    def _redrawn(self, image: Tensor, params: dict[str, Any]) -> Tensor:
        """Redraw plain tensors (..., C, H, W), each in its own type and range."""
        if image.ndim < 3 or image.shape[-3] not in (1, 3):
            raise SettingError(f"an image must be (..., C, H, W) with C 1 or 3, got shape {tuple(image.shape)}")
        if not image.numel():
            return image
        _check_range(image)
        refuse_forked_gpu(self._sampler.device)
        shades = image.detach().cpu()
        photos = F.to_dtype(shades.clamp(0, 1) if shades.is_floating_point() else shades, torch.uint8, scale=True).reshape(
            -1, *image.shape[-3:]
        )
        height, width = image.shape[-2:]
        size = size_like((height, width), self._plan.size)
        rows = self._rows(params, len(photos))
        resized = F.resize(photos[rows].expand(-1, 3, -1, -1), list(size), antialias=True)
        drawn = self._sampler([self._request(params, size, row) for row in rows], images=resized)
        back = F.resize(drawn, [height, width], antialias=True)
        if image.shape[-3] == 1:
            back = F.rgb_to_grayscale(back)
        out = image.detach().clone().reshape(-1, *image.shape[-3:])
        out[rows] = F.to_dtype(back, image.dtype, scale=True).to(image.device)
        return out.reshape(image.shape)

    def _rows(self, params: dict[str, Any], count: int) -> list[int]:
        """Which images of a batch are redrawn."""
        if not self.per_image:
            return list(range(count))
        if count != len(params["chosen"]):
            raise SettingError(
                f"with per_image, all images of a sample must be batches of one size, got {len(params['chosen'])} and {count}; "
                "pass them one by one"
            )
        return [row for row, is_chosen in enumerate(params["chosen"]) if is_chosen]

    def _request(self, params: dict[str, Any], size: tuple[int, int], index: int) -> Request:
        """Request for image ``index`` of a batch."""
        seeded = replace(self._plan, seed=params["seed"] if index == 0 else seed_for(params["seed"], "image", index))
        return replace(seeded.request(0), size=size, strength=params["strengths"][index if self.per_image else 0])


_KEYPOINTS = (tv_tensors.KeyPoints,) if hasattr(tv_tensors, "KeyPoints") else ()  # torchvision 0.23 brought them


def _range_of(strength: Any) -> tuple[float, float]:
    """Low and high of a strength.

    Raises:
        SettingError: If it is none.
    """
    ends = tuple(strength) if isinstance(strength, (tuple, list)) else (strength, strength)
    if len(ends) != 2 or not all(_is_number(end) for end in ends) or not 0 < ends[0] <= ends[1] <= 1:
        raise SettingError(
            f"strength must be in (0, 1], or (low, high) in this order, got {strength!r}; 0 would hand back the photo unchanged"
        )
    return float(ends[0]), float(ends[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_range(image: Tensor) -> None:
    """Refuse a float image whose values are no shades; a rounding error beyond [0, 1] is none.

    Raises:
        SettingError: If there are such values.
    """
    if image.is_floating_point() and not (image.min() >= -_ROUNDING and image.max() <= 1 + _ROUNDING):
        raise SettingError(
            f"a float image must be in [0, 1], got values from {float(image.min()):g} to {float(image.max()):g}; redraw it before it is "
            "normalised, or clamp it"
        )


def size_like(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of about the area of ``size`` in the proportions of ``shape``, multiples of 8.

    Example:
        >>> size_like((600, 800), (128, 128))
        (112, 144)
    """
    scale = math.sqrt(size[0] * size[1] / (shape[0] * shape[1]))
    return max(8, round(shape[0] * scale / 8) * 8), max(8, round(shape[1] * scale / 8) * 8)
