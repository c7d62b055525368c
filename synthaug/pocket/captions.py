"""How a scene reads: what lies where, on what, under which light, some of it left out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synthaug.pocket.optics import Light
from synthaug.pocket.scenes import MEAN_EXPOSURE, OBJECTS, Scene
from synthaug.seeds import seed_for

__all__ = ["caption_of"]

_ARROWS = ("right", "lower right", "down", "lower left", "left", "upper left", "up", "upper right")
_COUNTS = ("no", "a", "two", "three", "four", "many")


def caption_of(scene: Scene, seed: int) -> str:
    """Put a scene into words, leaving out a random part of what could be said.

    Example:
        >>> from synthaug.pocket.scenes import random_scene
        >>> caption_of(random_scene(3), 0) == caption_of(random_scene(3), 0)
        True
    """
    rng = np.random.default_rng(seed_for(seed, "caption"))

    def say(chance: float) -> bool:
        return bool(rng.random() < chance)

    ground = f"{scene.ground_colour} {scene.ground}" if say(0.75) else scene.ground
    flaw = f" with a {scene.flaw}" if scene.flaw else ""
    if scene.thing is None:
        words = [f"{ground}{flaw}"]
    else:
        words = [_noun_phrase(scene, say) + flaw + (f" on {ground}" if say(0.88) else "")]
        if len(scene.poses) == 1:
            words += _place(scene, say)
    words += _lighting(scene.light, say)
    return ("a photo of " if say(0.6) else "") + ", ".join(words)


def _noun_phrase(scene: Scene, say: Callable[[float], bool]) -> str:
    """``a small red fish`` or ``three screws``."""
    thing = OBJECTS[scene.thing or ""]
    scale = scene.poses[0].scale
    low, high = thing.scale
    parts = [_COUNTS[min(len(scene.poses), len(_COUNTS) - 1)]]
    if len(scene.poses) == 1 and say(0.5):
        parts += ["small"] if scale < low + 0.25 * (high - low) else ["large"] if scale > low + 0.75 * (high - low) else []
    if say(0.75):
        parts.append(scene.colour)
    parts.append(str(scene.thing) if len(scene.poses) == 1 else thing.plural)
    return " ".join(parts).replace("a orange", "an orange").replace("a almond", "an almond")


def _place(scene: Scene, say: Callable[[float], bool]) -> list[str]:
    """Direction and position of a single object."""
    pose, words = scene.poses[0], []
    if OBJECTS[scene.thing or ""].pointed and say(0.6):
        words.append("pointing " + _ARROWS[round(pose.angle / (np.pi / 4)) % 8])
    x, y = pose.centre
    if say(0.5):
        row = "top" if y < -0.22 else "bottom" if y > 0.22 else ""
        col = "left" if x < -0.22 else "right" if x > 0.22 else ""
        words.append(f"at the {f'{row} {col}'.strip()}" if row or col else "in the center")
    return words


def _lighting(light: Light, say: Callable[[float], bool]) -> list[str]:
    """What is worth saying about the light."""
    words = []
    if say(0.3):
        words.append("hard shadow" if light.softness < 0.025 else "soft shadow")
    if say(0.5) and abs(np.log(light.exposure) - MEAN_EXPOSURE) > 0.2:
        words.append("bright light" if np.log(light.exposure) > MEAN_EXPOSURE else "dim light")
    if say(0.5) and abs(light.tint[0] - 1) > 0.06:
        words.append("warm light" if light.tint[0] > 1 else "cool light")
    return words
