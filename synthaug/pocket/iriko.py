"""The demo's photos: iriko, dried sardines, one at a time on white paper under a phone.

Graders sort out *haragire* (腹切れ), fish whose belly burst while they were boiled. Pocket never learns
from these pictures: they stand for what a user brings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from synthaug.pocket.frames import Pose, edge
from synthaug.pocket.grounds import draw_ground
from synthaug.pocket.optics import Layer, Light, Plane, Rng, cast_shadow, fractal, grid, linear, mix, photograph, shade, smooth
from synthaug.pocket.scenes import Picture
from synthaug.seeds import seed_for

__all__ = ["BURST", "SOUND", "iriko_photo"]

SOUND, BURST = "sound", "belly-burst"
TAIL = -0.74
"""Where along the spine the body ends and the tail fin begins."""


@dataclass(frozen=True, kw_only=True)
class Iriko:
    """One dried sardine."""

    depth: float
    """Half the body's height over half its length."""

    bend: float
    """Curvature of the dried spine."""

    sway: float
    """Second bend, which makes an S."""

    dryness: float
    """How yellow the silver has become, 0 to 1."""

    gape: float
    """How far the mouth stands open, 0 to 1."""

    wear: float
    """How much of the tail fin has broken off, 0 to 1."""


def iriko_photo(seed: int, kind: str, size: int = 128) -> Picture:
    """Photograph one fish.

    Args:
        seed: Every seed is another fish, another pose, another light.
        kind: ``"sound"`` or ``"belly-burst"``.
        size: Side in pixels.

    Returns:
        The picture; ``flaws`` marks the opening of the belly.
    """
    rng = np.random.default_rng(seed_for(seed, "iriko"))
    fish = Iriko(
        depth=float(rng.uniform(0.15, 0.19)), bend=float(rng.normal(0, 0.14)), sway=float(rng.normal(0, 0.05)),
        dryness=float(rng.uniform(0.15, 0.9)), gape=float(rng.uniform(0, 1)), wear=float(rng.uniform(0, 1)),
    )  # fmt: skip
    pose = Pose(
        centre=(float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.16, 0.16))),
        scale=float(rng.uniform(0.74, 0.92)),
        angle=float(rng.normal(0, 0.35) + (np.pi if rng.random() < 0.5 else 0)),
    )
    fine = 2 * size
    ground = draw_ground("paper", "white", rng, fine)
    layer, opening = draw_iriko(pose, fish, rng, fine, burst=kind == BURST)
    light = phone_light(rng)
    lit = cast_shadow(layer.cover, 0.16 * pose.scale, light) * other_shadow(rng, fine)
    colour = mix(shade(ground, light, lit), shade(layer, light, np.ones_like(lit)), layer.cover)
    pixels = photograph(
        colour, light, rng, size,
        defocus=float(rng.uniform(0.0, 0.7)), noise=float(rng.uniform(0.004, 0.016)), jpeg=int(rng.integers(82, 95)),
    )  # fmt: skip
    halved = [plane.reshape(size, 2, size, 2).mean((1, 3)) > 0.5 for plane in (layer.cover, opening)]
    return Picture(pixels=pixels, objects=halved[0].astype(np.uint8), flaws=halved[1].astype(np.uint8))


def phone_light(rng: Rng) -> Light:
    """A kitchen lamp or a window: one side brighter, a little warm or cold."""
    warmth = float(rng.normal(0.02, 0.04))
    return Light(
        azimuth=float(rng.uniform(0, 2 * np.pi)), elevation=float(rng.uniform(0.6, 1.2)), ambient=float(rng.uniform(0.35, 0.6)),
        softness=float(np.exp(rng.uniform(np.log(0.02), np.log(0.1)))), gradient=float(rng.uniform(0.1, 0.6)),
        tint=(1 + warmth, 1.0, 1 - warmth), exposure=float(np.exp(rng.normal(-0.12, 0.12))),
    )  # fmt: skip


def other_shadow(rng: Rng, size: int) -> Plane:
    """The soft shadow of the phone or the hand over a corner of the paper, in every third photo."""
    if rng.random() > 0.35:
        return np.ones((size, size), np.float32)
    x, y = grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    reach = np.asarray(x * np.cos(angle) + y * np.sin(angle) + 0.15 * fractal(rng, size, 1.5, 1), np.float32)
    return np.asarray(1 - rng.uniform(0.25, 0.55) * smooth(0.55, 0.95, reach), np.float32)


def half_height(s: Plane, fish: Iriko) -> Plane:
    """Half the body's height along the spine: a slim spindle, blunt at the snout."""
    t = np.clip((s - TAIL) / (1 - TAIL), 0, 1)
    u = np.where(t > 0.62, (t - 0.62) / 0.38, (0.62 - t) / 0.66)
    profile = np.clip(1 - np.abs(u) ** np.where(t > 0.62, 2.6, 2.0), 0, 1) ** 0.7
    return np.asarray(fish.depth * np.maximum(profile, 0.2 * (s < 0)), np.float32)


def draw_iriko(pose: Pose, fish: Iriko, rng: Rng, size: int, *, burst: bool) -> tuple[Layer, Plane]:
    """The fish as a layer, and where its belly is open, (size, size)."""
    x, y = pose.local(size)
    wrinkle = fractal(rng, size, 9, 2, fall=0.6)
    s, n = x, y - fish.bend * (x * x - 0.35) - fish.sway * np.sin(3.2 * x)
    body = half_height(s, fish) * (1 + 0.05 * wrinkle)
    inside = np.minimum(np.minimum(body - np.abs(n), s - TAIL + 0.04), 1 - s)
    jaw = 0.10 * fish.gape * smooth(0.82, 1.0, s)
    inside = np.minimum(inside, np.abs(n - 0.25 * fish.depth * smooth(0.7, 1.0, s)) - jaw * 0.4)
    fins = tail_fin(s, n, fish, wrinkle)
    pixel = pose.pixel(size)
    flesh, web = edge(np.asarray(inside, np.float32), pixel), edge(fins, pixel)
    v = np.asarray(np.clip(n / np.maximum(body, 0.015), -1.2, 1.2), np.float32)
    skin = skin_of(s, v, fish, wrinkle, rng)
    webbing = mix(linear((0.42, 0.36, 0.27)), linear((0.66, 0.58, 0.44)), 0.5 + 0.3 * np.sin(60 * n))
    ridges = 0.5 + 0.5 * np.sin(v * 9 + 1.5 * wrinkle)
    layer = Layer(
        cover=np.maximum(flesh, 0.85 * web),
        albedo=np.asarray(mix(np.asarray(webbing, np.float32), skin, flesh), np.float32),
        height=np.asarray((np.sqrt(np.clip(1 - v * v, 0, 1)) * body * 0.9 + 0.010 * ridges) * flesh * pose.scale, np.float32),
        gloss=np.asarray(0.38 * flesh * smooth(-0.5, 0.3, v), np.float32),
        sharpness=11.0,
    )
    nothing = np.zeros_like(flesh)
    return opened_belly(layer, s, n, body, rng, pixel) if burst else (layer, nothing)


def tail_fin(s: Plane, n: Plane, fish: Iriko, wrinkle: Plane) -> Plane:
    """Signed distance to the forked, brittle tail fin."""
    behind = TAIL + 0.05 - s
    spread = 0.035 + 0.52 * np.clip(behind, 0, 1)
    length = 0.30 - 0.10 * fish.wear - 0.18 * np.clip(1 - np.abs(n) / (0.9 * spread + 1e-3), 0, 1) + 0.015 * wrinkle
    return np.asarray(np.minimum(np.minimum(spread - np.abs(n), behind), length - behind), np.float32)


def skin_of(s: Plane, v: Plane, fish: Iriko, wrinkle: Plane, rng: Rng) -> Plane:
    """Colours: blue-black back, silver side gone yellow, pale belly, large pale eye, dark gill slit."""
    dry = np.float32(fish.dryness)
    grain = 0.12 * wrinkle + 0.05 * fractal(rng, s.shape[0], 40, 1)
    back = linear((0.20, 0.22, 0.26))
    side = mix(linear((0.70, 0.72, 0.73)), linear((0.72, 0.60, 0.40)), float(0.7 * dry))
    belly = mix(linear((0.86, 0.86, 0.83)), linear((0.84, 0.74, 0.54)), float(0.8 * dry))
    skin = mix(back, side, smooth(-0.55, -0.05, v + grain))
    skin = mix(skin, belly, smooth(0.25, 0.75, v + grain))
    line = smooth(0.10, 0.03, np.abs(v + 0.12))
    skin = mix(skin, back, 0.45 * line * smooth(0.75, 0.5, s))
    rust = smooth(0.9, 1.6, fractal(rng, s.shape[0], 7, 2))
    skin = mix(skin, linear((0.52, 0.32, 0.14)), 0.55 * rust)
    gill = smooth(0.03, 0.005, np.abs(s - 0.55 - 0.07 * (1 - v * v))) * smooth(1.0, 0.8, np.abs(v))
    skin = mix(skin, linear((0.16, 0.11, 0.08)), 0.75 * gill)
    skin = mix(skin, linear((0.55, 0.43, 0.27)), 0.45 * smooth(0.62, 0.8, s))
    eye = np.hypot(s - 0.80, (v + 0.15) * 0.14) / 0.062
    skin = mix(skin, linear((0.88, 0.86, 0.78)), smooth(1.15, 0.9, eye))
    skin = mix(skin, linear((0.10, 0.09, 0.09)), smooth(0.62, 0.45, eye))
    return np.asarray(skin * (1 + 0.9 * grain)[..., None], np.float32)


def opened_belly(layer: Layer, s: Plane, n: Plane, body: Plane, rng: Rng, pixel: float) -> tuple[Layer, Plane]:
    """Tear the belly: a ragged gap from the edge inwards, dark flesh in it, entrails and a skin flap beside it."""
    size = s.shape[0]
    middle, half = float(rng.uniform(0.02, 0.28)), float(rng.uniform(0.17, 0.30))
    depth = float(rng.uniform(0.65, 1.15))
    ragged = fractal(rng, size, 16, 2, fall=0.7)
    along = np.clip(1 - ((s - middle) / half) ** 2, 0, 1)
    rim = body * (1 - depth * along * (1 + 0.22 * ragged))
    gap = np.asarray(np.minimum(n - rim, 1.15 * body * (1 + 0.12 * ragged) - n), np.float32)
    hole = edge(np.where(along > 0, gap, -1).astype(np.float32), pixel)
    flesh = mix(linear((0.20, 0.10, 0.05)), linear((0.50, 0.25, 0.09)), smooth(-0.6, 1.0, fractal(rng, size, 18, 2)))
    guts = smooth(0.4, 0.8, fractal(rng, size, 11, 2) + 0.3)
    flesh = mix(flesh, linear((0.74, 0.44, 0.14)), 0.7 * guts)
    edge_of_skin = smooth(0.035, 0.008, np.abs(gap)) * smooth(0.0, 0.15, np.asarray(along, np.float32))
    colour = mix(mix(layer.albedo, flesh, hole), linear((0.90, 0.82, 0.66)), 0.55 * edge_of_skin)
    opened = replace(
        layer,
        cover=np.maximum(layer.cover, hole),
        albedo=np.asarray(colour, np.float32),
        height=np.asarray(layer.height * (1 - 0.6 * hole) + 0.02 * edge_of_skin * layer.cover, np.float32),
        gloss=np.asarray(layer.gloss * (1 - 0.8 * hole), np.float32),
    )
    return opened, hole
