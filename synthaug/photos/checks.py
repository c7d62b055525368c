"""What is wrong with photos that can be read: too small, too dark, too bright, unsharp, twice the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from torch import Tensor

from synthaug.pixels import framed

__all__ = ["Look", "look_at", "remarks"]

DARK, BRIGHT = 0.12, 0.97
"""Mean lightness, 0 to 1, below or above which a photo shows next to nothing; white paper has about 0.9."""

UNSHARP = 0.35
"""Share of the median sharpness of all photos below which one is probably blurred; sharp ones of one series stay above 0.65."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the checks need to know of one photo."""

    name: str
    """What to call it."""

    shape: tuple[int, int]
    """Height and width of the whole photo."""

    light: float
    """Mean lightness, 0 to 1."""

    sharpness: float
    """Standard deviation of the Laplacian of the lightness after framing, 0 for a plain surface."""

    sha256: str
    """Hash of its pixels."""

    defect: float | None = None
    """Share of the framed mask that is defect; None without a mask."""


def look_at(name: str, picture: Tensor, size: tuple[int, int], *, sha256: str, defect: float | None = None) -> Look:
    """Measure a photo, uint8 (3, H, W).

    Example:
        >>> import torch
        >>> look_at("night.jpg", torch.zeros(3, 20, 30, dtype=torch.uint8), (8, 8), sha256="00").light
        0.0
    """
    light = framed(picture, size).float().mean(0) / 255
    middle, beside = light[1:-1, 1:-1], light[1:-1, :-2] + light[1:-1, 2:] + light[:-2, 1:-1] + light[2:, 1:-1]
    height, width = picture.shape[1:]
    return Look(
        name=name, shape=(height, width), light=float(light.mean()), sharpness=float((4 * middle - beside).std()), sha256=sha256,
        defect=defect,
    )  # fmt: skip


def remarks(looks: Sequence[Look], size: tuple[int, int]) -> Iterator[str]:
    """Say what is wrong, one sentence per kind of trouble, with the names.

    Args:
        looks: All photos, at least one.
        size: Height and width that they are framed to.

    Example:
        >>> look = Look(name="a.jpg", shape=(300, 400), light=0.5, sharpness=0.1, sha256="00")
        >>> print(*remarks([look], (512, 512)))
        1 photo is smaller than 512 x 512 and was magnified: a.jpg
    """
    usual = median(look.sharpness for look in looks)
    twice = _twice(looks)
    kinds = {
        f"smaller than {size[0]} x {size[1]} and was magnified": [x.name for x in looks if x.shape[0] < size[0] or x.shape[1] < size[1]],
        "almost black": [x.name for x in looks if x.light < DARK],
        "almost white": [x.name for x in looks if x.light > BRIGHT],
        "much less sharp than the others": [x.name for x in looks if x.sharpness < UNSHARP * usual],
        "the same as another one": twice,
        "without any defect in its mask at this size": [x.name for x in looks if x.defect == 0],
    }
    for kind, names in kinds.items():
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            yield f"{len(names)} photo{'s are' if len(names) > 1 else ' is'} {_plural(kind, len(names))}: {shown}"


def _twice(looks: Sequence[Look]) -> list[str]:
    """Photos whose pixels another one has, too, all but the first of them."""
    seen: dict[str, str] = {}
    return [f"{x.name} = {seen[x.sha256]}" for x in looks if seen.setdefault(x.sha256, x.name) != x.name]


def _plural(kind: str, count: int) -> str:
    return kind if count == 1 else kind.replace("and was ", "and were ").replace("its mask", "their masks")
