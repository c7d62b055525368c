"""Tiny worlds: grey ground with a dark spot where there is a defect, and scenes that are all different."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from synthaug.seeds import seed_for


def pictures(count: int, *, seed: int, spot: bool = False, side: int = 24, corner: bool = False) -> Tensor:
    """uint8 (count, 3, side, side); ``corner`` keeps the spot in one corner, as if the others had not been found yet."""
    made = []
    for index in range(count):
        rng = np.random.default_rng(seed_for(seed, "world", index))
        y, x = np.mgrid[:side, :side]
        ground = (
            150 + 40 * np.sin(x * rng.uniform(0.1, 0.5) + y * rng.uniform(0.1, 0.5) + rng.uniform(0, 6)) + rng.normal(0, 6, (side, side))
        )
        if spot:
            row, column = (5, 5) if corner else rng.integers(4, side - 4, 2)
            ground -= 110 * (np.hypot(y - row, x - column) < rng.uniform(2, 3))
        made.append(np.repeat(ground.clip(0, 255).astype(np.uint8)[None], 3, 0))
    return torch.from_numpy(np.stack(made))


def scene(seed: int, *, size: tuple[int, int] = (48, 64)) -> Image.Image:
    """Eight ellipses at random on noisy paper; size is (height, width)."""
    height, width = size
    rng = np.random.default_rng(seed_for(seed, "scene"))
    picture = Image.fromarray((220 + rng.normal(0, 4, (height, width, 3))).clip(0, 255).astype(np.uint8))
    for _ in range(8):
        left, top = int(rng.integers(width)), int(rng.integers(height))
        box = (left, top, left + int(rng.integers(4, 20)), top + int(rng.integers(4, 20)))
        ImageDraw.Draw(picture).ellipse(box, fill=tuple(map(int, rng.integers(40, 200, 3))))
    return picture


def scene_folders(folder: Path) -> dict[str, Path]:
    """Folders of four scenes each, by what ``evaluate`` calls them; scene 1000 k + i is photo i of folder k."""
    made = {}
    for place, kind in enumerate(("good", "defect", "test_good", "test_defect", "synthetic"), 1):
        made[kind] = folder / kind
        made[kind].mkdir()
        for index in range(4):
            scene(place * 1000 + index).save(made[kind] / f"photo-{index:02d}.png")
    return made
