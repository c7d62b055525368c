"""Everything that is neither fish nor metal: capsule, tablet, leaf, biscuit, almond, button, bottle, board."""

from __future__ import annotations

import numpy as np

from synthaug.pocket.frames import Pose, box, disc, dome, edge, segment
from synthaug.pocket.optics import Layer, Plane, Rng, fractal, linear, mix, smooth

__all__ = [
    "PAINTS",
    "draw_almond",
    "draw_biscuit",
    "draw_board",
    "draw_bottle",
    "draw_button",
    "draw_capsule",
    "draw_leaf",
    "draw_tablet",
]

PAINTS: dict[str, tuple[float, float, float]] = {
    "white": (0.90, 0.90, 0.88),
    "black": (0.10, 0.10, 0.11),
    "grey": (0.52, 0.52, 0.53),
    "red": (0.76, 0.14, 0.12),
    "orange": (0.90, 0.47, 0.12),
    "yellow": (0.92, 0.80, 0.22),
    "green": (0.20, 0.52, 0.22),
    "blue": (0.16, 0.32, 0.70),
    "brown": (0.44, 0.28, 0.16),
    "pink": (0.90, 0.58, 0.64),
}


def painted(size: int, colour: str, rng: Rng, unevenness: float = 0.03) -> Plane:
    """A paint with slight variation, (size, size, 3)."""
    shade = np.clip(linear(PAINTS[colour]) * rng.uniform(0.85, 1.15, 3), 0.005, 0.95)
    return np.asarray(shade * (1 + unevenness * fractal(rng, size, 6, 3))[..., None], np.float32)


def draw_capsule(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A two-part capsule; the cap at +x has the named colour."""
    x, y = pose.local(size)
    radius = float(rng.uniform(0.30, 0.38))
    cap = x > -0.05
    body = box(x, y, 0.97, radius - 0.02, radius - 0.025)
    shell = np.where(cap, box(x, y, 0.97, radius, radius - 0.005), body).astype(np.float32)
    other = str(rng.choice(["white", "white", "yellow", "grey", "red"]))
    albedo = np.where(cap[..., None], painted(size, colour, rng), painted(size, other, rng))
    seam = smooth(0.05, 0.01, np.abs(x + 0.05)) * 0.4
    height = np.sqrt(np.clip(radius**2 - y**2, 0, None)) * np.sqrt(dome(shell, radius))
    return Layer(
        cover=edge(shell, pose.pixel(size)),
        albedo=np.asarray(albedo * (1 - seam)[..., None], np.float32),
        height=np.asarray(height * pose.scale, np.float32),
        gloss=0.7,
        sharpness=60.0,
    )


def draw_tablet(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A round pressed tablet with a score line."""
    x, y = pose.local(size)
    plate = disc(x, y, 0.95)
    bulge = np.sqrt(np.clip(1.05 - x * x - y * y, 0, None)) * 0.25
    groove = smooth(0.06, 0.0, np.abs(y)) * 0.05
    return Layer(
        cover=edge(plate, pose.pixel(size)),
        albedo=painted(size, colour, rng, 0.02),
        height=np.asarray((bulge + dome(plate, 0.12) * 0.12 - groove) * pose.scale, np.float32),
        gloss=0.12,
        sharpness=12.0,
    )


def draw_leaf(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A leaf with a midrib, side veins and a stalk; the tip at +x."""
    x, y = pose.local(size)
    y = y - float(rng.normal(0, 0.08)) * (x * x - 0.3)
    t = np.clip((x + 0.7) / 1.7, 0, 1)
    bulge = np.clip(np.sin(np.pi * t ** float(rng.uniform(0.55, 0.85))), 0, 1)
    wide = float(rng.uniform(0.3, 0.55)) * bulge**1.1
    toothed = float(rng.choice([0.0, 0.03])) * np.abs((x * 14) % 1 - 0.5)
    blade = np.minimum(wide - toothed - np.abs(y), np.minimum(x + 0.7, 1 - x)).astype(np.float32)
    stalk = (0.03 - segment(x, y, (-1.0, 0.0), (-0.6, 0.0))).astype(np.float32)
    vein = smooth(0.08, 0.0, np.abs(((x - np.abs(y) * 0.9) * 5.5) % 1 - 0.5)) * 0.5
    rib = np.maximum(smooth(0.025, 0.008, np.abs(y)), vein * smooth(0.0, 0.05, blade))
    flesh = painted(size, colour, rng, 0.10)
    flesh = mix(flesh, np.sqrt(flesh) * np.float32(0.8), 0.55 * rib)
    return Layer(
        cover=edge(np.maximum(blade, stalk), pose.pixel(size)),
        albedo=flesh,
        height=np.asarray((0.04 * dome(blade, 0.3) + 0.015 * rib + 0.02 * fractal(rng, size, 4, 2)) * pose.scale, np.float32),
        gloss=0.12,
        sharpness=10.0,
    )


def draw_biscuit(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A baked biscuit, round or square, with holes or chocolate chips."""
    x, y = pose.local(size)
    square = rng.random() < 0.4
    scallop = 0.03 * np.sin(np.arctan2(y, x) * int(rng.integers(18, 30))) if rng.random() < 0.6 else 0.0
    plate = (box(x, y, 0.88, 0.88, 0.12) if square else disc(x, y, 0.93)) + np.asarray(scallop, np.float32)
    baked = smooth(0.35, 0.0, plate) * 0.5 + 0.18 * fractal(rng, size, 9, 4)
    crust = mix(linear((0.90, 0.70, 0.38)) * np.ones_like(x)[..., None], linear((0.55, 0.31, 0.12)), np.clip(0.35 + baked, 0, 1))
    if colour == "brown":
        crust = mix(crust, linear((0.24, 0.13, 0.07)), 0.8)
    if rng.random() < 0.5:
        lattice = np.hypot((x * 2.6) % 1 - 0.5, (y * 2.6) % 1 - 0.5).astype(np.float32)
        pits = smooth(0.16, 0.09, lattice) * smooth(0.1, 0.2, plate)
    else:
        pits = -smooth(1.2, 1.5, fractal(rng, size, 7 / max(0.3, pose.scale), 1)) * smooth(0.05, 0.15, plate)
    crust = mix(crust, linear((0.16, 0.08, 0.04)), 0.85 * np.abs(pits))
    rough = 0.012 * fractal(rng, size, 30, 3)
    return Layer(
        cover=edge(plate, pose.pixel(size)),
        albedo=crust,
        height=np.asarray((dome(plate, 0.2) * 0.16 - 0.05 * pits + rough) * pose.scale, np.float32),
        gloss=0.03,
    )


def draw_almond(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """An almond: a drop shape with lengthwise wrinkles."""
    x, y = pose.local(size)
    wide = float(rng.uniform(0.48, 0.62)) * np.sqrt(np.clip(1 - x * x, 0, 1)) * (1 - 0.28 * x)
    drop = np.minimum(wide - np.abs(y), 1 - np.abs(x)).astype(np.float32)
    wrinkle = np.sin(y * 42 / (0.4 + np.sqrt(np.clip(1 - x * x, 0.05, 1))) + fractal(rng, size, 5, 2) * 1.5)
    skin = painted(size, colour, rng, 0.08) * (1 - 0.16 * wrinkle[..., None])
    bulge = np.sqrt(np.clip(1 - (y / np.maximum(wide, 0.02)) ** 2, 0, 1)) * wide
    return Layer(
        cover=edge(drop, pose.pixel(size)),
        albedo=np.asarray(skin, np.float32),
        height=np.asarray((0.7 * bulge + 0.008 * wrinkle) * pose.scale, np.float32),
        gloss=0.1,
    )


def draw_button(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A round button with two or four holes."""
    x, y = pose.local(size)
    radius = np.hypot(x, y).astype(np.float32)
    plate = disc(x, y, 0.95)
    four = rng.random() < 0.7
    holes = np.hypot(np.abs(x) - 0.2, np.abs(y) - 0.2) - 0.11 if four else np.hypot(np.abs(x) - 0.22, y) - 0.12
    rim = smooth(0.62, 0.72, radius) * 0.08
    return Layer(
        cover=edge(np.minimum(plate, holes.astype(np.float32)), pose.pixel(size)),
        albedo=painted(size, colour, rng),
        height=np.asarray((dome(plate, 0.14) * 0.12 + rim) * pose.scale, np.float32),
        gloss=0.4,
        sharpness=40.0,
    )


def draw_bottle(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A bottle lying on its side: neck and cap at +x, sometimes a label."""
    x, y = pose.local(size)
    radius, neck = float(rng.uniform(0.28, 0.38)), float(rng.uniform(0.10, 0.14))
    shoulder = float(rng.uniform(0.25, 0.45))
    wide = neck + (radius - neck) * smooth(shoulder + 0.28, shoulder, x)
    shape = np.minimum(wide - np.abs(y), np.minimum(x + 1, 0.96 - x)).astype(np.float32)
    shape = np.minimum(shape, box(x, y, 1.0, 0.6, 0.12))
    across = y / np.maximum(wide, 0.02)
    glass = painted(size, colour, rng, 0.02) * (0.45 + 0.75 * across**2)[..., None]
    label = box(x + 0.35, y, float(rng.uniform(0.2, 0.4)), 1.0) if rng.random() < 0.6 else np.full_like(x, -1)
    print_ = 0.3 * smooth(0.3, 0.7, fractal(rng, size, 16, 1, stretch=0.5))
    paper = painted(size, str(rng.choice(["white", "yellow", "white"])), rng) * (1 - print_)[..., None]
    skin = mix(np.asarray(glass, np.float32), np.asarray(paper, np.float32), edge(np.asarray(label, np.float32), pose.pixel(size)))
    skin = mix(skin, painted(size, str(rng.choice(list(PAINTS))), rng), smooth(0.77, 0.79, x))
    height = np.sqrt(np.clip(1 - across**2, 0, 1)) * wide
    return Layer(
        cover=edge(shape, pose.pixel(size)),
        albedo=np.asarray(skin, np.float32),
        height=np.asarray(height * pose.scale, np.float32),
        gloss=0.75,
        sharpness=45.0,
    )


def draw_board(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A printed circuit board: tracks, pads, chips and small parts."""
    x, y = pose.local(size)
    tall = float(rng.uniform(0.55, 0.9))
    plate = box(x, y, 0.97, tall, 0.04)
    skin = painted(size, colour, rng, 0.03)
    raised = np.zeros_like(x)
    for _ in range(int(rng.integers(5, 10))):
        (ax, ay), (bx, by) = rng.uniform(-0.9, 0.9, 2), rng.uniform(-0.9, 0.9, 2)
        corner = (float(bx), float(ay * tall))
        track = np.minimum(segment(x, y, (float(ax), float(ay * tall)), corner), segment(x, y, corner, (float(bx), float(by * tall))))
        skin = mix(skin, np.sqrt(skin) * np.float32(0.75), 0.7 * smooth(0.035, 0.015, track))
        pad = np.hypot(x - bx, y - by * tall).astype(np.float32)
        skin = mix(skin, linear((0.86, 0.78, 0.48)), smooth(0.075, 0.05, pad) * smooth(0.02, 0.03, pad))
    for _ in range(int(rng.integers(2, 6))):
        at = rng.uniform(-0.75, 0.75, 2)
        half = rng.uniform(0.06, 0.26, 2)
        part = box(x - float(at[0]), y - float(at[1] * tall), float(half[0]), float(half[1]), 0.01)
        legs = smooth(-0.07, -0.05, part) * smooth(0.0, 0.3, np.sin((x + y) * 75).astype(np.float32))
        skin = mix(skin, linear((0.75, 0.75, 0.76)), legs)
        paint = linear((0.09, 0.09, 0.10)) if rng.random() < 0.7 else linear((0.78, 0.68, 0.5))
        cover = edge(part, pose.pixel(size))
        skin, raised = mix(skin, paint, cover), np.maximum(raised, cover * 0.06)
    holes = np.hypot(np.abs(x) - 0.87, np.abs(y) - tall + 0.1).astype(np.float32)
    return Layer(
        cover=edge(np.minimum(plate, holes - 0.05), pose.pixel(size)),
        albedo=skin,
        height=np.asarray((dome(plate, 0.03) * 0.05 + raised) * pose.scale, np.float32),
        gloss=0.25,
        sharpness=30.0,
    )
