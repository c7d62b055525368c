"""What a detector is shown: half good and half defect in every batch, a little changed each time.

Batch i is a function of the pictures, the seed and i alone. The draws of good pictures, of real
defects and of synthetic ones have generators of their own, so that adding synthetic images leaves
the draws of the other pictures as they were.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from typing_extensions import override

from synthaug.errors import SettingError
from synthaug.pixels import to_float
from synthaug.seeds import seed_for

__all__ = ["Batches", "augmented"]

SHIFT = 0.08
"""Largest shift, as a share of the side."""

LIGHT = 0.15
"""Largest change of brightness and of contrast, as a share."""


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """All batches of a run.

    In each batch half the places are for good pictures and half for defects. Where a class has both real
    and synthetic pictures, they share its places equally, however many there are of each.

    Args:
        images: uint8 (N, 3, H, W).
        labels: (N,), 1 = defect, 0 = good; both must occur.
        synthetic: bool (N,), which pictures were drawn.
        steps: How many batches.
        batch_size: Pictures per batch, a multiple of 4.
        seed: Seed of the run.

    Raises:
        SettingError: If a class is missing, or ``steps`` or ``batch_size`` cannot be used.
    """

    def __init__(self, images: Tensor, labels: Tensor, synthetic: Tensor, *, steps: int, batch_size: int, seed: int) -> None:
        if batch_size < 4 or batch_size % 4 or steps < 1:
            raise SettingError(f"a run needs 1 or more steps and a batch size that 4 divides, got {steps} and {batch_size}")
        self.images, self.seed = images, seed
        classes = [self._places(labels == label, synthetic, steps, batch_size // 2, str(label)) for label in (0, 1)]
        self.places = torch.cat(classes, 1)
        self.targets = torch.arange(2).repeat_interleave(batch_size // 2).float()

    def __len__(self) -> int:
        return len(self.places)

    @override
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch ``index``: float (B, 3, H, W) in [-1, 1], and float (B,), 1 = defect."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        generator = torch.Generator().manual_seed(seed_for(self.seed, "augment", index))
        return augmented(to_float(self.images[self.places[index]]), generator), self.targets

    def _places(self, of_class: Tensor, synthetic: Tensor, steps: int, count: int, name: str) -> Tensor:
        """Indices of one class, (steps, count)."""
        kinds = [("real", of_class & ~synthetic), ("synthetic", of_class & synthetic)]
        found = [(f"{name}/{kind}", chosen.nonzero()[:, 0]) for kind, chosen in kinds if chosen.any()]
        if not found:
            raise SettingError(f"a detector needs good and defect pictures, there is none with label {name} (0 = good, 1 = defect)")
        each = count // len(found)
        return torch.cat([_in_rounds(pool, steps * each, seed_for(self.seed, key)).view(steps, each) for key, pool in found], 1)


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror, shift by whole pixels, and change the light of each picture by chance.

    Args:
        images: float (B, 3, H, W) in [-1, 1].
        generator: Where chance comes from; equal states give equal pictures.

    Returns:
        float (B, 3, H, W), about [-1, 1].
    """
    count, _, height, width = images.shape
    mirror = torch.randint(2, (count, 2), generator=generator) * 2.0 - 1
    furthest = torch.tensor([int(SHIFT * width), int(SHIFT * height)])
    shift = ((torch.rand(count, 2, generator=generator) * 2 - 1) * furthest).round() * 2 / torch.tensor([width, height])
    grid = F.affine_grid(torch.cat([torch.diag_embed(mirror), shift[:, :, None]], 2), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    contrast, brightness = ((torch.rand(2, count, 1, 1, 1, generator=generator) * 2 - 1) * LIGHT).unbind(0)
    return moved * (1 + contrast) + brightness


def _in_rounds(pool: Tensor, count: int, seed: int) -> Tensor:
    """``count`` members of a pool, each once per round, in another order every round."""
    generator = torch.Generator().manual_seed(seed)
    rounds = -(-count // len(pool))
    return torch.cat([pool[torch.randperm(len(pool), generator=generator)] for _ in range(rounds)])[:count]
