"""Where an object lies, and the shapes that objects are cut from.

An object is modelled in a frame of its own: x runs from -1 (tail, tip) to 1 (head), y across. A
:class:`Pose` says where that frame lies in the picture. Distances are signed, positive inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthaug.pocket.optics import Plane, grid

__all__ = ["Pose", "box", "disc", "dome", "edge", "polygon", "segment"]


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Position, size and direction of an object in the picture."""

    centre: tuple[float, float]
    """Middle of the object, x and y, each -1 to 1."""

    scale: float
    """Half the object's length, in half-widths of the picture."""

    angle: float
    """Direction of the object's +x, in radians, 0 = right, pi/2 = down."""

    def local(self, size: int) -> tuple[Plane, Plane]:
        """Coordinates of every pixel in the object's frame, two planes (size, size)."""
        x, y = grid(size)
        x, y = (x - self.centre[0]) / self.scale, (y - self.centre[1]) / self.scale
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        return cos * x + sin * y, cos * y - sin * x

    def pixel(self, size: int) -> float:
        """Width of a pixel in the object's frame."""
        return 2 / size / self.scale


def edge(distance: Plane, pixel: float) -> Plane:
    """Opacity of a shape from its signed distance: a ramp one and a half pixels wide."""
    return np.asarray(np.clip(distance / (1.5 * pixel) + 0.5, 0, 1), np.float32)


def dome(distance: Plane, width: float) -> Plane:
    """Quarter-round profile: 0 at the edge, 1 from ``width`` inwards."""
    t = np.clip(distance / width, 0, 1)
    return np.asarray(np.sqrt(np.clip(1 - (1 - t) ** 2, 0, 1)), np.float32)


def disc(x: Plane, y: Plane, radius: float) -> Plane:
    """Signed distance to a circle around the origin."""
    return np.asarray(radius - np.hypot(x, y), np.float32)


def box(x: Plane, y: Plane, half_width: float, half_height: float, corner: float = 0.0) -> Plane:
    """Signed distance to a rectangle with rounded corners."""
    dx, dy = np.abs(x) - half_width + corner, np.abs(y) - half_height + corner
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return np.asarray(corner - outside - np.minimum(np.maximum(dx, dy), 0), np.float32)


def polygon(x: Plane, y: Plane, sides: int, radius: float) -> Plane:
    """Signed distance (exact beside the sides) to a regular polygon of inradius ``radius``."""
    angles = np.arange(sides) * (2 * np.pi / sides)
    reach = np.max([x * np.float32(np.cos(a)) + y * np.float32(np.sin(a)) for a in angles], axis=0)
    return np.asarray(radius - reach, np.float32)


def segment(x: Plane, y: Plane, start: tuple[float, float], end: tuple[float, float]) -> Plane:
    """Distance (always positive) of each pixel to a straight piece of line."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    t = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
    return np.asarray(np.hypot(x - start[0] - t * dx, y - start[1] - t * dy), np.float32)
