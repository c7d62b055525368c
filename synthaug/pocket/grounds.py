"""What objects lie on: paper, metal, wood, fabric, leather, tile, concrete, plastic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synthaug.pocket.optics import Layer, Plane, Rng, fractal, grid, linear, mix, smooth

__all__ = ["GROUNDS", "draw_ground"]

Painter = Callable[[Rng, int, Plane], tuple[Plane, Plane]]
"""Noise source, size and base colour in; albedo (H, W, 3) and relief (H, W) out."""


def turned(rng: Rng, size: int) -> tuple[Plane, Plane]:
    """The picture's coordinates, turned by a random angle."""
    x, y = grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    return (
        np.asarray(x * np.cos(angle) + y * np.sin(angle), np.float32),
        np.asarray(y * np.cos(angle) - x * np.sin(angle), np.float32),
    )


def tinted(base: Plane, factor: Plane) -> Plane:
    """Multiply a colour by a plane."""
    return np.asarray(base * np.clip(factor, 0.05, 3)[..., None], np.float32)


def paper(rng: Rng, size: int, base: Plane) -> tuple[Plane, Plane]:
    """Smooth board or recycled paper: clouds of pulp, fibres dark, pale and dyed, grit."""
    fibrous = float(rng.choice([0.15, 0.5, 1.0], p=[0.45, 0.25, 0.3]))
    cloud = fractal(rng, size, float(rng.uniform(5, 16)), 3)
    grain = fractal(rng, size, 45, 2, fall=0.8)
    albedo = tinted(base, 1 + fibrous * (0.045 * cloud + 0.05 * grain))
    if fibrous > 0.4:
        for dye in ((0.12, 0.11, 0.11), (0.92, 0.90, 0.86), (0.42, 0.24, 0.13), (0.16, 0.24, 0.40)):
            strand = smooth(0.09, 0.0, np.abs(fractal(rng, size, float(rng.uniform(14, 30)), 2)))
            strand = strand * smooth(0.7, 1.4, fractal(rng, size, 12, 1))
            albedo = mix(albedo, linear(dye), fibrous * float(rng.uniform(0.1, 0.4)) * strand)
        grit = smooth(2.0, 2.5, fractal(rng, size, 60, 1)) * float(rng.uniform(0, 0.5))
        albedo = mix(albedo, albedo * np.float32(0.3), fibrous * grit)
    return albedo, 0.0012 * grain * (0.3 + fibrous)


def metal(rng: Rng, size: int, base: Plane) -> tuple[Plane, Plane]:
    """Brushed sheet."""
    _, v = turned(rng, size)
    lines = fractal(rng, 4 * size, 90, 3, fall=0.8)[0]
    at = np.clip(((v + 1.5) / 3 * (4 * size - 1)).astype(int), 0, 4 * size - 1)
    brushed = lines[at] + 0.3 * fractal(rng, size, 40, 2)
    return tinted(base, 1 + 0.045 * brushed + 0.05 * fractal(rng, size, 2, 2)), 0.0015 * brushed


def wood(rng: Rng, size: int, base: Plane) -> tuple[Plane, Plane]:
    """Long grain with growth rings."""
    u, v = turned(rng, size)
    wave = fractal(rng, size, 2, 2) * 0.10 + 0.12 * np.sin(u * rng.uniform(0.5, 1.5) + rng.uniform(0, 6))
    rings = np.sin((v + wave) * rng.uniform(14, 36))
    pores = fractal(rng, size, 40, 2)
    return tinted(base, 1 + 0.16 * rings + 0.07 * pores), 0.001 * rings + 0.001 * pores


def fabric(rng: Rng, size: int, base: Plane) -> tuple[Plane, Plane]:
    """Plain weave."""
    u, v = turned(rng, size)
    count = rng.uniform(45, 80)
    weave = np.sin(u * count) * np.cos(v * count)
    folds = fractal(rng, size, 2, 2)
    return tinted(base, 1 + 0.16 * weave + 0.05 * fractal(rng, size, 20, 2)), 0.004 * weave + 0.02 * folds


def leather(rng: Rng, size: int, base: Plane) -> tuple[Plane, Plane]:
    """Pebbled hide: creases run where two noises cross zero."""
    cells = rng.uniform(26, 44)
    crease = np.minimum(np.abs(fractal(rng, size, cells, 1)), np.abs(fractal(rng, size, cells, 1)))
    pebble = smooth(0.0, 0.35, crease)
    return tinted(base, 0.8 + 0.22 * pebble + 0.06 * fractal(rng, size, 3, 2)), 0.004 * pebble


def tile(rng: Rng, size: int, base: Plane) -> tuple[Plane, Plane]:
    """Glazed tiles with grout lines."""
    u, v = turned(rng, size)
    pitch = float(rng.uniform(0.8, 1.8))
    off = rng.uniform(0, 1, 2)
    line = np.minimum(np.abs((u / pitch + off[0]) % 1 - 0.5), np.abs((v / pitch + off[1]) % 1 - 0.5)) * pitch
    glazed = smooth(0.02, 0.05, line)
    grout = 0.35 + 0.3 * rng.random()
    glaze = 1 + 0.03 * fractal(rng, size, 3, 3)
    return tinted(base, grout + (glaze - grout) * glazed), 0.02 * glazed


def concrete(rng: Rng, size: int, base: Plane) -> tuple[Plane, Plane]:
    """Cast concrete with sand and pores."""
    sand = fractal(rng, size, 60, 2, fall=0.9)
    pores = smooth(1.7, 2.1, fractal(rng, size, 26, 1))
    return tinted(base, 1 + 0.07 * sand + 0.10 * fractal(rng, size, 3, 4) - 0.45 * pores), 0.004 * sand - 0.01 * pores


def plastic(rng: Rng, size: int, base: Plane) -> tuple[Plane, Plane]:
    """Smooth moulded sheet."""
    return tinted(base, 1 + 0.02 * fractal(rng, size, 3, 2)), 0.003 * fractal(rng, size, 3, 2)


GROUNDS: dict[str, tuple[Painter, float, dict[str, tuple[float, float, float]]]] = {
    "paper": (paper, 0.02, {"white": (0.88, 0.88, 0.87), "grey": (0.63, 0.62, 0.59), "brown": (0.66, 0.56, 0.38)}),
    "metal": (metal, 0.35, {"grey": (0.62, 0.63, 0.65), "dark": (0.32, 0.33, 0.35)}),
    "wood": (wood, 0.08, {"light": (0.78, 0.62, 0.42), "brown": (0.50, 0.33, 0.19), "dark": (0.30, 0.19, 0.12)}),
    "fabric": (
        fabric,
        0.0,
        {"white": (0.84, 0.83, 0.80), "blue": (0.24, 0.33, 0.56), "red": (0.58, 0.18, 0.17), "grey": (0.50, 0.50, 0.50)},
    ),
    "leather": (leather, 0.15, {"brown": (0.42, 0.26, 0.16), "black": (0.14, 0.13, 0.13), "red": (0.48, 0.14, 0.12)}),
    "tile": (tile, 0.35, {"white": (0.88, 0.88, 0.87), "green": (0.45, 0.62, 0.54), "blue": (0.40, 0.54, 0.70)}),
    "concrete": (concrete, 0.01, {"grey": (0.58, 0.57, 0.55), "dark": (0.36, 0.36, 0.36)}),
    "plastic": (
        plastic,
        0.25,
        {"blue": (0.18, 0.36, 0.66), "black": (0.13, 0.13, 0.14), "green": (0.25, 0.52, 0.34), "white": (0.86, 0.87, 0.88)},
    ),
}
"""Name of a ground -> how it is painted, its gloss, its colours in sRGB."""


def draw_ground(name: str, colour: str, rng: Rng, size: int) -> Layer:
    """Draw a ground that fills the picture.

    Example:
        >>> import numpy as np
        >>> draw_ground("wood", "light", np.random.default_rng(0), 32).albedo.shape
        (32, 32, 3)
    """
    painter, gloss, colours = GROUNDS[name]
    base = linear(colours[colour]) * rng.uniform(0.88, 1.1) * rng.uniform(0.97, 1.03, 3).astype(np.float32)
    albedo, relief = painter(rng, size, np.asarray(base, np.float32))
    return Layer(
        cover=np.ones((size, size), np.float32),
        albedo=np.clip(albedo, 0.004, 0.98),
        height=np.asarray(relief, np.float32),
        gloss=gloss,
        sharpness=12.0,
    )
