"""Sizes that photos of different shapes are trained at, all of about the same area.

Aspect-ratio buckets as kohya-ss/sd-scripts has them: NovelAI 2022, https://blog.novelai.net/novelai-improvements-on-stable-diffusion-e10d38db82ac.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from synthaug.errors import PhotoFolderError, SettingError, require

__all__ = ["Buckets"]

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Which sizes there are; off, every photo is cropped to one size.

    Example:
        >>> buckets = Buckets(enabled=True)
        >>> buckets.size_for((3000, 4000), (512, 512)), buckets.size_for((4000, 3000), (512, 512))
        ((448, 576), (576, 448))
    """

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

    def sizes(self, like: Size) -> tuple[Size, ...]:
        """All sizes (height, width) of at most the area of ``like``: to every side the longest other one that still fits.

        Raises:
            SettingError: If there is none.

        Example:
            >>> Buckets(smallest=384, largest=704).sizes((512, 512))
            ((384, 640), (448, 576), (512, 512), (576, 448), (640, 384))
        """
        area, found = like[0] * like[1], set()
        for side in range(-(-self.smallest // self.step) * self.step, self.largest + 1, self.step):
            other = min(self.largest, area // side) // self.step * self.step
            if other >= self.smallest:
                found |= {(side, other), (other, side)}
        if not found:
            raise SettingError(
                f"buckets must fit the area that is trained at, sides of {self.smallest} to {self.largest} in steps of {self.step} make none "
                f"of at most {like[0]} x {like[1]}; use a smaller --data.buckets.smallest, or a larger --data.size"
            )
        return tuple(sorted(found))

    def size_for(self, photo: Size, like: Size) -> Size:
        """The size a photo is trained at.

        Args:
            photo: Height and width of the photo.
            like: Height and width whose area is aimed at; the answer itself when buckets are off.

        Returns:
            The size of the nearest shape, of two equally near ones the larger. Without ``upscale``, a photo that is smaller
            than that gets its own size, rounded down to the step.

        Raises:
            SettingError: If no size fits.
            PhotoFolderError: If the photo is smaller than one step and must not be magnified.
        """
        if not self.enabled:
            return like
        shape = math.log(photo[0] / photo[1])
        best = min(self.sizes(like), key=lambda size: (round(abs(math.log(size[0] / size[1]) - shape), 9), -size[0] * size[1], size))
        if self.upscale or (photo[0] >= best[0] and photo[1] >= best[1]):
            return best
        own = (min(photo[0], self.largest) // self.step * self.step, min(photo[1], self.largest) // self.step * self.step)
        if min(own) < self.step:
            raise PhotoFolderError(
                f"a photo that is not magnified must be at least buckets.step ({self.step}) pixels high and wide, there is one of "
                f"{photo[0]} x {photo[1]}; leave it out, or set --data.buckets.upscale true"
            )
        return own
