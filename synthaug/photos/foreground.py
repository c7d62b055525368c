"""Find the one thing that lies on a plain ground: a soft matte, without its shadow.

The ground's colour is a smooth surface through what most of the picture looks like, so that uneven light does no harm. What
departs from it is the thing or its shadow. A shadow is the ground, darker: as smooth as the ground is, hardly of another
colour, and, where it is deep, without a sharp edge of its own. So pixels with other colours or more texture than the ground
are taken for the thing, paper-like and slightly darker ones for the ground, and the rest goes with the neighbours
that look like it (:mod:`synthaug.photos.cutting`), first by these rules, then by the colours learned from them.

It knows when it does not know: photos whose ground is not plain, or whose thing fills next to nothing or
touches three sides, come back with a ``doubt``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from synthaug.photos.cutting import likelier, walked
from synthaug.photos.regions import blurred, filled, grown, opened, parts, shrunk

__all__ = ["Foreground", "find_foreground", "linear", "working_size"]

SIDE = 512
"""Texture is looked at with this long side, areas with half of it; small pictures are magnified to twice their size at most."""

SMALLEST, LARGEST = 0.01, 0.9
"""Share of the picture that the thing must fill."""

RESTLESS = 0.28
"""Median departure of the ground from a smooth surface, in logarithms, above which it is not plain; white board has 0.05."""


@dataclass(frozen=True, kw_only=True)
class Foreground:
    """The thing in a photo and what it lies on."""

    matte: Tensor
    """How much of each pixel is the thing, float (H, W), 0 to 1."""

    ground: Tensor
    """What the plain ground would look like everywhere, linear light, float (3, H, W)."""

    others: Tensor
    """Where something else stands out along the border, such as the edge of the table, float (H, W), 0 or 1."""

    doubt: str = ""
    """Why the matte should not be relied on; "" when nothing speaks against it."""

    @property
    def share(self) -> float:
        """Share of the picture that is the thing."""
        return float(self.matte.mean())


def linear(picture: Tensor) -> Tensor:
    """uint8 (3, H, W) to linear light, float 0 to 1; a plain power of 2.2 stands for sRGB's curve."""
    return (picture.float() / 255) ** 2.2


def working_size(picture: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    """The size, of the same shape, at which a thing is found best when a photo is to be framed to a smaller or larger one.

    Example:
        >>> working_size(torch.zeros(3, 3000, 4000), (128, 96)), working_size(torch.zeros(3, 150, 150), (1024, 1024))
        ((512, 384), (150, 150))
    """
    whole = min(picture.shape[1] / size[0], picture.shape[2] / size[1])  # the crop's own resolution
    scale = min(SIDE / max(size), max(whole, 8 / min(size)))
    return max(8, round(size[0] * scale)), max(8, round(size[1] * scale))


def find_foreground(picture: Tensor) -> Foreground:
    """Tell the thing in a photo from its ground.

    Args:
        picture: uint8 (3, H, W), best with one thing on a plain ground.

    Returns:
        Matte and ground, of the picture's size; see ``doubt`` before using them.

    Example:
        >>> paper = torch.full((3, 60, 80), 230, dtype=torch.uint8)
        >>> paper[:, 20:40, 30:60] = torch.tensor([40, 90, 160], dtype=torch.uint8)[:, None, None]
        >>> found = find_foreground(paper)
        >>> found.doubt, round(found.share, 2)
        ('', 0.12)
    """
    look = _Looks.of(picture)
    first = walked(*_by_rules(look), look.edges)
    thing = _refined(look, _thing(first), first)
    ground = F.interpolate(look.ground.exp()[None], picture.shape[1:], mode="bilinear")[0]
    strips = [part for part in parts((first > 0.5).float(), least=0) if _at_border(part) >= 0.6]
    others = grown(torch.stack(strips).sum(0), 1) if strips else torch.zeros_like(thing)
    large = F.interpolate(others[None, None], picture.shape[1:], mode="nearest")[0, 0]
    return Foreground(matte=_matte(picture, thing), ground=ground, others=large, doubt=_doubt(look, thing))


@dataclass(frozen=True, kw_only=True)
class _Looks:
    """What is known of each pixel, at the size that areas are looked for."""

    ground: Tensor
    """Logarithm of the ground's linear light, (3, h, w)."""

    light: Tensor
    """Logarithm of lightness over that of the ground, (h, w): 0 is the ground, below it is darker."""

    hue: Tensor
    """Red and blue against green, as logarithms over the ground's, (2, h, w)."""

    texture: Tensor
    """Restlessness over that of the ground, (h, w): about 1 on the ground."""

    @classmethod
    def of(cls, picture: Tensor) -> _Looks:
        height, width = picture.shape[1:]
        scale = min(2.0, SIDE / max(height, width))
        size = (2 * max(16, round(height * scale / 2)), 2 * max(16, round(width * scale / 2)))
        logs = F.interpolate(linear(picture)[None], size, mode="area" if scale < 1 else "bilinear")[0].clamp_min(2e-4).log()
        ground = _smooth_surface(logs)
        apart = logs - ground
        light = apart.mean(0)
        texture = _texture(light)
        half = F.avg_pool2d(torch.cat([light[None], (apart[[0, 2]] - apart[1]), ground]), 2)
        return cls(ground=half[3:], light=half[0], hue=blurred(half[1:3], 1), texture=texture / texture.median().clamp_min(0.004))

    @property
    def edges(self) -> Tensor:
        """What neighbours are compared by, (3, h, w)."""
        return torch.cat([self.light[None].clamp(-3, 0.5), 1.5 * blurred(self.hue, 1).clamp(-0.5, 0.5)])


def _smooth_surface(logs: Tensor) -> Tensor:
    """A cubic surface through what most pixels look like, (3, H, W); darker ones count less than brighter ones."""
    height, width = logs.shape[1:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    terms = torch.stack([x**i * y**j for i in range(4) for j in range(4 - i)]).flatten(1).T
    step = max(1, height * width // 8_000)
    some, wanted = terms[::step], logs.flatten(1).T[::step]
    weight, ridge = torch.ones(len(some)), 1e-4 * torch.eye(terms.shape[1])
    for _ in range(12):
        weighted = some * weight[:, None]
        surface = torch.linalg.solve(weighted.T @ some + ridge * weight.sum(), weighted.T @ wanted)
        off = (wanted - some @ surface).mean(1)
        scale = (1.4826 * off.abs().median()).clamp_min(0.03)
        weight = (1 - (off / (scale * torch.where(off < 0, 1.5, 3.0))).square()).clamp_min(0).square() + 1e-6
    through: Tensor = terms @ surface
    return through.T.reshape(logs.shape)


def _texture(light: Tensor, reach: int = 5) -> Tensor:
    """How restless the surroundings are, at half the size; single lines, such as a shadow's rim, do not count."""
    detail = (light - blurred(light[None], 2)[0]).abs()
    padded = F.pad(detail[None, None], (reach,) * 4, mode="reflect")
    middle: Tensor = padded.unfold(2, 2 * reach + 1, 2).unfold(3, 2 * reach + 1, 2).flatten(4).median(-1).values
    return middle[0, 0]


def _by_rules(look: _Looks) -> tuple[Tensor, Tensor]:
    """A first guess and how much to trust it, each (h, w)."""
    darker, hue = (-look.light).clamp_min(0), look.hue.norm(dim=0)
    apart = (look.light.abs() / 0.35 + hue / 0.12).square()
    coloured = ((hue - 0.05 - 0.3 * darker).clamp_min(0) / 0.1).square()  # shadows are tinted, deep ones more
    restless = ((look.texture - 4).clamp_min(0) / 3).square() * (0.15 + apart).clamp(max=1.5)
    brighter = ((look.light - 0.2).clamp_min(0) / 0.25).square()
    for_thing = coloured + restless + brighter
    thing = 1 - torch.exp(-for_thing / 2)
    against_ground = (darker / 0.6).square() / 2 + 2 * for_thing + (hue / 0.15).square() + ((look.texture - 3).clamp_min(0) / 2).square()
    ground = torch.exp(-against_ground)
    trust = 0.0005 + 0.1 * thing**2 + 0.05 * ground**2
    return (0.0005 * 0.5 + 0.1 * thing**2) / trust, trust


def _thing(probable: Tensor) -> Tensor:
    """The large areas of the picture that are no strip along its border, zeros and ones (h, w)."""
    area = shrunk(filled(grown(opened((probable > 0.5).float(), 2), 1)), 1)
    inner = [part for part in parts(area) if _at_border(part) < 0.6]
    large = [part for part in inner if part.sum() >= 0.25 * inner[0].sum()]
    return torch.stack(large).sum(0) if large else torch.zeros_like(area)


def _at_border(part: Tensor) -> float:
    """Share of an area that lies in the outermost twentieth of the picture."""
    edge = max(1, round(0.05 * min(part.shape)))
    return 1 - float(part[edge:-edge, edge:-edge].sum() / part.sum())


def _refined(look: _Looks, thing: Tensor, probable: Tensor) -> Tensor:
    """The thing again, by the colours learned from it and from what lies around it."""
    seen = torch.cat([
        look.light[None].clamp(-3, 0.6), 4 * blurred(look.hue, 1).clamp(-0.5, 0.5), 1.5 * look.texture[None].clamp(0.3, 30).log(),
    ])  # fmt: skip
    reach = max(4, round(0.1 * max(thing.shape)))
    for _ in range(3):
        near, core = grown(thing, reach), shrunk(thing, 2) > 0
        shade = _shade(look, core)
        sure, around = core & ~shade, (near > 0) & ((grown(thing, 2) == 0) | shade)
        if sure.sum() < 50 or around.sum() < 50:
            return thing
        ratio = blurred(likelier(seen, sure, around)[None], 1)[0]
        guess = torch.sigmoid(ratio / 2)
        trust = 0.001 + 0.025 * (2 * guess - 1).square()
        probable = walked(guess * near, trust, look.edges)
        thing = _thing(probable)
    return thing


def _shade(look: _Looks, core: Tensor) -> Tensor:
    """What was taken for the thing but could be ground in shadow, (h, w), bool: darker, hardly of another colour, less restless.

    Only where the thing itself is restless; of a smooth thing nothing can be said against its smooth parts.
    """
    typical = float(look.texture[core].median()) if core.any() else 0.0
    deep = (look.texture < min(0.4 * typical, 3.0)) & (look.light < -0.6)
    tint = 0.04 + 0.2 * (-look.light).clamp_min(0)
    speckled = (look.texture < 0.75 * typical) & (look.light < -0.1) & (look.light > -1) & (look.hue.norm(dim=0) < tint)
    return (deep | speckled) if typical > 4 else torch.zeros_like(core)


def _matte(picture: Tensor, thing: Tensor) -> Tensor:
    """Soft edges at full size: within a narrow band the walk decides by the picture's own edges."""
    size = picture.shape[1:]
    fine = F.interpolate(thing[None, None], size, mode="bilinear")[0, 0]
    reach = max(2, round(0.008 * max(size)))
    inner, outer = shrunk((fine > 0.5).float(), reach), grown((fine > 0.5).float(), reach)
    rows, columns = ((outer.sum(dim) > 0).nonzero().flatten() for dim in (1, 0))
    if torch.equal(inner, outer):  # nothing, or all of the picture: there is no rim
        return fine
    box = (slice(max(0, int(rows[0]) - 2), int(rows[-1]) + 3), slice(max(0, int(columns[0]) - 2), int(columns[-1]) + 3))
    inner, outer, fine = inner[box], outer[box], fine[box]
    band = (outer - inner) > 0
    guess = torch.where(band, fine, inner)
    features = linear(picture)[:, box[0], box[1]].clamp_min(2e-4).log()
    steps = (features[:, 1:] - features[:, :-1]).square().sum(0)[band[1:]]
    soft = walked(guess, torch.where(band, 0.01, 10.0), features, beta=float(1 / steps.mean().clamp_min(1e-4)))
    out = torch.zeros(size)
    sharp = ((soft - 0.15) / 0.7).clamp(0, 1)
    out[box] = sharp * sharp * (3 - 2 * sharp)
    return out


def _doubt(look: _Looks, thing: Tensor) -> str:
    """Why not to rely on it, as the end of "the object cannot be told from the background: ..."."""
    share = float(thing.mean())
    if float(look.light[thing == 0].abs().median()) > RESTLESS:
        return "the background is not plain"
    if share < SMALLEST:
        return f"what stands out fills less than {SMALLEST:.0%} of the photo"
    if share > LARGEST:
        return f"what stands out fills more than {LARGEST:.0%} of the photo"
    sides = [float(side.mean()) for side in (thing[0], thing[-1], thing[:, 0], thing[:, -1])]
    if sum(side > 0.02 for side in sides) >= 3:
        return "what stands out touches three sides of the photo"
    return ""
