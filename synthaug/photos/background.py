"""Another ground below the thing in a photo: a colour, or a picture.

The thing's own colour at its soft rim is worked out first, so that no seam of the old ground goes along. A shadow of the thing can
be laid on the new ground, as dark as it was on the old one.

Rim colours: Forte & Pitie 2021, Approximate Fast Foreground Colour Estimation, https://doi.org/10.1109/ICIP42928.2021.9506164.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from synthaug.errors import PhotoFolderError, SettingError, UnusableFileError
from synthaug.photos.foreground import Foreground, linear
from synthaug.photos.regions import blurred
from synthaug.photos.shadows import displayed, ground_seen, shading
from synthaug.pixels import SUFFIXES, framed, read_image
from synthaug.seeds import seed_for

__all__ = ["COLOURS", "Ground", "chosen", "colour_name", "read_grounds", "replaced", "surface"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (244, 244, 242), "light grey": (200, 200, 198), "grey": (140, 140, 138), "dark grey": (80, 80, 80), "black": (28, 28, 28),
    "red": (178, 46, 42), "orange": (222, 128, 48), "yellow": (226, 200, 70), "green": (70, 134, 74), "teal": (50, 128, 132),
    "blue": (52, 96, 170), "light blue": (150, 190, 222), "navy": (32, 44, 92), "purple": (112, 68, 138), "pink": (226, 160, 178),
    "brown": (116, 78, 50), "beige": (216, 198, 166),
}  # fmt: skip
"""Colours by name, as painted card or cloth has them: none as bright or as pure as a screen can show."""

SLOPE = 0.12
"""Light on a plain ground falls by up to this share towards a random side, so that no two are quite alike."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Something to lay below a thing."""

    words: str
    """What a caption calls it."""

    colour: tuple[int, int, int] | None = None
    """Red, green and blue, 0 to 255."""

    picture: Path | None = None
    """A picture to cut a piece from. Neither colour nor picture: the photo keeps its own ground."""


def read_grounds(text: str) -> tuple[tuple[Ground, ...], ...]:
    """Understand a list of grounds: for each part of it, the grounds that it offers, one for a colour, many for a folder.

    Args:
        text: Parted by commas: names of colours, hex colours such as ``#3a6ea5``, folders of pictures, or ``own`` for the
            photo's own ground.

    Raises:
        SettingError: If a part is none of these; the message lists the colours.
        PhotoFolderError: If a folder holds no picture, or one that cannot be read.

    Example:
        >>> [ground.words for (ground,) in read_grounds("own, white, 3a6ea5")]
        ['its own background', 'white', 'blue']
    """
    return tuple(tuple(_read_part(part.strip())) for part in text.split(",") if part.strip())


def _read_part(part: str) -> list[Ground]:
    name = part.lower().replace("gray", "grey").replace("_", " ")
    if name == "own":
        return [Ground(words="its own background")]
    if name in COLOURS:
        return [Ground(words=name, colour=COLOURS[name])]
    if hexed := re.fullmatch(r"#?([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", name):
        red, green, blue = (int(value, 16) for value in hexed.groups())
        return [Ground(words=colour_name((red, green, blue)), colour=(red, green, blue))]
    if Path(part).is_dir():
        return _pictures(Path(part))
    raise SettingError(
        f"a background is a folder of pictures, a colour such as #3a6ea5, own, or one of: {', '.join(COLOURS)}; got {part!r}"
    )


def _pictures(folder: Path) -> list[Ground]:
    """All pictures of a folder; each is read once, so that a damaged one is found before anything is written."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    if not files:
        raise PhotoFolderError(f"the background folder {folder} holds no picture ({', '.join(SUFFIXES)}); put some there, or name a colour")
    for path in files:
        try:
            read_image(path)
        except UnusableFileError as error:
            raise PhotoFolderError(f"every picture of a background folder must be readable: {error}") from error
    return [Ground(words=_words(path.stem), picture=path) for path in files]


def _words(stem: str) -> str:
    """``wooden_table_03`` is a wooden table; a name that is a code says nothing."""
    words = re.sub(r"\d+$", "", stem).replace("_", " ").replace("-", " ").split()
    return " ".join(words) if words and all(word.isalpha() and not word.isupper() for word in words) else "patterned"


def chosen(grounds: tuple[tuple[Ground, ...], ...], name: str, variant: int) -> Ground:
    """The ground of one variant of a photo: each part of the list is used once before one comes again, in an order of the photo's own.

    A folder counts as one part, whose pictures are taken in turn.

    Args:
        grounds: As :func:`read_grounds` gives them, at least one.
        name: The photo's.
        variant: Its number, from 0.
    """
    rng = random.Random(seed_for(0, "background", name))  # noqa: S311  # an order, not a secret
    order = rng.sample(range(len(grounds)), len(grounds))
    part = grounds[order[variant % len(grounds)]]
    return part[(rng.randrange(len(part)) + variant // len(grounds)) % len(part)]


def surface(ground: Ground, size: tuple[int, int], *, seed: int) -> Tensor:
    """A ground as large as a photo.

    Args:
        ground: A colour, under light that falls off a little to one side, or a picture, of which a piece is cut, perhaps mirrored.
        size: Height and width.
        seed: Decides side, piece and mirroring.

    Returns:
        uint8 (3, *size).

    Example:
        >>> surface(Ground(words="blue", colour=(52, 96, 170)), (8, 12), seed=0).shape
        torch.Size([3, 8, 12])
    """
    rng = random.Random(seed)  # noqa: S311  # a place, not a secret
    if ground.picture is not None:
        return _piece(read_image(ground.picture), size, rng)
    assert ground.colour is not None
    angle, fall = rng.uniform(0, 2 * math.pi), rng.uniform(0, SLOPE)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, length) for length in size), indexing="ij")
    light = 1 - fall / 2 * (1 + (math.cos(angle) * x + math.sin(angle) * y) / math.sqrt(2))
    return displayed(linear(torch.tensor(ground.colour, dtype=torch.uint8)[:, None, None]) * light)


def _piece(picture: Tensor, size: tuple[int, int], rng: random.Random) -> Tensor:
    height, width = picture.shape[1:]
    scale = min(height / size[0], width / size[1]) * rng.uniform(0.6, 1)
    rows, columns = max(1, min(height, round(size[0] * scale))), max(1, min(width, round(size[1] * scale)))
    top, left = rng.randint(0, height - rows), rng.randint(0, width - columns)
    piece = framed(picture[:, top : top + rows, left : left + columns].contiguous(), size)
    return piece.flip(2) if rng.random() < 0.5 else piece


def replaced(picture: Tensor, found: Foreground, ground: Tensor, *, shadows: float = 0.0) -> Tensor:
    """The thing of a photo on another ground.

    Args:
        picture: uint8 (3, H, W).
        found: Its foreground, without doubt.
        ground: uint8 (3, H, W).
        shadows: How much of the thing's shadow is left behind: 0 lays all of it on the new ground, 1 none.

    Returns:
        uint8 (3, H, W).
    """
    seen, lack = ground_seen(picture, found)
    matte = found.matte
    reach = max(2, round(0.012 * max(matte.shape)))
    own = _own_colour(linear(picture), matte, seen, reach)
    shaded = linear(ground) * shading(lack) ** (1 - shadows)
    return displayed(matte * own + (1 - matte) * shaded)


def _own_colour(light: Tensor, matte: Tensor, ground: Tensor, reach: int) -> Tensor:
    """The thing's colour where it mixes with the ground, (3, H, W): that of its inside nearby, put right by what the pixel shows."""
    sure = (matte > 0.95).float()[None]
    inside = light
    for far in (4 * reach, reach):  # the nearer inside where there is one
        near = blurred(sure, far)
        inside = torch.where(near > 0.01, blurred(light * sure, far) / near.clamp_min(1e-6), inside)
    own = inside + matte * (light - matte * inside - (1 - matte) * ground)
    return torch.where(sure > 0, light, own.clamp(0, 1))


def colour_name(colour: tuple[float, float, float]) -> str:
    """The nearest colour that has a name, of red, green and blue from 0 to 255.

    Example:
        >>> colour_name((250, 250, 255)), colour_name((30, 60, 160))
        ('white', 'blue')
    """
    wanted = _lab(colour)
    return min(COLOURS, key=lambda name: math.dist(_lab(COLOURS[name]), wanted))


def _lab(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    """CIE L*a*b* of sRGB under its own white: ITU-R BT.709 primaries, CIE 15:2018."""
    red, green, blue = ((value / 255) ** 2.2 for value in colour)
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    fx, fy, fz = (math.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)
