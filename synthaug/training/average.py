"""Which weights are shown: the trained ones, their running average, which wobbles less, or a schedule-free optimiser's.

Polyak & Juditsky 1992, https://doi.org/10.1137/0330046; the decay rises with the steps n as min(decay, (1 + n) / (10 + n)),
https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = ["HasModes", "WeightAverage", "shown"]


@runtime_checkable
class HasModes(Protocol):
    """An optimiser whose weights to use are not those that it steps from, as schedule-free ones have it."""

    def train(self) -> None:
        """Put the weights in place that steps are taken from."""

    def eval(self) -> None:
        """Put the weights in place that are to be used."""


@contextmanager
def shown(weights: Mapping[str, nn.Parameter], average: WeightAverage | None, optimizers: Iterable[object]) -> Iterator[None]:
    """Put those weights in place that are measured and written, for a while."""
    modes = [optimizer for optimizer in optimizers if isinstance(optimizer, HasModes)]
    for optimizer in modes:
        optimizer.eval()
    try:
        with nullcontext() if average is None else average.shown(weights):
            yield
    finally:
        for optimizer in modes:
            optimizer.train()


class WeightAverage:
    """Average of weights over the steps, in fp32; early on it looks back at a few steps alone, or it would remember the start.

    Args:
        decay: How much of the average a step keeps, from 0 to below 1.

    Example:
        >>> weight = nn.Parameter(torch.zeros(1))
        >>> average = WeightAverage(0.5)
        >>> average.follow({"weight": weight})
        >>> weight.data += 1
        >>> average.follow({"weight": weight})
        >>> with average.shown({"weight": weight}):
        ...     weight.data
        tensor([0.8182])
        >>> weight.data
        tensor([1.])
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._means: dict[str, Tensor] = {}

    @torch.no_grad()
    def follow(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Take one more step's weights in."""
        if not self._means:
            self._means = {name: weight.detach().float().clone() for name, weight in weights.items()}
            self.steps = 1
            return
        kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_([self._on(weight, name) for name, weight in weights.items()], [w.float() for w in weights.values()], 1 - kept)
        self.steps += 1

    def _on(self, weight: Tensor, name: str) -> Tensor:
        """The average of one weight, where the weight is."""
        if self._means[name].device != weight.device:
            self._means[name] = self._means[name].to(weight.device)
        return self._means[name]

    @contextmanager
    def shown(self, weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """Put the average in the place of the weights for a while; before the first step nothing changes."""
        if not self._means:
            yield
            return
        before = {name: weight.data for name, weight in weights.items()}
        try:
            for name, weight in weights.items():
                weight.data = self._on(weight, name).to(weight.dtype)
            yield
        finally:
            for name, weight in weights.items():
                weight.data = before[name]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "means": dict(self._means)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.steps, self._means = int(state["steps"]), dict(state["means"])
