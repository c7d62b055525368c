"""What stands beside an image: its label, or a dict that says what it is."""

from __future__ import annotations

from typing import Any, Literal

from torchvision import tv_tensors

from synthaug.errors import choose
from synthaug.pixels import framed_mask, read_mask
from synthaug.records import Request

__all__ = ["Target", "check_target", "drawn_target", "target_of"]

Target = Literal["label", "dict"]


def check_target(target: str) -> None:
    """Refuse a kind of target that there is not.

    Raises:
        SettingError: If it is unknown.
    """
    choose("target", target, _KINDS)


def target_of(request: Request, kind: Target) -> Any:
    """Target of an image.

    Args:
        request: What was drawn.
        kind: ``label``, or ``dict`` for label, index, seed and prompt.

    Example:
        >>> target_of(Request(prompt="iriko", seed=7, label="sound"), "dict")
        {'label': 'sound', 'index': 0, 'seed': 7, 'prompt': 'iriko'}
    """
    return _KINDS[kind](request)


def drawn_target(request: Request, kind: Target) -> Any:
    """The same beside an image that was drawn here: its ``dict`` holds the mask, too, where there is one.

    The mask is framed as the image is, a ``tv_tensors.Mask`` uint8 (H, W), 1 = redrawn.

    Raises:
        UnusableFileError: If the mask cannot be read.

    Example:
        >>> drawn_target(Request(prompt="iriko", seed=7, label="sound"), "dict")
        {'label': 'sound', 'index': 0, 'seed': 7, 'prompt': 'iriko'}
    """
    target = target_of(request, kind)
    if kind == "dict" and request.mask is not None:
        target["mask"] = tv_tensors.Mask(framed_mask((read_mask(request.mask) > 0).byte(), request.size))
    return target


def _label(request: Request) -> int | str:
    return request.label


def _described(request: Request) -> dict[str, int | str]:
    return {"label": request.label, "index": request.index, "seed": request.seed, "prompt": request.prompt}


_KINDS = {"label": _label, "dict": _described}
