"""Light, shadow and camera of the scene renderer.

Arrays are float32 (H, W) or (H, W, 3). Colours are linear light, 0 to 1, until :func:`photograph`
turns them into uint8 sRGB. Lengths are in units of half the picture's width; x points right, y down,
z towards the camera.

Shading: Lambert's cosine and Blinn 1977, https://doi.org/10.1145/965141.563893, the highlight of a
half vector. Noise: value noise summed over octaves, Perlin 1985, https://doi.org/10.1145/325165.325247.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.floating[Any]]
Rng = np.random.Generator

__all__ = [
    "Layer",
    "Light",
    "Plane",
    "Rng",
    "blur",
    "cast_shadow",
    "fractal",
    "grid",
    "linear",
    "mix",
    "photograph",
    "shade",
    "smooth",
]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Something that lies in the scene: the ground or an object on it."""

    cover: Plane
    """Opacity, (H, W), 0 to 1."""

    albedo: Plane
    """Colour under white light, (H, W, 3), linear, 0 to 1."""

    height: Plane
    """Relief above the layer's own base, (H, W), in half-widths."""

    gloss: Plane | float = 0.1
    """Strength of the highlight, 0 (chalk) to 1 (polished)."""

    sharpness: float = 20.0
    """Exponent of the highlight: 5 is a sheen, 100 a mirror-like spot."""


@dataclass(frozen=True, kw_only=True)
class Light:
    """One lamp, the sky around it, and what the camera makes of them."""

    azimuth: float
    """Where the lamp stands, in radians, 0 = right, pi/2 = below."""

    elevation: float
    """Angle above the ground in radians."""

    ambient: float
    """Share of the light that comes from everywhere, 0 to 1."""

    softness: float
    """Blur of the shadow's edge, in half-widths; 0.005 is a hard shadow, 0.08 a soft one."""

    gradient: float
    """Fall of brightness across the picture, 0 = even, 0.5 = half as bright on the far side."""

    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Colour of the lamp, white balance error included, about 0.8 to 1.2 per channel."""

    vignette: float = 0.08
    """Loss of light at the middle of each side of the picture; twice that in the corners."""

    exposure: float = 1.0
    """Overall brightness; 1 leaves a white ground at about 0.8."""

    @property
    def direction(self) -> tuple[float, float, float]:
        """Unit vector from the ground to the lamp."""
        flat = float(np.cos(self.elevation))
        return flat * float(np.cos(self.azimuth)), flat * float(np.sin(self.azimuth)), float(np.sin(self.elevation))


def grid(size: int) -> tuple[Plane, Plane]:
    """Pixel centres as x (right) and y (down), each (size, size), from -1 to 1."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = np.meshgrid(axis, axis)
    return x, y


def smooth(low: float, high: float, value: Plane) -> Plane:
    """Hermite step from 0 at ``low`` to 1 at ``high``; works downwards too when low > high."""
    t: Plane = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Plane, b: Plane, share: Plane | float) -> Plane:
    """Go from colours ``a`` to colours ``b`` as ``share`` goes from 0 to 1, (H, W) or a number."""
    weight = share[..., None] if isinstance(share, np.ndarray) else share
    return (a + (b - a) * weight).astype(np.float32)


def linear(colour: tuple[float, float, float]) -> Plane:
    """Turn an sRGB colour, 0 to 1, into linear light, (3,)."""
    return np.asarray(colour, np.float32) ** np.float32(2.2)


def resized(plane: Plane, height: int, width: int, how: Image.Resampling) -> Plane:
    """Resample a plane; PIL smooths when it shrinks."""
    return np.asarray(Image.fromarray(plane).resize((width, height), how), np.float32)


def blur(plane: Plane, radius: float) -> Plane:
    """Soften a plane by about ``radius`` half-widths; cost falls as the radius grows."""
    size = plane.shape[0]
    small = max(2, round(size / max(1.0, radius * size / 2)))
    if small >= size:
        return plane
    shrunk = resized(plane, small, small, Image.Resampling.BILINEAR)
    return resized(shrunk, size, size, Image.Resampling.BICUBIC)


def fractal(rng: Rng, size: int, cells: float, octaves: int = 3, stretch: float = 1.0, fall: float = 0.5) -> Plane:
    """Value noise with mean about 0 and standard deviation about 1.

    Args:
        rng: Source of the noise.
        size: Side of the plane in pixels.
        cells: Bumps across the picture in the first octave.
        octaves: Each one doubles the bumps and multiplies their height by ``fall``.
        stretch: Above 1 the bumps are that much longer along x.
        fall: Amplitude of an octave against the one before.
    """
    total = np.zeros((size, size), np.float32)
    power = 0.0
    for octave in range(octaves):
        rows = min(size, max(2, round(cells * 2**octave)) + 1)
        cols = min(size, max(2, round(cells * 2**octave / stretch)) + 1)
        lattice = rng.standard_normal((rows, cols), dtype=np.float32)
        total += resized(lattice, size, size, Image.Resampling.BICUBIC) * np.float32(fall**octave)
        power += fall ** (2 * octave)
    return total * np.float32(1.5 / np.sqrt(power))


FIELD = 0.4
"""Half the picture's width over the camera's distance: why a flat glossy sheet has a bright side."""


def shade(layer: Layer, light: Light, lit: Plane) -> Plane:
    """Colour of a layer under the lamp, (H, W, 3); ``lit`` is 1 in the light, 0 in the shadow."""
    step = 2 / layer.height.shape[0]
    slope_y, slope_x = np.gradient(layer.height, step)
    scale = 1 / np.sqrt(slope_x**2 + slope_y**2 + 1)
    lx, ly, lz = light.direction
    facing = np.clip((lz - slope_x * lx - slope_y * ly) * scale, 0, None)
    x, y = grid(layer.height.shape[0])
    hx, hy = lx - FIELD * x, ly - FIELD * y  # half way between the lamp and the camera, which sees the sides askew
    level = 1 / np.sqrt(hx**2 + hy**2 + (lz + 1) ** 2)
    shine = np.clip((lz + 1 - slope_x * hx - slope_y * hy) * level * scale, 0, 1) ** layer.sharpness
    body = light.ambient + (1 - light.ambient) * facing * lit / max(lz, 0.35)
    colour = layer.albedo * body[..., None] + (layer.gloss * shine * lit)[..., None]
    return np.asarray(colour * np.asarray(light.tint, np.float32), np.float32)


def moved(plane: Plane, dx: float, dy: float) -> Plane:
    """Shift a plane by a length in half-widths; what comes in from outside is 0."""
    size = plane.shape[0]
    cols, rows = round(dx * size / 2), round(dy * size / 2)
    out = np.zeros_like(plane)
    if abs(cols) >= size or abs(rows) >= size:
        return out
    source = plane[max(0, -rows) : size - max(0, rows), max(0, -cols) : size - max(0, cols)]
    out[max(0, rows) : max(0, rows) + source.shape[0], max(0, cols) : max(0, cols) + source.shape[1]] = source
    return out


def cast_shadow(cover: Plane, thickness: float, light: Light) -> Plane:
    """How much lamp light still reaches the ground beside an object, (H, W), 0 to 1.

    Two slices of the object throw their outline away from the lamp, the higher one farther and more
    blurred; a dark rim where the object meets the ground stands for the sky it hides.
    """
    lx, ly, lz = light.direction
    reach = thickness / max(lz, 0.3)
    low = blur(moved(cover, -lx * reach * 0.4, -ly * reach * 0.4), max(0.01, 0.5 * light.softness))
    high = blur(moved(cover, -lx * reach, -ly * reach), max(0.012, light.softness))
    contact = blur(cover, 0.05)
    dark = np.maximum(np.maximum(low, high) * 0.9, contact * 0.45)
    return np.asarray(1 - np.clip(dark, 0, 1), np.float32)


def photograph(colour: Plane, light: Light, rng: Rng, size: int, *, defocus: float, noise: float, jpeg: int) -> NDArray[np.uint8]:
    """Take the picture: uneven light, vignetting, lens blur, sensor noise, highlight roll-off, sRGB, JPEG.

    Args:
        colour: Linear light, (S, S, 3), rendered at a multiple of ``size``.
        light: Gives the gradient and the exposure.
        rng: Source of the sensor noise.
        size: Side of the picture in pixels.
        defocus: Blur in output pixels; 0 is sharp.
        noise: Standard deviation of the sensor noise at mid grey, 0 to about 0.04.
        jpeg: Quality 1 to 100; 0 leaves the pixels as they are.

    Returns:
        uint8 sRGB (size, size, 3).
    """
    x, y = grid(colour.shape[0])
    along = x * np.cos(light.azimuth) + y * np.sin(light.azimuth)
    fall = 1 + light.gradient * along * 0.5 - light.vignette * (x * x + y * y)
    exposed = np.clip(colour * (fall * light.exposure)[..., None], 0, None)
    factor = colour.shape[0] // size
    small = exposed.reshape(size, factor, size, factor, 3).mean((1, 3))
    if defocus > 0:
        small = np.stack([blur(np.ascontiguousarray(small[..., c]), defocus * 2 / size) for c in range(3)], -1)
    small = np.clip(small, 0, None)
    small = small + rng.standard_normal(small.shape, dtype=np.float32) * noise * np.sqrt(small + 0.02)
    bright = np.clip(small, 0, None)
    rolled = np.where(bright < 0.7, bright, 0.7 + 0.3 * np.tanh((bright - 0.7) / 0.3 * 0.8) / np.tanh(1.6))
    toned = np.clip(rolled, 0, 1) ** (1 / 2.2)
    picture = np.asarray(toned * 255 + 0.5, np.uint8)
    if not jpeg:
        return picture
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=jpeg)
    return np.asarray(Image.open(buffer), np.uint8)
