"""Scratches, holes, cracks, stains, dents, missing parts, specks and folds, each with its mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from synthaug.pocket.frames import segment
from synthaug.pocket.optics import Layer, Plane, Rng, fractal, grid, linear, mix, smooth

__all__ = ["FLAWS", "Spot", "add_flaw", "pick_spot"]

Spot = tuple[float, float, float, float]
"""Centre x and y, reach, and half a pixel, all in half-widths of the picture."""


def pick_spot(region: Plane, rng: Rng, reach: float) -> Spot:
    """Choose a place well inside a region, (H, W), 0 to 1."""
    size = region.shape[0]
    rows, cols = np.nonzero(region > 0.9)
    if len(rows) == 0:
        return 0.0, 0.0, reach, 1 / size
    pick = int(rng.integers(len(rows)))
    return (cols[pick] + 0.5) * 2 / size - 1, (rows[pick] + 0.5) * 2 / size - 1, reach, 1 / size


def polyline(x: Plane, y: Plane, spot: Spot, rng: Rng, bends: int, jag: float) -> Plane:
    """Distance to a line through the spot that turns a little at each bend."""
    cx, cy, reach, _ = spot
    angle = rng.uniform(0, 2 * np.pi)
    step = 2 * reach / bends
    at = (cx - np.cos(angle) * reach, cy - np.sin(angle) * reach)
    nearest = np.full_like(x, 9.0)
    for _ in range(bends):
        heading = angle + rng.normal(0, jag)
        end = (float(at[0] + np.cos(heading) * step), float(at[1] + np.sin(heading) * step))
        nearest = np.minimum(nearest, segment(x, y, (float(at[0]), float(at[1])), end))
        at = end
    return nearest


def blob(x: Plane, y: Plane, spot: Spot, rng: Rng, ragged: float) -> Plane:
    """Signed distance, about, to a ragged oval around the spot; positive inside."""
    cx, cy, reach, _ = spot
    angle, squash = rng.uniform(0, np.pi), rng.uniform(0.45, 1.0)
    dx, dy = x - cx, y - cy
    u = dx * np.cos(angle) + dy * np.sin(angle)
    v = (dy * np.cos(angle) - dx * np.sin(angle)) / squash
    rough = fractal(rng, x.shape[0], 1.4 / reach, 2)
    return np.asarray(reach * (1 + ragged * np.clip(rough, -1.5, 1.5)) - np.hypot(u, v), np.float32)


def scratch(layer: Layer, spot: Spot, rng: Rng) -> tuple[Layer, Plane]:
    """A thin, nearly straight furrow, lighter or darker than the skin."""
    x, y = grid(spot_size(layer))
    width = max(3.0 * spot[3], float(rng.uniform(0.02, 0.045)))
    line = smooth(width, 0.5 * width, polyline(x, y, spot, rng, 5, 0.12))
    bright = rng.random() < 0.85 if mean_tone(layer, line) < 0.3 else rng.random() < 0.25
    tone = np.clip(layer.albedo * np.float32(1.4) + np.float32(0.35), 0, 0.95) if bright else layer.albedo * np.float32(0.15)
    return replace(layer, albedo=mix(layer.albedo, tone, 0.85 * line), height=layer.height - 0.6 * width * line), line


def crack(layer: Layer, spot: Spot, rng: Rng) -> tuple[Layer, Plane]:
    """A dark jagged line with a side branch."""
    x, y = grid(spot_size(layer))
    width = max(3.2 * spot[3], float(rng.uniform(0.022, 0.045)))
    near = polyline(x, y, spot, rng, 9, 0.7)
    branch = polyline(x, y, (spot[0], spot[1], spot[2] * 0.5, spot[3]), rng, 5, 0.7)
    line = smooth(width, 0.5 * width, np.minimum(near, branch))
    return replace(layer, albedo=mix(layer.albedo, layer.albedo * np.float32(0.08), line), height=layer.height - width * line), line


def stain(layer: Layer, spot: Spot, rng: Rng) -> tuple[Layer, Plane]:
    """A discoloured patch, soft or sharp at its edge, down to a dark speck."""
    x, y = grid(spot_size(layer))
    distance = blob(x, y, spot, rng, 0.35)
    patch = smooth(0.0, float(rng.uniform(0.1, 0.7)) * spot[2], distance)
    dyes = [(0.35, 0.22, 0.10), (0.12, 0.11, 0.11), (0.15, 0.20, 0.35), (0.50, 0.16, 0.12), (0.30, 0.30, 0.16)]
    light_ground = mean_tone(layer, patch) > 0.08
    dye = linear(dyes[int(rng.integers(len(dyes)))] if light_ground else (0.62, 0.58, 0.50))
    depth = float(rng.uniform(0.75, 0.97))
    toned = layer.albedo * (1 - np.float32(depth)) + dye * np.float32(depth)
    return replace(layer, albedo=mix(layer.albedo, toned, patch)), patch


def hole(layer: Layer, spot: Spot, rng: Rng) -> tuple[Layer, Plane]:
    """A pit so deep that it is nearly black, with a lit rim."""
    x, y = grid(spot_size(layer))
    distance = blob(x, y, (spot[0], spot[1], 0.75 * spot[2], spot[3]), rng, 0.18)
    pit = smooth(0.0, 0.015, distance)
    rim = smooth(0.03, 0.0, np.abs(distance))
    albedo = mix(layer.albedo * (1 + 0.25 * rim)[..., None], layer.albedo * np.float32(0.03), pit)
    return replace(layer, albedo=albedo, height=layer.height - 0.05 * smooth(-0.02, 0.03, distance)), pit


def dent(layer: Layer, spot: Spot, rng: Rng) -> tuple[Layer, Plane]:
    """A dip that only the light shows."""
    x, y = grid(spot_size(layer))
    inside = smooth(-0.3 * spot[2], 0.9 * spot[2], blob(x, y, spot, rng, 0.15))
    depth = float(rng.uniform(0.6, 0.95)) * spot[2]
    dipped = replace(layer, albedo=layer.albedo * (1 - 0.4 * inside)[..., None], height=layer.height - depth * inside)
    return dipped, smooth(0.1, 0.5, inside)


def missing_part(layer: Layer, spot: Spot, rng: Rng) -> tuple[Layer, Plane]:
    """A bite out of the object; the ground shows where it was."""
    x, y = grid(spot_size(layer))
    bite = smooth(0.0, 3 * spot[3], blob(x, y, (spot[0], spot[1], 1.05 * spot[2], spot[3]), rng, 0.3))
    return replace(layer, cover=layer.cover * (1 - bite), height=layer.height * (1 - bite)), bite * layer.cover


def speck(layer: Layer, spot: Spot, rng: Rng) -> tuple[Layer, Plane]:
    """Foreign matter: one to four small ragged grains, dark or dyed, around the spot."""
    x, y = grid(spot_size(layer))
    albedo, marked = layer.albedo, np.zeros_like(x)
    dyes = [(0.10, 0.09, 0.09), (0.10, 0.09, 0.09), (0.34, 0.20, 0.10), (0.14, 0.20, 0.36)]
    for grain in range(int(rng.integers(1, 5))):
        away = rng.normal(0, 0 if grain == 0 else 0.6 * spot[2], 2)
        reach = max(5.0 * spot[3], float(rng.uniform(0.14, 0.34)) * spot[2])
        cover = smooth(0.0, 2.5 * spot[3], blob(x, y, (spot[0] + away[0], spot[1] + away[1], reach, spot[3]), rng, 0.45))
        albedo = mix(albedo, linear(dyes[int(rng.integers(len(dyes)))]), float(rng.uniform(0.75, 0.97)) * cover)
        marked = np.maximum(marked, cover)
    return replace(layer, albedo=albedo, height=layer.height + 0.01 * marked), marked


def fold(layer: Layer, spot: Spot, rng: Rng) -> tuple[Layer, Plane]:
    """A crease through a sheet: one side faces the lamp, the other does not, the ridge is worn pale."""
    x, y = grid(spot_size(layer))
    width = float(rng.uniform(0.03, 0.08))
    away = polyline(x, y, (spot[0], spot[1], max(0.6, spot[2]), spot[3]), rng, 4, 0.08)
    ridge = smooth(width, 0.0, away)
    worn = smooth(0.35 * width, 0.0, away)
    pale = np.clip(layer.albedo * np.float32(1.3) + np.float32(0.06), 0, 0.95)
    bumped = layer.height + float(rng.choice([-0.7, 0.7])) * width * ridge
    return replace(layer, albedo=mix(layer.albedo, pale, 0.6 * worn), height=bumped), smooth(0.15, 0.4, ridge)


def mean_tone(layer: Layer, where: Plane) -> float:
    """How bright a layer is there, linear, 0 to 1."""
    return float((layer.albedo.mean(-1) * where).sum() / max(float(where.sum()), 1e-6))


def spot_size(layer: Layer) -> int:
    """Side of a layer in pixels."""
    return int(layer.cover.shape[0])


FLAWS: dict[str, Callable[[Layer, Spot, Rng], tuple[Layer, Plane]]] = {
    "scratch": scratch,
    "crack": crack,
    "stain": stain,
    "hole": hole,
    "dent": dent,
    "missing part": missing_part,
    "speck": speck,
    "fold": fold,
}
"""Name of a flaw -> how a layer gets it."""


def add_flaw(name: str, layer: Layer, spot: Spot, rng: Rng) -> tuple[Layer, Plane]:
    """Damage a layer and return it with the flaw's mask, (H, W), 0 to 1, within the layer's cover."""
    damaged, mask = FLAWS[name](layer, spot, rng)
    return replace(damaged, albedo=np.clip(damaged.albedo, 0.002, 0.98)), np.asarray(mask * layer.cover, np.float32)
