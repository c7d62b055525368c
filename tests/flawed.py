"""Pictures with and without flaws, and a bank of them, made in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synthaug.pixels import save_mask, save_png


def paper(seed: int = 0, size: tuple[int, int] = (64, 80), level: float = 150) -> Tensor:
    """Fine grain on grey, uint8 (3, H, W)."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy((level + rng.normal(0, 4, (1, *size)) + rng.normal(0, 1, (3, *size))).clip(0, 255).astype(np.uint8))


def flawed(seed: int = 0, size: tuple[int, int] = (64, 80), level: float = 150, half: tuple[int, int] = (4, 7)) -> tuple[Tensor, Tensor]:
    """The same with a dark, restless ellipse, and its mask, uint8 (H, W)."""
    rng = np.random.default_rng(1000 + seed)
    y, x = np.mgrid[: size[0], : size[1]]
    row, column = rng.integers(16, size[0] - 16), rng.integers(20, size[1] - 20)
    inside = ((y - row) / half[0]) ** 2 + ((x - column) / half[1]) ** 2 <= 1
    image = paper(seed, size, level).numpy().copy()
    image[:, inside] = rng.integers(20, 120, (1, int(inside.sum())))
    return torch.from_numpy(image), torch.from_numpy(inside.astype(np.uint8))


def write_flawed(folder: Path, count: int, **settings) -> Path:
    """A folder of photos ``part_N_1.png`` with their masks in ``mask``."""
    (folder / "mask").mkdir(parents=True)
    for index in range(count):
        image, mask = flawed(index, **settings)
        save_png(image, folder / f"part_{index}_1.png")
        save_mask(mask, folder / "mask" / f"part_{index}_1.png")
    return folder
