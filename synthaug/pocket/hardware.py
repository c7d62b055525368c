"""Metal parts: screw, nut, washer, gear, coin."""

from __future__ import annotations

import numpy as np

from synthaug.pocket.frames import Pose, box, disc, dome, edge, polygon
from synthaug.pocket.optics import Layer, Plane, Rng, fractal, linear, mix, smooth

__all__ = ["METALS", "draw_coin", "draw_gear", "draw_nut", "draw_screw", "draw_washer"]

METALS: dict[str, tuple[float, float, float]] = {
    "steel": (0.66, 0.67, 0.69),
    "brass": (0.80, 0.64, 0.30),
    "copper": (0.76, 0.45, 0.32),
    "black": (0.17, 0.17, 0.19),
    "silver": (0.80, 0.80, 0.80),
    "gold": (0.88, 0.70, 0.28),
}


def metal(size: int, colour: str, rng: Rng, brushed: float = 0.05) -> Plane:
    """Colour of a metal with a little wear, (size, size, 3)."""
    wear = 1 + brushed * fractal(rng, size, 14, 3) + 0.03 * fractal(rng, size, 3, 1)
    return np.asarray(linear(METALS[colour]) * wear[..., None], np.float32)


def relief(distance: Plane, width: float, pose: Pose) -> Plane:
    """Height of a plate with rounded edges, in half-widths of the picture."""
    return np.asarray(dome(distance, width) * width * pose.scale, np.float32)


def draw_screw(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A wood screw lying on its side: head at +x, thread, point at -x."""
    x, y = pose.local(size)
    pixel = pose.pixel(size)
    radius, pitch = float(rng.uniform(0.09, 0.15)), float(rng.uniform(24, 38))
    start = float(rng.uniform(0.1, 0.75))
    taper = np.clip((x + 1) / 0.35, 0, 1)
    wave = np.abs((x * pitch / 6.28 - y * 0.9 + rng.uniform(0, 1)) % 1 - 0.5) * 2
    threaded = smooth(start + 0.02, start - 0.02, x)
    shaft = np.minimum(radius * taper * (1 - 0.25 * threaded * wave) - np.abs(y), np.minimum(x + 1, 0.9 - x))
    flare = float(rng.uniform(1.9, 2.6)) * radius
    if rng.random() < 0.5:
        head = np.minimum(np.minimum(flare * np.clip((x - 0.72) / 0.2, 0, 1) - np.abs(y), 0.97 - x), x - 0.72)
    else:
        head = np.minimum(box(x - 0.9, y, 0.1, flare, 0.05), x - 0.78)
    body = np.maximum(shaft, head)
    cover = edge(body, pixel)
    width = np.where(head > 0, flare, radius)
    round_bar = np.sqrt(np.clip(1 - (y / width) ** 2, 0, 1)) * width
    ridges = (1 - wave) * threaded * 0.05 * (head <= 0)
    albedo = metal(size, colour, rng) * (1 - 0.45 * wave * threaded * (head <= 0))[..., None]
    return Layer(
        cover=cover,
        albedo=np.asarray(albedo, np.float32),
        height=np.asarray((round_bar + ridges) * cover * pose.scale, np.float32),
        gloss=0.5,
        sharpness=18.0,
    )


def draw_nut(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A hexagon nut seen from above."""
    x, y = pose.local(size)
    pixel = pose.pixel(size)
    hole = float(rng.uniform(0.4, 0.56))
    outline = polygon(x, y, 6, 0.86)
    bore = -disc(x, y, hole)
    cover = edge(np.minimum(outline, bore), pixel)
    bevel = disc(x, y, 0.9)
    albedo = metal(size, colour, rng)
    thread = smooth(0.10, 0.02, bore) * (0.5 + 0.5 * np.sin(bore * 140))
    albedo = mix(albedo, albedo * np.float32(0.3), thread)
    height = np.minimum(relief(np.minimum(outline, bore), 0.14, pose), relief(bevel, 0.25, pose) + 0.02)
    return Layer(cover=cover, albedo=albedo, height=height, gloss=0.45, sharpness=25.0)


def draw_washer(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A flat ring."""
    x, y = pose.local(size)
    ring = np.minimum(disc(x, y, 0.95), -disc(x, y, float(rng.uniform(0.36, 0.62))))
    turned = np.asarray(np.sin(np.hypot(x, y) * 90) * 0.05 + 1, np.float32)
    return Layer(
        cover=edge(ring, pose.pixel(size)),
        albedo=metal(size, colour, rng) * turned[..., None],
        height=relief(ring, 0.07, pose),
        gloss=0.45,
        sharpness=25.0,
    )


def draw_gear(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A spur gear with a bore, sometimes with lightening holes."""
    x, y = pose.local(size)
    teeth = int(rng.integers(9, 20))
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    tooth = np.clip(np.sin(angle * teeth) * 2.2, -1, 1) * 0.075
    rim = np.minimum(0.86 + tooth - radius, -disc(x, y, float(rng.uniform(0.14, 0.26))))
    if rng.random() < 0.6:
        count = int(rng.integers(3, 7))
        turn = (angle % (2 * np.pi / count)) - np.pi / count
        rim = np.minimum(rim, -disc(radius * np.cos(turn) - 0.5, radius * np.sin(turn), 0.13))
    hub = 0.05 * smooth(0.36, 0.32, radius.astype(np.float32)) * pose.scale
    return Layer(
        cover=edge(np.asarray(rim, np.float32), pose.pixel(size)),
        albedo=metal(size, colour, rng),
        height=np.asarray(relief(np.asarray(rim, np.float32), 0.06, pose) + hub, np.float32),
        gloss=0.4,
        sharpness=22.0,
    )


def draw_coin(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A coin: rim, a ring of dots, an embossed figure."""
    x, y = pose.local(size)
    radius = np.hypot(x, y).astype(np.float32)
    plate = disc(x, y, 0.96)
    rim = smooth(0.84, 0.88, radius) * 0.03
    dots = smooth(0.2, 0.8, np.sin(np.arctan2(y, x) * 24).astype(np.float32)) * smooth(0.06, 0.03, np.abs(radius - 0.73))
    figure = smooth(0.0, 0.5, fractal(rng, size, 5 / max(pose.scale, 0.2), 2)) * smooth(0.62, 0.5, radius)
    worn = mix(metal(size, colour, rng), metal(size, colour, rng) * np.float32(0.55), 0.5 * (1 - figure) * smooth(0.64, 0.6, radius))
    return Layer(
        cover=edge(plate, pose.pixel(size)),
        albedo=worn,
        height=np.asarray(relief(plate, 0.05, pose) + (rim + 0.025 * dots + 0.03 * figure) * pose.scale, np.float32),
        gloss=0.4,
        sharpness=20.0,
    )
