"""Batches that are a function of the step, so that a resumed run goes on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset
from typing_extensions import override

from synthaug.seeds import seed_for

__all__ = ["ByStep"]

Make = Callable[[np.random.Generator], Any]


class _Steps(IterableDataset[Any]):
    """``make(generator of step k)`` for k = first, first + 1, ... without end."""

    def __init__(self, make: Make, seed: int, first: int) -> None:
        self._make, self._seed, self._first = make, seed, first

    @override
    def __iter__(self) -> Iterator[Any]:
        step = self._first
        while True:
            yield self._make(np.random.default_rng(seed_for(self._seed, "batch", step)))
            step += 1


class ByStep(LightningDataModule):
    """Feed a trainer with one batch per step, each drawn from its own seed.

    Args:
        make: Builds a batch from a generator.
        seed: Seed of the run.
        held_out: The one batch to validate with.
    """

    def __init__(self, make: Make, *, seed: int, held_out: Any) -> None:
        super().__init__()
        self._make, self._seed, self._held_out = make, seed, held_out

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        first = self.trainer.global_step if self.trainer is not None else 0
        return DataLoader(_Steps(self._make, self._seed, first), batch_size=None)

    @override
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader([self._held_out], batch_size=None)  # type: ignore[arg-type]  # a list is a map-style data set
