"""What is done when a card runs out of numbers or of memory, each counted: nothing bad passes silently.

====================  =====================================================================================
what is counted       what was done
====================  =====================================================================================
UNet in fp32          half precision gave NaN: that image alone was drawn again in fp32
VAE in bf16, in fp32  its decoder gave NaN: that image alone was decoded again
smaller batch         memory ran out: half as many images at a time, from then on
blank                 nothing: the picture is of one colour, look at it
saturated             nothing: more than :data:`SATURATED` of the picture is pure black or white, look at it
====================  =====================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from synthaug.errors import NumericsError, SettingError
from synthaug.generation.networks import Networks
from synthaug.models.numerics import watched

__all__ = ["SATURATED", "Room", "looks", "redrawn", "repairs_said", "unsound"]

T = TypeVar("T")

SATURATED = 0.5
"""Share of pixels, black or white in all three colours, above which a picture is called saturated. A white background that is blown out
takes less of a photo; a run with too much guidance, or a broken decoder, leaves more."""


def unsound(latents: Tensor) -> list[int]:
    """Rows of latents (N, C, h, w) that are not finite.

    Example:
        >>> unsound(torch.tensor([1.0, float("nan")]).reshape(2, 1, 1, 1))
        [1]
    """
    return [row for row, fine in enumerate(torch.isfinite(latents).flatten(1).all(1).tolist()) if not fine]


def looks(images: Tensor) -> list[tuple[str, ...]]:
    """What is odd about pictures, uint8 (N, 3, H, W): for each ``blank``, ``saturated``, or nothing.

    Example:
        >>> looks(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8))
        [('blank', 'saturated')]
    """
    flat = images.flatten(2)
    blank = (flat == flat[..., :1]).all(2).all(1)
    pure = ((flat == 0).all(1) | (flat == 255).all(1)).float().mean(1) > SATURATED
    marks = zip(blank.tolist(), pure.tolist(), strict=True)
    return [(*(["blank"] if is_blank else []), *(["saturated"] if is_pure else [])) for is_blank, is_pure in marks]


def redrawn(networks: Networks, draw: Callable[[], tuple[Tensor, object]], *, seed: int) -> Tensor:
    """Latents (C, h, w) of one image whose first attempt was not finite, drawn in fp32.

    Args:
        networks: Whose UNet is put back into its precision afterwards, bit for bit.
        draw: Draws the image once more: latents (1, C, h, w), and what comes along.
        seed: Of the image, for the sentence.

    Raises:
        NumericsError: If fp32 does not cure it; with the first module that answered NaN.
    """
    with _in_fp32(networks), watched(networks.unet) as found:
        latents, _ = draw()
    if not unsound(latents):
        return latents[0]
    if found.module is None:
        cause = "the steps of the sampler overflow; take a lower guidance"
    elif found.given:
        cause = f"what its {found.module} is given is NaN already, so the text encoder or a LoRA on it is damaged; take the LoRA off"
    else:
        cause = f"its {found.module} is the first to answer NaN; take the LoRA off or weaken it, or load the base again"
    raise NumericsError(f"a denoised latent must be finite, that of seed {seed} is NaN or infinite in fp32 too: in the UNet of "
                        f"{networks.base.name} {cause}")  # fmt: skip


@contextmanager
def _in_fp32(networks: Networks) -> Iterator[None]:
    was, dtype = networks.precision, networks.unet.dtype
    networks.unet.to(torch.float32)  # and back: half precision goes through fp32 without loss
    networks.precision = replace(was, storage=torch.float32, autocast=None)
    try:
        yield
    finally:
        networks.precision = was
        networks.unet.to(dtype)


class Room:
    """How many images fit into memory at a time; learned when it runs out, and remembered."""

    def __init__(self) -> None:
        self._most: dict[tuple[int, int], int] = {}
        self.halved = 0

    def draw(self, rows: Sequence[int], size: tuple[int, int], draw: Callable[[list[int]], list[T]]) -> list[T]:
        """Draw rows of one size, as many at a time as fit.

        Args:
            rows: Which.
            size: Height and width of each in pixels.
            draw: Draws some of them.

        Raises:
            SettingError: If one image alone does not fit.

        Example:
            >>> def draw(rows):
            ...     if len(rows) > 2:
            ...         raise torch.OutOfMemoryError("out of memory")
            ...     return [-row for row in rows]
            >>> room = Room()
            >>> room.draw([1, 2, 3, 4, 5], (8, 8), draw), room.halved
            ([-1, -2, -3, -4, -5], 1)
        """
        out: list[T] = []
        while len(out) < len(rows):
            part = list(rows[len(out) : len(out) + self._most.get(size, len(rows))])
            try:
                out += draw(part)
                continue
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            self._halve(len(part), size)  # only here the error has let go of the tensors it came from
        return out

    def _halve(self, tried: int, size: tuple[int, int]) -> None:
        if tried == 1:
            raise SettingError(
                f"at least one image must fit into memory, one of {size[0]} x {size[1]} does not; draw a smaller size, take --precision "
                "fp16, or close what else uses the card"
            )
        self._most[size] = max(1, tried // 2)
        self.halved += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _is_out_of_memory(error: RuntimeError) -> bool:
    """A card says so by class, the CPU by words."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def repairs_said(repairs: Mapping[str, int]) -> str:
    """Counts of repairs in words, for a summary; "" when there were none.

    Example:
        >>> repairs_said(Counter({"blank": 1, "VAE in fp32": 2}))
        'VAE in fp32: 2, blank: 1'
    """
    return ", ".join(f"{what}: {count}" for what, count in Counter(repairs).most_common())
