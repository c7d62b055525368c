"""A folder of rendered pictures with their facts, written once and read by every stage of pretraining."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthaug.pocket.captions import caption_of
from synthaug.pocket.scenes import random_scene, render
from synthaug.seeds import seed_for

__all__ = ["KEPT_BACK", "PART", "PictureSet", "render_part", "render_set"]

PART = 1000
"""Pictures in one part of the set."""

CELL = 8
"""Side in pixels of the cells whose cover is kept: one place of the latent."""

KEPT_BACK = 1000
"""Pictures at the end of the set that nothing is ever trained on."""


def render_part(part: int, *, folder: Path, seed: int, size: int) -> None:
    """Render part number ``part`` unless it is there; a part appears whole or not at all."""
    target = folder / f"pictures-{part:05d}.npy"
    if target.exists() and (folder / f"covers-{part:05d}.npy").exists():
        return
    pixels = np.empty((PART, size, size, 3), np.uint8)
    covers = np.empty((PART, 2, size // CELL, size // CELL), np.uint8)
    lines = []
    for row in range(PART):
        item = seed_for(seed, "picture", part * PART + row)
        scene = random_scene(item)
        picture = render(scene, item, size)
        pixels[row] = picture.pixels
        covers[row] = [_share(picture.objects), _share(picture.flaws)]
        facts = {"thing": scene.thing, "ground": scene.ground, "flaw": scene.flaw, "count": len(scene.poses)}
        lines.append(json.dumps({"captions": [caption_of(scene, seed_for(item, k)) for k in range(4)], **facts}))
    (folder / f"facts-{part:05d}.jsonl").write_text("\n".join(lines) + "\n")
    np.save(folder / f"covers-{part:05d}.npy", covers)
    partial_file = folder / f".{target.name}.{os.getpid()}.npy"
    np.save(partial_file, pixels)
    partial_file.replace(target)


def render_set(folder: Path, *, count: int, seed: int, size: int = 128, workers: int = 2) -> None:
    """Render ``count`` pictures (rounded up to whole parts); parts that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    job = partial(render_part, folder=folder, seed=seed, size=size)
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(job, range(-(-count // PART))))


def _share(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How much of each cell a mask covers, in parts of 255."""
    side = len(mask) // CELL
    return np.asarray(mask.reshape(side, CELL, side, CELL).mean((1, 3)) * 255, np.uint8)


class PictureSet:
    """Pictures and facts of a folder, read lazily.

    Args:
        folder: As written by :func:`render_set`.
    """

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("pictures-*.npy"))
        if not files:
            raise FileNotFoundError(f"{folder} holds no rendered pictures; run `python -m synthaug.pocket.pretrain` first")
        self._parts = [np.load(file, mmap_mode="r") for file in files]
        self._covers = [folder / f"covers-{file.stem[9:]}.npy" for file in files]
        self.facts: list[dict[str, Any]] = [
            json.loads(line) for file in files for line in (folder / f"facts-{file.stem[9:]}.jsonl").read_text().splitlines()
        ]

    def __len__(self) -> int:
        return len(self.facts)

    def pixels(self, rows: list[int]) -> NDArray[np.uint8]:
        """The pictures of these rows, uint8 (N, size, size, 3)."""
        return np.stack([self._parts[row // PART][row % PART] for row in rows])

    def covers(self) -> NDArray[np.uint8]:
        """How much of each cell of 8 x 8 pixels shows objects, and flaws, in parts of 255: (N, 2, size / 8, size / 8)."""
        return np.concatenate([np.load(file) for file in self._covers])
