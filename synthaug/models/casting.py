"""What a card's precision does to types, imitated on networks on a CPU that hold no numbers.

Autocast on CUDA computes norms in fp32, on a CPU it does not: https://docs.pytorch.org/docs/stable/amp.html lists the operations.
Cards before Volta store halves and compute in fp32, a layer's weights at a time.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from synthaug.models.numerics import Precision

__all__ = ["HALVES", "casting", "compute_as_a_card"]

HALVES = (torch.float16, torch.bfloat16)


def casting(precision: Precision) -> AbstractContextManager[Any]:
    """Autocast, where the precision has it."""
    return torch.autocast("cpu", precision.autocast) if precision.autocast in HALVES else nullcontext()


def compute_as_a_card(network: nn.Module, precision: Precision) -> None:
    """Let a network's modules compute in the types that a card would take, changed in place.

    Args:
        network: On any device, the meta device too.
        precision: Norms are in fp32 under autocast; halves that are computed in fp32 are widened a module at a time.

    Example:
        >>> norm = nn.LayerNorm(4, dtype=torch.bfloat16)
        >>> compute_as_a_card(norm, Precision(storage=torch.bfloat16, autocast=torch.bfloat16))
        >>> norm(torch.ones(1, 4, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    widened: dict[type[nn.Module], type[nn.Module]] = {}
    if precision.autocast in HALVES:
        widened = {nn.GroupNorm: _GroupNorm, nn.LayerNorm: _LayerNorm}
    elif precision.storage in HALVES and precision.autocast is not None:
        widened = {nn.GroupNorm: _GroupNorm, nn.LayerNorm: _LayerNorm, nn.Linear: _Linear, nn.Conv2d: _Conv2d}
    for module in network.modules():
        if type(module) in widened:
            module.__class__ = widened[type(module)]


def _wide(value: Tensor | None) -> Any:
    return None if value is None else value.float()


class _GroupNorm(nn.GroupNorm):
    @override
    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return functional.group_norm(_wide(input), self.num_groups, _wide(self.weight), _wide(self.bias), self.eps)


class _LayerNorm(nn.LayerNorm):
    @override
    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return functional.layer_norm(_wide(input), self.normalized_shape, _wide(self.weight), _wide(self.bias), self.eps)


class _Linear(nn.Linear):
    @override
    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(_wide(input), _wide(self.weight), _wide(self.bias))


class _Conv2d(nn.Conv2d):
    @override
    def forward(self, input: Tensor) -> Tensor:
        answer: Tensor = self._conv_forward(_wide(input), _wide(self.weight), _wide(self.bias))
        return answer
