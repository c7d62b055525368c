"""Sizes that photos of different shapes are trained at, all of about the same area.

Aspect-ratio buckets as kohya-ss/sd-scripts has them: NovelAI 2022, https://blog.novelai.net/novelai-improvements-on-stable-diffusion-e10d38db82ac.
"""

from __future__ import annotations

from dataclasses import dataclass

from synthaug.errors import require

__all__ = ["Buckets"]


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Which sizes there are; off, every photo is cropped to one size."""

    enabled: bool = False
    """Whether photos keep about their own shape."""

    step: int = 64
    """Sides are multiples of this, itself a multiple of 8."""

    smallest: int = 256
    """Shortest side."""

    largest: int = 1024
    """Longest side."""

    upscale: bool = True
    """Whether photos smaller than their bucket are magnified; otherwise their bucket is made as large as they are."""

    def __post_init__(self) -> None:
        require({
            "buckets.step must be a multiple of 8, at least 8; 64 is usual": (self.step >= 8 and self.step % 8 == 0, self.step),
            "buckets.smallest must be at least buckets.step": (self.smallest >= self.step, self.smallest),
            "buckets.largest must be at least buckets.smallest": (self.largest >= self.smallest, self.largest),
        })  # fmt: skip
