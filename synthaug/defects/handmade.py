"""Hand-made defects, the arms that drawn ones have to beat: CutPaste, Perlin blots, Poisson pasting. Real ones are a bank of real photos.

Each recipe draws from the generator that it is given, stays on the object, and hands over its exact mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as colour

from synthaug.defects.change import Change, DefectSource, Plane, is_visible
from synthaug.defects.poisson import seamless
from synthaug.defects.shapes import perlin
from synthaug.defects.textures import texture
from synthaug.errors import SettingError, choose, require

__all__ = ["HANDMADE", "CutPaste", "PerlinBlots", "PoissonPaste"]

Rng = np.random.Generator
Area = NDArray[np.bool_]

TRIES = 12
"""So many attempts are made at a defect that can be seen and lies on the object."""


@dataclass(frozen=True, kw_only=True)
class CutPaste:
    """A piece of the picture, its colours changed a little, pasted elsewhere in it.

    ``normal`` is a rectangle of 2 to 15 % of the picture, ``scar`` a thin turned one, 2 to 16 by 10 to 25 pixels in a picture of 256;
    ``union`` is either, evenly.

    Source:
        Li et al. 2021, https://arxiv.org/abs/2104.04015.
    """

    kind: Literal["normal", "scar", "union"] = "union"
    """Which pieces."""

    def __post_init__(self) -> None:
        choose("kind of CutPaste", self.kind, dict.fromkeys(("normal", "scar", "union")))

    def draw(self, picture: Plane, free: Area, rng: Rng) -> Change | None:
        """See :class:`synthaug.defects.change.DefectSource`."""
        return _first(self._attempt, picture, free, rng)

    def _attempt(self, picture: Plane, free: Area, rng: Rng) -> Change | None:
        kind = ("normal", "scar")[int(rng.integers(2))] if self.kind == "union" else self.kind
        mask = _rectangle(picture.shape[1:], rng) if kind == "normal" else _scar(picture.shape[1:], rng)
        height, width = mask.shape
        rows, columns = picture.shape[1] - height, picture.shape[2] - width
        top, left = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))
        patch = _jittered(picture[:, top : top + height, left : left + width], rng)
        place = _centred(mask.shape, free, rng)
        return None if place is None else _laid(picture, patch, mask, free, place, "cutpaste" if kind == "normal" else "cutpaste scar")


@dataclass(frozen=True, kw_only=True)
class PerlinBlots:
    """Another texture, mixed into the picture where Perlin noise is high and the object is.

    Source:
        Zavrtanik et al. 2021, DRAEM, https://arxiv.org/abs/2108.07610: noise of 2^0 to 2^5 cells each way, turned by up to 90 degrees,
        above one half. Its textures come from a data set, ours are made: :func:`synthaug.defects.textures.texture`. Kept on the object:
        Yang et al. 2023, MemSeg, https://arxiv.org/abs/2205.00908.
    """

    opacity: tuple[float, float] = (0.2, 1.0)
    """How much of the texture there is, drawn evenly from this range."""

    finest: int = 5
    """Cells of the noise are drawn from 2^0 to 2 to the power of this."""

    def __post_init__(self) -> None:
        require({
            "opacity must be (low, high) in (0, 1]": (0 < self.opacity[0] <= self.opacity[1] <= 1, self.opacity),
            "finest must be in [0, 8]": (0 <= self.finest <= 8, self.finest),
        })  # fmt: skip

    def draw(self, picture: Plane, free: Area, rng: Rng) -> Change | None:
        """See :class:`synthaug.defects.change.DefectSource`."""
        return _first(self._attempt, picture, free, rng)

    def _attempt(self, picture: Plane, free: Area, rng: Rng) -> Change | None:
        size = (picture.shape[1], picture.shape[2])
        down, across = (2 ** int(rng.integers(self.finest + 1)) for _ in range(2))
        noise = _turned(perlin(size, scale=(down, across), rng=rng), float(rng.uniform(-90, 90)))
        mask = (noise > 0.5) & free
        if not mask.any():
            return None
        weight = np.float32(rng.uniform(*self.opacity))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left = int(rows[0]), int(columns[0])
        window = (slice(top, int(rows[-1]) + 1), slice(left, int(columns[-1]) + 1))
        under, mask = picture[:, *window], mask[window]
        made = texture(picture, rng)[:, *window]
        return Change(top=top, left=left, pixels=np.where(mask, under + weight * (made - under), under), mask=mask, kind="perlin")


@dataclass(frozen=True)
class PoissonPaste:
    """A rectangle of a normal picture, resized, pasted seamlessly elsewhere; the mask is where it changed anything.

    Sides are 3 % and a gamma variate of shape 2 and scale 0.1 of the picture's, 40 % at most; half of the pastes keep the stronger
    of both pictures' differences between neighbours.

    Source:
        Schlüter et al. 2022, natural synthetic anomalies, https://arxiv.org/abs/2109.15222.
    """

    normals: Sequence[Tensor] = ()
    """Normal pictures to cut from, uint8 (3, H, W); the picture itself when there are none."""

    threshold: float = 4.0
    """Grey levels, smoothed over 3 x 3 pixels, above which a pixel counts as changed."""

    def __post_init__(self) -> None:
        require({"threshold must be above 0": (self.threshold > 0, self.threshold)})
        for normal in self.normals:
            if normal.dtype != torch.uint8 or normal.ndim != 3 or len(normal) != 3:
                raise SettingError(f"normal pictures must be uint8 (3, H, W), got {normal.dtype} {tuple(normal.shape)}")

    def draw(self, picture: Plane, free: Area, rng: Rng) -> Change | None:
        """See :class:`synthaug.defects.change.DefectSource`."""
        return _first(self._attempt, picture, free, rng)

    def _attempt(self, picture: Plane, free: Area, rng: Rng) -> Change | None:
        other = self.normals[int(rng.integers(len(self.normals)))].numpy().astype(np.float32) if self.normals else picture
        height, width = (max(3, int(min(0.03 + rng.gamma(2, 0.1), 0.4) * side)) for side in picture.shape[1:])
        grow = float(np.clip(rng.normal(1, 0.5), 0.7, 1.3))
        high, wide = min(other.shape[1], max(3, round(height / grow))), min(other.shape[2], max(3, round(width / grow)))
        top, left = int(rng.integers(other.shape[1] - high + 1)), int(rng.integers(other.shape[2] - wide + 1))
        cut = torch.from_numpy(other[:, top : top + high, left : left + wide])
        source = F.interpolate(cut[None], (height, width), mode="bilinear")[0].numpy()
        place = _centred((height, width), free, rng)
        if place is None:
            return None
        window = (slice(place[0], place[0] + height), slice(place[1], place[1] + width))
        under, whole = picture[:, *window], np.ones((height, width), bool)
        pasted = np.clip(seamless(source, under, whole, mixed=bool(rng.random() < 0.5)), 0, 255)
        pasted = np.where(free[window], pasted, under)
        difference = torch.from_numpy(np.abs(pasted - under).mean(0))
        mask = (F.avg_pool2d(difference[None], 3, 1, 1)[0].numpy() > self.threshold) & free[window]
        return Change(top=place[0], left=place[1], pixels=pasted, mask=mask, kind="poisson paste") if mask.any() else None


HANDMADE: dict[str, Callable[[], DefectSource]] = {
    "cutpaste": lambda: CutPaste(kind="normal"),
    "scar": lambda: CutPaste(kind="scar"),
    "union": lambda: CutPaste(kind="union"),
    "perlin": PerlinBlots,
    "poisson": PoissonPaste,
}
"""Name -> recipe, as they are compared."""


def _first(attempt: Callable[[Plane, Area, Rng], Change | None], picture: Plane, free: Area, rng: Rng) -> Change | None:
    """The first attempt that can be seen."""
    if not free.any():
        return None
    changes = (attempt(picture, free, rng) for _ in range(TRIES))
    return next((change for change in changes if change is not None and is_visible(change, picture)), None)


def _rectangle(size: tuple[int, ...], rng: Rng) -> Area:
    area = rng.uniform(0.02, 0.15) * size[0] * size[1]
    aspect = rng.uniform(0.3, 1) if rng.random() < 0.5 else rng.uniform(1, 3.3)
    height, width = (
        int(np.clip(round(side), 1, most)) for side, most in zip(((area * aspect) ** 0.5, (area / aspect) ** 0.5), size, strict=True)
    )
    return np.ones((height, width), bool)


def _scar(size: tuple[int, ...], rng: Rng) -> Area:
    unit = min(size) / 256
    across, along = max(1.5, rng.uniform(2, 16) * unit), max(3.0, rng.uniform(10, 25) * unit)
    turn = np.deg2rad(rng.uniform(-45, 45))
    reach = min(int(np.hypot(across, along) / 2) + 1, (min(size) - 1) // 2)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    mask = (abs(np.cos(turn) * x + np.sin(turn) * y) <= across / 2) & (abs(np.cos(turn) * y - np.sin(turn) * x) <= along / 2)
    return np.asarray(mask[np.ix_(mask.any(1), mask.any(0))])


def _jittered(patch: Plane, rng: Rng) -> Plane:
    """Brightness, contrast, saturation and hue changed by up to a tenth."""
    out = torch.from_numpy(patch / np.float32(255))
    brightness, contrast, saturation = rng.uniform(0.9, 1.1, 3)
    out = colour.adjust_contrast(colour.adjust_brightness(out, float(brightness)), float(contrast))
    out = colour.adjust_hue(colour.adjust_saturation(out, float(saturation)), float(rng.uniform(-0.1, 0.1)))
    return np.asarray(out.numpy() * np.float32(255))


def _centred(shape: tuple[int, ...], free: Area, rng: Rng) -> tuple[int, int] | None:
    """Top and left of a window whose middle lies on the object, pushed back into the picture."""
    room = np.flatnonzero(free)
    if not len(room) or shape[0] > free.shape[0] or shape[1] > free.shape[1]:
        return None
    row, column = divmod(int(room[rng.integers(len(room))]), free.shape[1])
    return min(max(0, row - shape[0] // 2), free.shape[0] - shape[0]), min(max(0, column - shape[1] // 2), free.shape[1] - shape[1])


def _laid(picture: Plane, patch: Plane, mask: Area, free: Area, place: tuple[int, int], kind: str) -> Change | None:
    """A patch put down with hard edges; what would lie beside the object is left out."""
    window = (slice(place[0], place[0] + mask.shape[0]), slice(place[1], place[1] + mask.shape[1]))
    mask = mask & free[window]
    pixels = np.where(mask, patch, picture[:, *window])
    return Change(top=place[0], left=place[1], pixels=pixels, mask=mask, kind=kind) if mask.any() else None


def _turned(noise: Plane, degrees: float) -> Plane:
    """A plane turned about its middle; what comes from outside is 0."""
    turned = colour.rotate(torch.from_numpy(noise)[None], degrees, interpolation=colour.InterpolationMode.BILINEAR)
    return np.asarray(turned[0].numpy())
