"""A scene: what lies where, under which light, and how it looks.

:func:`random_scene` draws the facts, :func:`render` paints them, :func:`synthaug.pocket.captions.caption_of`
puts them into words. All three are pure functions of their seeds. Iriko is not among the scenes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from synthaug.pocket import goods, hardware
from synthaug.pocket.fish import KINDS, draw_fish, random_kind
from synthaug.pocket.flaws import add_flaw, pick_spot
from synthaug.pocket.frames import Pose
from synthaug.pocket.grounds import GROUNDS, draw_ground
from synthaug.pocket.optics import Layer, Light, Plane, Rng, cast_shadow, grid, mix, photograph, shade, smooth
from synthaug.seeds import seed_for

__all__ = ["OBJECTS", "Picture", "Scene", "Thing", "random_scene", "render"]

Draw = Callable[[Pose, str, Rng, int], Layer]


def _fish(pose: Pose, colour: str, rng: Rng, size: int) -> Layer:
    """A fish whose colour reads ``[slender|deep] [pattern] colour``."""
    words = colour.split()
    low, high = {"slender": (0.15, 0.2), "deep": (0.33, 0.42)}.get(words[0], (0.21, 0.31))
    patterns = {"spotted": "spots", "barred": "bars", "striped": "stripe"}
    pattern = next((patterns[w] for w in words if w in patterns), "plain")
    return draw_fish(pose, random_kind(rng, words[-1], pattern, float(rng.uniform(low, high))), rng, size)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A class of objects."""

    draw: Draw
    colours: tuple[str, ...]
    plural: str
    weight: float = 1.0
    """How often it is drawn against the others."""

    thickness: float = 0.2
    """Height over half length; sets the shadow."""

    scale: tuple[float, float] = (0.22, 0.75)
    """Half length when alone, in half-widths of the picture."""

    pointed: bool = False
    """Whether its direction shows."""

    flaws: tuple[str, ...] = ("scratch", "crack", "stain", "hole", "dent", "missing part", "speck")


_STEELS = ("steel", "brass", "copper", "black")
OBJECTS: dict[str, Thing] = {
    "fish": Thing(
        draw=_fish,
        colours=tuple(KINDS),
        plural="fish",
        weight=5.0,
        thickness=0.2,
        scale=(0.4, 0.92),
        pointed=True,
        flaws=("scratch", "stain", "hole", "missing part", "speck"),
    ),
    "screw": Thing(draw=hardware.draw_screw, colours=_STEELS, plural="screws", thickness=0.25, scale=(0.4, 0.88), pointed=True),
    "nut": Thing(draw=hardware.draw_nut, colours=_STEELS, plural="nuts", thickness=0.5, scale=(0.25, 0.65)),
    "washer": Thing(draw=hardware.draw_washer, colours=_STEELS, plural="washers", thickness=0.15, scale=(0.25, 0.65)),
    "gear": Thing(draw=hardware.draw_gear, colours=_STEELS, plural="gears", scale=(0.25, 0.75)),
    "coin": Thing(draw=hardware.draw_coin, colours=("silver", "gold", "copper"), plural="coins", thickness=0.12, scale=(0.25, 0.65)),
    "capsule": Thing(
        draw=goods.draw_capsule,
        colours=("red", "blue", "green", "yellow", "white", "orange"),
        plural="capsules",
        thickness=0.4,
        scale=(0.3, 0.75),
        pointed=True,
    ),
    "tablet": Thing(draw=goods.draw_tablet, colours=("white", "pink", "yellow", "blue"), plural="tablets", scale=(0.22, 0.55)),
    "leaf": Thing(
        draw=goods.draw_leaf,
        colours=("green", "yellow", "brown", "red", "orange"),
        plural="leaves",
        thickness=0.08,
        scale=(0.35, 0.9),
        pointed=True,
        flaws=("stain", "hole", "missing part"),
    ),
    "biscuit": Thing(draw=goods.draw_biscuit, colours=("golden", "brown"), plural="biscuits", scale=(0.25, 0.75)),
    "almond": Thing(draw=goods.draw_almond, colours=("brown",), plural="almonds", thickness=0.35, scale=(0.28, 0.65), pointed=True),
    "button": Thing(
        draw=goods.draw_button,
        colours=("white", "black", "red", "blue", "green", "yellow", "brown"),
        plural="buttons",
        scale=(0.25, 0.6),
    ),
    "bottle": Thing(
        draw=goods.draw_bottle,
        colours=("green", "brown", "blue", "white", "red"),
        plural="bottles",
        thickness=0.35,
        scale=(0.45, 0.92),
        pointed=True,
    ),
    "board": Thing(
        draw=goods.draw_board,
        colours=("green", "blue", "red", "black"),
        plural="boards",
        thickness=0.08,
        scale=(0.4, 0.85),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The facts of one picture."""

    thing: str | None
    colour: str
    poses: tuple[Pose, ...]
    ground: str
    ground_colour: str
    flaw: str | None
    light: Light
    border: float | None
    """Where the ground ends, as x in a turned frame; None where it fills the picture."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A rendered scene."""

    pixels: NDArray[np.uint8]
    """sRGB, (size, size, 3)."""

    objects: NDArray[np.uint8]
    """1 where an object lies, (size, size)."""

    flaws: NDArray[np.uint8]
    """1 where something is wrong, (size, size)."""


GROUND_FLAWS = ("scratch", "crack", "stain", "hole", "dent", "speck", "speck")
"""What may be wrong with a surface that nothing lies on; specks twice as often."""

SHEETS = ("paper", "fabric", "leather", "plastic")
"""Surfaces that can be folded."""

MEAN_EXPOSURE = -0.25
"""Mean of the logarithm of the exposure."""


def random_light(rng: Rng) -> Light:
    """Draw a lamp, from hard and low to soft and high."""
    warmth = float(rng.normal(0, 0.05))
    return Light(
        azimuth=float(rng.uniform(0, 2 * np.pi)),
        elevation=float(rng.uniform(0.55, 1.35)),
        ambient=float(rng.uniform(0.3, 0.65)),
        softness=float(np.exp(rng.uniform(np.log(0.012), np.log(0.12)))),
        gradient=float(rng.uniform(0, 0.5)),
        vignette=float(rng.uniform(0, 0.2)),
        tint=(1 + warmth, 1 + float(rng.normal(0, 0.01)), 1 - warmth),
        exposure=float(np.exp(rng.normal(MEAN_EXPOSURE, 0.2))),
    )


def random_poses(thing: Thing, rng: Rng) -> tuple[Pose, ...]:
    """One object, mostly; now and then a few smaller ones side by side, or many that may touch and overlap."""
    crowd = rng.random()
    count = 1 if crowd < 0.87 else int(rng.integers(2, 5)) if crowd < 0.96 else int(rng.integers(5, 10))
    low, high = thing.scale
    apart = 0.85 if count < 5 else 0.5
    poses: list[Pose] = []
    for _ in range(count * 12):
        scale = float(rng.uniform(low, high)) if count == 1 else float(rng.uniform(0.8, 1.2)) * min(high, 0.62 / np.sqrt(count))
        room = max(0.03, 0.98 - scale)
        centre = (float(rng.uniform(-room, room)), float(rng.uniform(-room, room)))
        if count == 1:
            centre = (centre[0] * 0.75, centre[1] * 0.75)
        if all(np.hypot(centre[0] - p.centre[0], centre[1] - p.centre[1]) > apart * (scale + p.scale) for p in poses):
            poses.append(Pose(centre=centre, scale=scale, angle=float(rng.uniform(0, 2 * np.pi))))
        if len(poses) == count:
            break
    return tuple(poses)


def _shown(thing: Thing, flaw: str | None) -> Thing:
    """An object with a flaw is not drawn so small that the flaw is lost."""
    low, high = thing.scale
    return thing if flaw is None else replace(thing, scale=(low + 0.45 * (high - low), high))


def random_scene(seed: int) -> Scene:
    """Draw the facts of one scene."""
    rng = np.random.default_rng(seed_for(seed, "scene"))
    names = list(OBJECTS)
    weights = np.asarray([OBJECTS[n].weight for n in names])
    empty = rng.random() < 0.16
    name = None if empty else str(rng.choice(names, p=weights / weights.sum()))
    colour = "" if name is None else str(rng.choice(OBJECTS[name].colours))
    if name == "fish":
        colour = "silver" if rng.random() < 0.25 else colour
        marks = str(rng.choice(["", "", "spotted ", "barred ", "striped "]))
        colour = str(rng.choice(["", "", "slender ", "deep "])) + marks + colour
    grounds = list(GROUNDS)
    ground = "paper" if rng.random() < 0.3 else str(rng.choice(grounds))
    palette = list(GROUNDS[ground][2])
    flaw = None
    if rng.random() < (0.7 if name is None else 0.26):
        sheet = ("fold",) if ground in SHEETS else ()
        flaw = str(rng.choice([*GROUND_FLAWS, *sheet] if name is None else OBJECTS[name].flaws))
    return Scene(
        thing=name,
        colour=colour,
        poses=() if name is None else random_poses(_shown(OBJECTS[name], flaw), rng),
        ground=ground,
        ground_colour=palette[0] if rng.random() < 0.3 else str(rng.choice(palette)),
        flaw=flaw,
        light=random_light(rng),
        border=float(rng.uniform(0.84, 1.15)) if rng.random() < 0.12 else None,
    )


def render(scene: Scene, seed: int, size: int = 128) -> Picture:
    """Paint a scene.

    Args:
        scene: The facts.
        seed: Seed of everything the facts leave open: texture, species, the course of a crack, noise.
        size: Side of the picture in pixels; it is painted at twice that and averaged.

    Returns:
        The picture with the masks of its objects and flaws.
    """
    rng = np.random.default_rng(seed_for(seed, "render"))
    fine = 2 * size
    ground = draw_ground(scene.ground, scene.ground_colour, rng, fine)
    layers = [] if scene.thing is None else [OBJECTS[scene.thing].draw(p, scene.colour, rng, fine) for p in scene.poses]
    flawed = np.zeros((fine, fine), np.float32)
    if scene.flaw and layers:
        spot = pick_spot(layers[0].cover, rng, float(rng.uniform(0.3, 0.55)) * scene.poses[0].scale)
        layers[0], flawed = add_flaw(scene.flaw, layers[0], spot, rng)
    elif scene.flaw:
        round_one = scene.flaw in ("stain", "hole")
        reach = float(np.exp(rng.uniform(np.log(0.1), np.log(0.45)))) if round_one else float(rng.uniform(0.35, 0.8))
        inner = np.zeros((fine, fine), np.float32)
        inner[fine // 6 : -fine // 6, fine // 6 : -fine // 6] = 1
        ground, flawed = add_flaw(scene.flaw, ground, pick_spot(inner, rng, reach), rng)
    if scene.border is not None:
        ground = _ending(ground, scene.border, rng)
    colour = compose(ground, layers, scene, np.ones((fine, fine), np.float32))
    covers = np.max([layer.cover for layer in layers], axis=0) if layers else np.zeros((fine, fine), np.float32)
    pixels = photograph(
        colour,
        scene.light,
        rng,
        size,
        defocus=float(rng.uniform(0.5, 1.2)) if rng.random() < 0.2 else 0.0,
        noise=float(rng.uniform(0.0, 0.03)),
        jpeg=int(rng.integers(60, 96)) if rng.random() < 0.4 else 0,
    )
    return Picture(pixels=pixels, objects=_mask(covers, size), flaws=_mask(flawed, size))


def compose(ground: Layer, layers: list[Layer], scene: Scene, lit: Plane) -> Plane:
    """Lay objects on the ground with their shadows and shade everything, (H, W, 3) linear."""
    thickness = OBJECTS[scene.thing].thickness if scene.thing else 0.0
    for layer, pose in zip(layers, scene.poses, strict=True):
        lit = lit * cast_shadow(layer.cover, thickness * pose.scale, scene.light)
    colour = shade(ground, scene.light, lit)
    for layer in layers:
        colour = mix(colour, shade(layer, scene.light, np.ones_like(lit)), layer.cover)
    return colour


def _ending(ground: Layer, border: float, rng: Rng) -> Layer:
    """Let the ground end near one side of the picture, with darkness behind it."""
    x, y = grid(ground.cover.shape[0])
    angle = int(rng.integers(4)) * np.pi / 2 + float(rng.normal(0, 0.03))
    beyond = smooth(border - 0.005, border + 0.005, np.asarray(x * np.cos(angle) + y * np.sin(angle), np.float32))
    behind = np.asarray(rng.uniform(0.01, 0.12) * rng.uniform(0.8, 1.2, 3), np.float32)
    return replace(ground, albedo=mix(ground.albedo, behind, beyond))


def _mask(cover: Plane, size: int) -> NDArray[np.uint8]:
    """Average a fine cover down to pixels and cut it at one half."""
    return np.asarray(cover.reshape(size, 2, size, 2).mean((1, 3)) > 0.5, np.uint8)
