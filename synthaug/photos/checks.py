"""What is wrong with photos that can be read: too small, too dark, unsharp, nearly the same, all with one shadow on one background.

Blur without a sharp picture to compare with: Crete et al. 2007, https://doi.org/10.1117/12.702790.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from synthaug.photos.background import colour_name
from synthaug.photos.exif import FileFacts
from synthaug.photos.foreground import find_foreground
from synthaug.photos.regions import blurred
from synthaug.photos.shadows import cast_shadow, displayed
from synthaug.pixels import framed

__all__ = ["Look", "Scene", "look_at", "remarks", "scene_of", "troubles"]

DARK, BRIGHT = 0.12, 0.97
"""Mean lightness, 0 to 1, below or above which a photo shows next to nothing; white paper has about 0.9."""

CLIPPED = 0.05
"""Share of a photo that may be pure black or pure white before light is lost in it."""

UNSHARP = 0.35
"""Share of the median sharpness of all photos below which one is probably blurred; sharp ones of one series stay above 0.65."""

BLURRED = 0.5
"""Blur above which a photo is unsharp whatever the others are; sharp phone photos have 0.2 to 0.3, a blur of two pixels gives 0.55."""

ALIKE = 0.94
"""Correlation of two small pictures above which they are nearly the same: mirrored or lighter copies have 0.99, photos of a series 0.75."""

SHADOWED = 0.2
"""Share of the light that a cast shadow must take to be worth a remark."""

UNEVEN = 0.5
"""Share of its light that a background may lose from its brightest to its darkest part."""

MOST = 0.8
"""Share of the photos that must have something in common for it to be a habit of the whole set."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a thing lies on, as far as it can be told."""

    background: str = ""
    """Name of its colour; "" when it is not plain."""

    share: float = 1.0
    """Share of the photo that is background."""

    unevenness: float = 0.0
    """Share of its light that the background loses from its brightest to its darkest part."""

    shadow: float = 0.0
    """Share of its light that the background loses in the shadow of the thing."""

    side: str = ""
    """Where the shadow lies, such as "lower right"."""

    doubt: str = ""
    """Why the thing cannot be told from the background; then the other fields are guesses or empty."""


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

    blur: float = 0.0
    """How little another blur changes, 0 (sharp) to 1."""

    black: float = 0.0
    """Share of it that is pure black."""

    white: float = 0.0
    """Share of it that is pure white."""

    file: FileFacts = field(default_factory=FileFacts)
    """What its file says of itself."""

    scene: Scene = field(default_factory=Scene)
    """What the thing lies on."""

    tiny: Tensor | None = field(default=None, repr=False, compare=False)
    """Its middle, very small and standardised, to compare it with others."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {key: value for key, value in asdict(self).items() if key != "tiny"}


def look_at(
    name: str, picture: Tensor, size: tuple[int, int], *, sha256: str, defect: float | None = None, file: FileFacts | None = None
) -> Look:
    """Measure a photo, uint8 (3, H, W); its scene is left to :func:`scene_of`, which takes longer.

    Example:
        >>> import torch
        >>> look_at("night.jpg", torch.zeros(3, 20, 30, dtype=torch.uint8), (8, 8), sha256="00").light
        0.0
    """
    small = framed(picture, size)
    light = small.float().mean(0) / 255
    middle, beside = light[1:-1, 1:-1], light[1:-1, :-2] + light[1:-1, 2:] + light[:-2, 1:-1] + light[2:, 1:-1]
    height, width = picture.shape[1:]
    return Look(
        name=name, shape=(height, width), light=float(light.mean()), sharpness=float((4 * middle - beside).std()), sha256=sha256,
        defect=defect, blur=max(_blur(light), _blur(light.T)), black=float((small.amax(0) <= 3).float().mean()),
        white=float((small.amin(0) >= 252).float().mean()), file=file or FileFacts(), tiny=_tiny(picture),
    )  # fmt: skip


def scene_of(picture: Tensor) -> Scene:
    """Measure the background and the shadow on it, uint8 (3, H, W)."""
    found = find_foreground(picture)
    if found.doubt:
        return Scene(doubt=found.doubt)
    levels = found.ground.mean(0).flatten()[::7].sort().values
    dark, bright = (float(levels[int(share * len(levels))]) for share in (0.05, 0.95))
    colour = displayed(found.ground.flatten(1).median(1).values[:, None, None]).flatten().tolist()
    shadow = cast_shadow(picture, found)
    return Scene(
        background=colour_name((colour[0], colour[1], colour[2])), share=1 - found.share, unevenness=1 - dark / max(bright, 1e-6),
        shadow=shadow.strength, side=shadow.side,
    )  # fmt: skip


def troubles(looks: Sequence[Look], size: tuple[int, int]) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """What is wrong: how to say it of one photo, how of several, and of which (name, and what to write of it).

    Args:
        looks: All photos, at least one.
        size: Height and width that they are framed to.
    """
    usual = median(look.sharpness for look in looks)
    height, width = size
    for one, many, wrong in _single(usual, height, width):
        yield one, many, [(look.name, look.name) for look in looks if wrong(look)]
    same, near = _twins(looks)
    yield "the same as another one", "the same as another one", same
    yield "nearly the same as another one, perhaps turned or mirrored", "nearly the same as another one, perhaps turned or mirrored", near


def remarks(looks: Sequence[Look], size: tuple[int, int]) -> Iterator[str]:
    """Say what is wrong, one sentence per kind of trouble, with the names, and what is the same in nearly all.

    Args:
        looks: All photos, at least one.
        size: Height and width that they are framed to.

    Example:
        >>> look = Look(name="a.jpg", shape=(300, 400), light=0.5, sharpness=0.1, sha256="00")
        >>> print(*remarks([look], (512, 512)))
        1 photo is smaller than 512 x 512 and was magnified: a.jpg
    """
    for one, many, found in troubles(looks, size):
        if found:
            names = [text for _, text in found]
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            yield f"{len(names)} photo{'s are ' + many if len(names) > 1 else ' is ' + one}: {shown}"
    yield from _habits(looks)


def _single(usual: float, height: int, width: int) -> list[tuple[str, str, Callable[[Look], bool]]]:
    """What can be said of a photo by itself: of one, of several, and whether it is so."""
    size = f"smaller than {height} x {width} and"
    rules: list[tuple[str, str, Callable[[Look], bool]]] = [
        (f"{size} was magnified", f"{size} were magnified", lambda x: x.shape[0] < height or x.shape[1] < width),
        ("almost black", "", lambda x: x.light < DARK),
        ("almost white", "", lambda x: x.light > BRIGHT),
        (f"pure black over more than {CLIPPED:.0%} of the picture", "", lambda x: x.black > CLIPPED and x.light >= DARK),
        (f"burnt out to pure white over more than {CLIPPED:.0%} of the picture", "", lambda x: x.white > CLIPPED and x.light <= BRIGHT),
        ("much less sharp than the others", "", lambda x: x.sharpness < UNSHARP * usual),
        (f"blurred at this size, blur above {BLURRED} of 1", "", lambda x: x.blur > BLURRED and x.sharpness >= UNSHARP * usual),
        ("without any defect in its mask at this size", "without any defect in their masks at this size", lambda x: x.defect == 0),
        ("turned upright by its EXIF, which some other tools ignore", "turned upright by their EXIF, which some other tools ignore",
         lambda x: x.file.orientation != 1),
        ("in EXIF that cannot be read, so it may not be upright", "in EXIF that cannot be read, so they may not be upright",
         lambda x: x.file.broken_exif),
        ("marked with the place where it was taken, which is left behind",
         "marked with the place where they were taken, which is left behind",
         lambda x: x.file.gps),
        ("in colours other than sRGB and was converted", "in colours other than sRGB and were converted", _converted),
        ("with a colour profile that cannot be read, so its colours may be off",
         "with a colour profile that cannot be read, so their colours may be off", lambda x: x.file.profile == "broken"),
    ]  # fmt: skip
    return [(one, many or one, rule) for one, many, rule in rules]


def _converted(look: Look) -> bool:
    profile = look.file.profile.lower()
    return look.file.colours in ("grey", "CMYK", "black and white") or (profile not in ("", "broken") and "srgb" not in profile)


def _habits(looks: Sequence[Look]) -> Iterator[str]:
    """What most photos have in common and every drawn image would have, too."""
    if doubtful := [look.name for look in looks if look.scene.doubt]:
        shown = ", ".join(doubtful[:5]) + (f" and {len(doubtful) - 5} more" if len(doubtful) > 5 else "")
        yield f"in {len(doubtful)} of {len(looks)} photos no thing stands out from a plain background, which is no fault by itself: {shown}"
    plain = [look.scene for look in looks if not look.scene.doubt and look.scene.background]
    if shadowed := [scene for scene in plain if scene.shadow > SHADOWED]:
        sides = [scene.side for scene in shadowed]
        side = max(sorted(set(sides)), key=sides.count)
        yield (
            f"in {len(shadowed)} of {len(looks)} photos the thing throws a shadow that takes "
            f"{median(s.shadow for s in shadowed):.0%} of the light, most often to the {side}, "
            "and drawn images will have it, too; synthaug prepare --shadows 1 takes it away"
        )
    colours = [scene.background for scene in plain]
    colour = max(sorted(set(colours)), key=colours.count, default="")
    if len(looks) > 1 and colours.count(colour) >= MOST * len(looks):
        yield (
            f"in {colours.count(colour)} of {len(looks)} photos the background is {colour}, {median(s.share for s in plain):.0%} of the "
            "picture, and drawn images will have it, too; synthaug prepare --background blue,beige,own varies it"
        )
    if uneven := sum(scene.unevenness > UNEVEN for scene in plain):
        yield f"in {uneven} of {len(looks)} photos the background is lit unevenly; synthaug prepare --flatten 1 evens it out"


def _twins(looks: Sequence[Look]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Photos with the same pixels as an earlier one, and those that are nearly the same as an earlier one."""
    same, near = [], []
    for at, look in enumerate(looks):
        for other in looks[:at]:
            if look.sha256 == other.sha256:
                same.append((look.name, f"{look.name} = {other.name}"))
                break
            if look.tiny is not None and other.tiny is not None and _likeness(look.tiny, other.tiny) > ALIKE:
                near.append((look.name, f"{look.name} = {other.name}"))
                break
    return same, near


def _likeness(one: Tensor, other: Tensor) -> float:
    """Correlation of two small pictures, the second turned and mirrored as fits best, at most 1."""
    turned = torch.stack([torch.rot90(side, quarter) for side in (other, other.flip(1)) for quarter in range(4)])
    return float((turned * one).sum((1, 2)).max())


def _tiny(picture: Tensor, side: int = 24) -> Tensor:
    """The middle square, small, without slow changes of light, of mean 0 and length 1 (or 0, when it is plain)."""
    height, width = picture.shape[1:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    light = picture[:, top : top + edge, left : left + edge].float().mean(0)
    small = F.interpolate(light[None, None], (side, side), mode="area")[0]
    detail = (small - blurred(small, 4))[0]
    detail = detail - detail.mean()
    length = max(float(detail.square().sum().sqrt()), side)
    return detail / length


def _blur(light: Tensor) -> float:
    """Share of the steps from row to row that a blur of nine rows leaves, 0 to 1."""
    soft = F.avg_pool2d(F.pad(light[None, None], (0, 0, 4, 4), mode="replicate"), (9, 1), 1)[0, 0]
    steps, left = light.diff(dim=0).abs(), soft.diff(dim=0).abs()
    return float(1 - (steps - left).clamp_min(0).sum() / steps.sum()) if steps.sum() > 0 else 0.0
