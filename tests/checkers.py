"""Properties that every part of a kind must have, checked the same way for all of them."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2


def check_transform(
    transform: v2.Transform, switched_off: v2.Transform, *, size: tuple[int, int] = (37, 61), label: Any = None
) -> None:  # fmt: skip
    """Check what every transform promises.

    It survives pickling and draws its randomness from torch's global generator; images keep their type, size and
    dtype, for tensors of torchvision, plain tensors and PIL pictures; what is no image comes back identically;
    nothing is edited in place; the input decides nothing but the output.

    Args:
        transform: Changes every sample (p=1).
        switched_off: The same with p=0.
        size: Height and width of the test images, odd and unequal.
        label: What stands under ``label``; a tensor when left out. Given for transforms that may change it, it is not compared.
    """
    for image in _images(size):
        before = _pixels(image).clone()
        note = object()
        sample = {"image": image, "note": note, "label": torch.tensor(3) if label is None else label, "path": "a.png"}

        out = _seeded(transform, sample)
        again = _seeded(pickle.loads(pickle.dumps(transform)), sample)

        assert type(out["image"]) is type(image), type(out["image"])
        assert _pixels(out["image"]).shape == before.shape
        assert _pixels(out["image"]).dtype == before.dtype
        assert not torch.equal(_pixels(out["image"]), before), "p=1 must change the image"
        assert torch.equal(_pixels(image), before), "the input was edited in place"
        assert torch.equal(_pixels(out["image"]), _pixels(again["image"])), "not the same after pickling, from the same seed"
        assert all(out[key] is sample[key] for key in ("note", "path", *(["label"] if label is None else [])))
        off = _seeded(switched_off, sample)
        assert all(off[key] is sample[key] for key in sample), "p=0 must hand back the very same objects"


def _images(size: tuple[int, int]) -> list[Any]:
    pixels = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return [tv_tensors.Image(pixels), pixels, Image.fromarray(pixels.permute(1, 2, 0).numpy())]


def _pixels(image: Any) -> torch.Tensor:
    return v2.functional.pil_to_tensor(image) if isinstance(image, Image.Image) else image.as_subclass(torch.Tensor)


def _seeded(transform: v2.Transform, sample: dict[str, Any]) -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return transform(sample)
