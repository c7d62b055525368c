"""One scene with and without its flaw, all else alike: what a mask of a difference can be measured against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthaug.pocket.flaws import add_flaw, pick_spot
from synthaug.pocket.grounds import draw_ground
from synthaug.pocket.optics import Layer, Plane, Rng, photograph
from synthaug.pocket.scenes import OBJECTS, Scene, compose
from synthaug.seeds import seed_for

__all__ = ["Pair", "render_pair"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A scene painted twice."""

    normal: NDArray[np.uint8]
    """Without the flaw, sRGB, (size, size, 3)."""

    again: NDArray[np.uint8]
    """Without the flaw, with other sensor noise."""

    flawed: NDArray[np.uint8]
    """With the flaw, and the sensor noise of ``again``."""

    mask: NDArray[np.uint8]
    """1 where the flaw is, (size, size)."""

    objects: NDArray[np.uint8]
    """1 where an object lies, (size, size); 1 everywhere when nothing lies on the ground."""

    contrast: float
    """Mean difference that the flaw makes in its mask, in grey levels, without any sensor noise; 0 without a flaw."""


def render_pair(scene: Scene, seed: int, *, size: int = 128, noise: float = 0.01) -> Pair:
    """Paint a scene with its flaw and without.

    The ground fills the picture, whatever the scene says of its border, and nothing is compressed.

    Args:
        scene: The facts, with a flaw.
        seed: Seed of everything the facts leave open.
        size: Side in pixels; painted at twice that and averaged.
        noise: Standard deviation of the sensor noise at mid grey.

    Example:
        >>> from dataclasses import replace
        >>> from synthaug.pocket.scenes import random_scene
        >>> pair = render_pair(replace(random_scene(3), flaw="hole"), 3, size=32)
        >>> bool((pair.flawed != pair.again)[pair.mask == 1].any()), pair.contrast > 5
        (True, True)
    """
    fine = 2 * size
    rng = np.random.default_rng(seed_for(seed, "pair"))
    ground = draw_ground(scene.ground, scene.ground_colour, rng, fine)
    layers = [] if scene.thing is None else [OBJECTS[scene.thing].draw(pose, scene.colour, rng, fine) for pose in scene.poses]
    damaged, spoilt, flaw = _damaged(scene, ground, layers, np.random.default_rng(seed_for(seed, "flaw")))
    lit = np.ones((fine, fine), np.float32)
    sound, ill = compose(ground, layers, scene, lit), compose(damaged, spoilt, scene, lit)

    def taken(colour: Plane, name: str, level: float) -> NDArray[np.uint8]:
        return photograph(colour, scene.light, np.random.default_rng(seed_for(seed, name)), size, defocus=0.0, noise=level, jpeg=0)

    mask = _halved(flaw)
    apart = np.abs(taken(ill, "clean", 0.0).astype(np.float32) - taken(sound, "clean", 0.0)).mean(-1)
    covers = np.max([layer.cover for layer in layers], axis=0) if layers else lit
    return Pair(
        normal=taken(sound, "first", noise), again=taken(sound, "second", noise), flawed=taken(ill, "second", noise), mask=mask,
        objects=_halved(covers), contrast=float(apart[mask == 1].mean()) if mask.any() else 0.0,
    )  # fmt: skip


def _damaged(scene: Scene, ground: Layer, layers: list[Layer], rng: Rng) -> tuple[Layer, list[Layer], Plane]:
    """Ground and objects with the flaw, and its cover."""
    if scene.flaw is None:
        return ground, layers, np.zeros_like(ground.height)
    if not layers:
        inner = np.zeros_like(ground.height)
        sixth = len(inner) // 6
        inner[sixth:-sixth, sixth:-sixth] = 1
        damaged, flaw = add_flaw(scene.flaw, ground, pick_spot(inner, rng, float(np.exp(rng.uniform(np.log(0.1), np.log(0.45))))), rng)
        return damaged, layers, flaw
    spot = pick_spot(layers[0].cover, rng, float(rng.uniform(0.3, 0.55)) * scene.poses[0].scale)
    spoilt, flaw = add_flaw(scene.flaw, layers[0], spot, rng)
    return ground, [spoilt, *layers[1:]], flaw


def _halved(cover: Plane) -> NDArray[np.uint8]:
    """A fine cover averaged down to pixels and cut at one half."""
    size = len(cover) // 2
    return np.asarray(cover.reshape(size, 2, size, 2).mean((1, 3)) > 0.5, np.uint8)
