"""Learning rates: which weights have which, and how they go over a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW, Optimizer

from synthaug.errors import require
from synthaug.lora.naming import NetworkKind

__all__ = ["Rate", "adamw", "groups"]


def adamw(params: Iterable[Any]) -> Optimizer:
    """The usual optimiser."""
    return AdamW(params, weight_decay=0.01)


def groups(networks: Mapping[NetworkKind, nn.Module], rates: Mapping[NetworkKind, float], *, up_ratio: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: each network's weights at its rate, the layers' second matrices at a multiple of it.

    Args:
        networks: What is trained, by name.
        rates: Step sizes, by the same names.
        up_ratio: Step size of the second matrices over that of the first.

    LoRA+: Hayou et al. 2024, https://arxiv.org/abs/2402.12354.
    """
    found: list[dict[str, Any]] = []
    for kind, network in networks.items():
        trained = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
        for ratio in sorted({1.0, up_ratio}):
            of = [weight for name, weight in trained if (up_ratio if "lora_B" in name else 1.0) == ratio]
            found += [{"params": of, "lr": rates[kind] * ratio}] if of else []
    return found


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Warm-up, then a course down, as factors on the learning rates.

    Example:
        >>> rate = Rate(course="linear", warm_up=2, floor=0.0)
        >>> [round(rate.factor(step, 10), 2) for step in (0, 1, 2, 6, 10)]
        [0.33, 0.67, 1.0, 0.5, 0.0]
    """

    course: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the way down."""

    warm_up: int = 0
    """Steps over which the rate rises to its full height."""

    floor: float = 0.05
    """Share of the rate that is left at the end; no matter for ``constant``."""

    def __post_init__(self) -> None:
        require({
            "warm_up must be 0 steps or more": (self.warm_up >= 0, self.warm_up),
            "floor must be from 0 to 1; 0.05 is usual": (0 <= self.floor <= 1, self.floor),
        })  # fmt: skip

    def factor(self, step: int, total: int) -> float:
        """Factor at step ``step`` of ``total``."""
        if step < self.warm_up:
            return (step + 1) / (self.warm_up + 1)
        gone = min(1.0, (step - self.warm_up) / max(1, total - self.warm_up))
        left = {"cosine": (1 + math.cos(math.pi * gone)) / 2, "linear": 1 - gone, "constant": 1.0}[self.course]
        return left if self.course == "constant" else self.floor + (1 - self.floor) * left
