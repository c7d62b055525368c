"""What is made of one photo: its shadow lightened, its thing laid on other grounds, once or several times."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from synthaug.errors import require
from synthaug.photos.background import Ground, chosen, replaced, surface
from synthaug.photos.foreground import Foreground, find_foreground, working_size
from synthaug.photos.regions import blurred, grown
from synthaug.photos.shadows import lightened
from synthaug.pixels import framed, framed_mask
from synthaug.seeds import seed_for

__all__ = ["MARK", "Changes", "Made", "Variant", "variants_of"]

MARK = "\N{MATHEMATICAL LEFT ANGLE BRACKET}background\N{MATHEMATICAL RIGHT ANGLE BRACKET}"
"""Stands in captions for what the thing lies on until that is known."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What to do to every photo."""

    size: tuple[int, int]
    """Height and width."""

    flatten: float = 0.0
    """How much to even out the light, 0 to 1."""

    shadows: float = 0.0
    """How much to lighten the shadow of the thing, 0 to 1."""

    grounds: tuple[tuple[Ground, ...], ...] = ()
    """What to lay the thing on, by part of the list; () leaves it where it is."""

    variants: int = 1
    """How often to make each photo."""

    save_mattes: bool = False
    """Whether to keep where the thing was found."""

    def __post_init__(self) -> None:
        require({
            "flatten must be from 0 to 1; 1 takes out all unevenness": (0 <= self.flatten <= 1, self.flatten),
            "shadows must be from 0 to 1; 1 takes the shadow away": (0 <= self.shadows <= 1, self.shadows),
            "variants must be at least 1": (self.variants >= 1, self.variants),
            "more than 1 of variants needs a background to vary, such as --background blue,beige,own": (
                self.variants == 1 or bool(self.grounds), self.variants,
            ),
        })  # fmt: skip

    @property
    def need_the_thing(self) -> bool:
        """Whether the thing must be told from its background."""
        return bool(self.grounds) or self.shadows > 0 or self.save_mattes

    def file_names(self, stem: str) -> list[str]:
        """The file of each variant."""
        return [f"{stem}.png"] if self.variants == 1 else [f"{stem}_v{number}.png" for number in range(1, self.variants + 1)]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One picture to write."""

    picture: Tensor
    """uint8 (3, H, W)."""

    words: str
    """What a caption calls the background."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """All that was made of one photo."""

    variants: tuple[Variant, ...]
    """At least one; just the photo itself where the thing is in doubt."""

    matte: Tensor | None = None
    """Where the thing is, white, uint8 (3, H, W); None where it is in doubt or nobody asked."""

    doubt: str = ""
    """Why the thing could not be told from its background."""

    cut: bool = False
    """Whether much of the marked defect lies off the thing that was found; it was kept all the same."""


def variants_of(picture: Tensor, mask: Tensor | None, changes: Changes, *, name: str, own: str) -> Made:
    """Make the variants of a photo; the same name and changes always make the same ones.

    The thing is found, and the changes are made, at the size that suits that best; only then is the photo made as small as wanted.

    Args:
        picture: uint8 (3, H, W), whole.
        mask: uint8 (H, W), 1 = defect, which is never cut away; None without one.
        changes: What to do.
        name: Decides which backgrounds come first and how they lie.
        own: What to call the photo's own background.
    """
    plain = Variant(picture=framed(picture, changes.size), words=own)
    if not changes.need_the_thing:
        return Made(variants=(plain,))
    size = working_size(picture, changes.size)
    size = size if max(size) > max(changes.size) else changes.size
    picture, mask = framed(picture, size), None if mask is None else framed_mask(mask, size)
    found = find_foreground(picture)
    if doubt := found.doubt or _doubt(found, mask):
        return Made(variants=(plain,), doubt=doubt)
    cut = mask is not None and bool(mask.any()) and float(found.matte[mask > 0].mean()) < 0.5
    if mask is not None:
        found = replace(found, matte=torch.maximum(found.matte, _soft(mask)))
    if not changes.grounds:
        made = [Variant(picture=lightened(picture, found, strength=changes.shadows), words=own)]
    else:
        made = [_on(chosen(changes.grounds, name, at), picture, found, changes, f"{name}/{at}", own) for at in range(changes.variants)]
    matte = (found.matte * 255).round().to(torch.uint8).expand(3, -1, -1).contiguous()
    smaller = [replace(variant, picture=framed(variant.picture, changes.size)) for variant in made]
    return Made(variants=tuple(smaller), matte=framed(matte, changes.size), cut=cut)


def _on(ground: Ground, picture: Tensor, found: Foreground, changes: Changes, name: str, own: str) -> Variant:
    if ground.colour is None and ground.picture is None:
        return Variant(picture=lightened(picture, found, strength=changes.shadows), words=own)
    height, width = found.matte.shape
    below = surface(ground, (height, width), seed=seed_for(0, "surface", name))
    return Variant(picture=replaced(picture, found, below, shadows=changes.shadows), words=ground.words)


def _doubt(found: Foreground, mask: Tensor | None) -> str:
    """What a mask says against a matte."""
    thing = found.matte > 0.5
    if mask is None or not mask.any() or not thing.any():
        return ""
    inside = (grown(mask.float(), max(2, min(mask.shape) // 100)) > 0) & thing
    return "what stands out is the marked defect, not a thing that it is on" if inside.sum() > 0.6 * thing.sum() else ""


def _soft(mask: Tensor) -> Tensor:
    """A mask and a soft rim around it, float (H, W)."""
    reach = max(1, min(mask.shape) // 200)
    return blurred(grown(mask.float(), 2 * reach)[None], reach)[0]
