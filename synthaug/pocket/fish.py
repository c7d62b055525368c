"""Fish, seen from the side: one body plan, many kinds.

A fish is drawn along its bent spine: s runs from the tip of the tail (-1) to the snout (1), n across
it, the back at negative n. Everything (outline, fins, colours, relief) is a function of s and n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthaug.pocket.frames import Pose, edge
from synthaug.pocket.optics import Layer, Plane, Rng, fractal, linear, mix, smooth

__all__ = ["KINDS", "FishKind", "draw_fish", "random_kind"]


@dataclass(frozen=True, kw_only=True)
class FishKind:
    """What tells one kind of fish from another."""

    depth: float
    """Half the body's height over half its length, 0.12 (slender) to 0.45 (deep)."""

    back: tuple[float, float, float]
    """sRGB colour of the back."""

    flank: tuple[float, float, float]
    """sRGB colour of the side."""

    belly: tuple[float, float, float]
    """sRGB colour of the belly."""

    fork: float
    """Notch of the tail fin, 0 (fan) to 1 (deeply forked)."""

    fins: float = 1.0
    """Size of the back and belly fins, 0 to about 1.5."""

    pattern: str = "plain"
    """``plain``, ``spots``, ``bars`` or ``stripe``."""

    gloss: float = 0.35
    """Strength of the highlight, 0 (dry) to 1.3 (wet)."""

    bend: float = 0.0
    """Curvature of the spine, about -0.3 to 0.3."""

    head: float = 0.3
    """Length of the head over the fish's length, 0.2 to 0.4."""


KINDS: dict[str, dict[str, tuple[float, float, float]]] = {
    "silver": {"back": (0.34, 0.38, 0.44), "flank": (0.66, 0.69, 0.72), "belly": (0.88, 0.88, 0.86)},
    "blue": {"back": (0.10, 0.20, 0.42), "flank": (0.35, 0.50, 0.66), "belly": (0.86, 0.88, 0.88)},
    "green": {"back": (0.16, 0.28, 0.16), "flank": (0.42, 0.52, 0.34), "belly": (0.85, 0.84, 0.70)},
    "red": {"back": (0.58, 0.12, 0.10), "flank": (0.80, 0.30, 0.25), "belly": (0.92, 0.75, 0.70)},
    "golden": {"back": (0.62, 0.36, 0.08), "flank": (0.90, 0.60, 0.18), "belly": (0.96, 0.84, 0.58)},
    "brown": {"back": (0.26, 0.19, 0.12), "flank": (0.48, 0.37, 0.25), "belly": (0.80, 0.72, 0.58)},
    "grey": {"back": (0.17, 0.17, 0.18), "flank": (0.47, 0.45, 0.44), "belly": (0.78, 0.74, 0.70)},
    "black": {"back": (0.06, 0.06, 0.07), "flank": (0.16, 0.16, 0.18), "belly": (0.38, 0.38, 0.38)},
}


def random_kind(rng: Rng, colour: str, pattern: str, depth: float) -> FishKind:
    """Draw a kind of fish of the given colour, pattern and depth."""
    shades = {
        part: tuple(float(np.clip(c + d, 0.02, 0.98)) for c, d in zip(rgb, rng.normal(0, 0.025, 3), strict=True))
        for part, rgb in KINDS[colour].items()
    }
    return FishKind(
        depth=depth,
        fork=float(rng.choice([rng.uniform(0, 0.3), rng.uniform(0.5, 1.0)], p=[0.3, 0.7])),
        fins=float(rng.uniform(0.5, 1.4)),
        pattern=pattern,
        gloss=float(rng.uniform(0.1, 0.5) if rng.random() < 0.6 else rng.uniform(0.6, 1.3)),
        bend=float(rng.normal(0, 0.08)),
        head=float(rng.uniform(0.24, 0.36)),
        **shades,  # type: ignore[arg-type]  # the three colours
    )


TAIL = -0.62
"""Where along the spine the body ends and the tail fin begins."""


def half_height(s: Plane, kind: FishKind) -> Plane:
    """Half the body's height along the spine: blunt at the snout, thin at the root of the tail."""
    t = np.clip((s - TAIL) / (1 - TAIL), 0, 1)
    u = np.where(t > 0.55, (t - 0.55) / 0.45, (0.55 - t) / 0.62)
    profile = np.clip(1 - np.abs(u) ** np.where(t > 0.55, 2.2, 1.7), 0, 1) ** 0.75
    return np.asarray(kind.depth * np.maximum(profile, 0.22 * (s < 0)), np.float32)


def fin_distance(s: Plane, n: Plane, body: Plane, kind: FishKind) -> Plane:
    """Signed distance to the fins: a tail, one or two on the back, two on the belly."""
    behind = TAIL + 0.06 - s
    spread = 0.10 + np.clip(behind, 0, 1) * (0.55 + 0.4 * kind.depth)
    length = 0.44 - kind.fork * 0.26 * np.clip(1 - np.abs(n) / (0.8 * spread + 1e-3), 0, 1)
    tail = np.minimum(np.minimum(spread * 0.75 - np.abs(n), behind), length - behind)
    out = np.abs(n) - body
    size = kind.fins * (0.05 + 0.22 * kind.depth)
    back = size * smooth(-0.28, 0.12, s) * smooth(0.32, 0.12, s)
    vent = 0.7 * size * smooth(-0.5, -0.3, s) * smooth(-0.12, -0.22, s)
    pelvic = 0.8 * size * smooth(0.0, 0.12, s) * smooth(0.28, 0.18, s)
    reach = np.where(n < 0, back, np.maximum(vent, pelvic))
    beside = np.where(reach > 0.01, reach - out, -1.0)
    return np.asarray(np.maximum(tail, np.where(out > -0.03, beside, -1.0)), np.float32)


def markings(s: Plane, v: Plane, kind: FishKind, rng: Rng) -> Plane:
    """Dark pattern on the flank, (H, W), 0 to 1; v is n over the half height."""
    upper = smooth(0.4, -0.2, v)
    if kind.pattern == "spots":
        return np.asarray(smooth(1.1, 1.6, fractal(rng, s.shape[0], 22, 1)) * upper, np.float32)
    if kind.pattern == "bars":
        return np.asarray(smooth(0.2, 0.7, np.sin(s * rng.uniform(20, 32) + rng.uniform(0, 6))) * smooth(0.8, 0.0, v), np.float32)
    if kind.pattern == "stripe":
        return np.asarray(smooth(0.22, 0.1, np.abs(v + 0.05)), np.float32)
    return np.zeros_like(s)


def draw_fish(pose: Pose, kind: FishKind, rng: Rng, size: int) -> Layer:
    """Draw one fish as a layer of ``size`` pixels."""
    x, y = pose.local(size)
    s, n = x, y - kind.bend * (x * x - 0.35)
    body = half_height(s, kind)
    inside = np.minimum(np.minimum(body - np.abs(n), s - TAIL + 0.05), 1 - s)
    pixel = pose.pixel(size)
    flesh, fins = edge(inside, pixel), edge(fin_distance(s, n, body, kind), pixel)
    v = np.clip(n / np.maximum(body, 0.02), -1.2, 1.2)

    grain = fractal(rng, size, 10, 3, fall=0.6) * 0.10
    flank = mix(linear(kind.back), linear(kind.flank), smooth(-0.75, 0.05, v + grain))
    skin = mix(flank, linear(kind.belly), smooth(0.15, 0.75, v + grain))
    skin = mix(skin, linear(kind.back) * np.float32(0.45), 0.75 * markings(s, v, kind, rng))
    scales = 0.5 + 0.5 * np.sin(s * 95 + np.cos(n * 70) * 2.2) * np.sin(n * 70)
    neck = 1 - 2 * kind.head
    skin *= (1 - 0.14 * scales * smooth(neck + 0.03, neck - 0.03, s))[..., None]
    gill = smooth(0.035, 0.0, np.abs(s - neck - 0.10 * (1 - v * v)) - 0.004) * smooth(1.0, 0.7, np.abs(v))
    skin = mix(skin, linear(kind.back) * np.float32(0.5), 0.55 * gill)
    skin = mix(skin, linear(kind.back) * np.float32(0.8), 0.35 * smooth(neck + 0.1, 1.0, s))
    skin *= (1 + grain * 0.9)[..., None]

    eye_at = (1 - 0.42 * kind.head, -0.18 * kind.depth)
    eye = np.hypot(s - eye_at[0], n - eye_at[1]) / (0.16 * kind.depth + 0.012)
    skin = mix(skin, linear((0.82, 0.78, 0.62)), smooth(1.15, 0.9, eye))
    skin = mix(skin, linear((0.03, 0.03, 0.04)), smooth(0.7, 0.5, eye))
    mouth = smooth(0.014, 0.004, np.abs(n - 0.25 * kind.depth + (1 - s) * 0.35)) * smooth(0.82, 0.9, s)
    skin = mix(skin, linear((0.1, 0.07, 0.07)), 0.7 * mouth)

    rays = 0.75 + 0.25 * np.sin(np.arctan2(n, s - TAIL - 0.3) * 42)
    webbing = mix(linear(kind.back), linear(kind.flank), 0.3) * rays[..., None]
    wrinkles = 0.012 * fractal(rng, size, 9, 3) * min(1.0, kind.gloss)
    relief = (np.sqrt(np.clip(1 - v * v, 0, 1)) * body + wrinkles) * flesh
    return Layer(
        cover=np.maximum(flesh, fins * np.float32(0.9)),
        albedo=np.asarray(mix(np.asarray(webbing, np.float32), skin, flesh), np.float32),
        height=np.asarray((relief * 0.9 + 0.012 * scales * flesh * 0.3) * pose.scale, np.float32),
        gloss=np.asarray(kind.gloss * flesh * (0.6 + 0.4 * smooth(-0.9, 0.2, v)), np.float32),
        sharpness=14.0 if kind.gloss < 0.6 else 40.0,
    )
