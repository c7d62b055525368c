"""A batch's gradient, computed in as many parts as memory allows, and handed to Lightning as that of an ordinary loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from synthaug.training.rows import Rows

__all__ = ["carried", "gradient_of", "is_finite"]


def gradient_of(
    losses: Callable[[Rows], Tensor], parts: Sequence[Rows], weights: Sequence[nn.Parameter], scale: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Mean loss over all rows, and its gradient times ``scale`` with respect to the weights.

    The result does not depend on how the rows are divided, to within rounding; memory is that of the largest part. Nothing is
    added to ``weight.grad``, so a part that fails leaves no trace.

    Args:
        losses: The loss of each row, (B,), for some rows.
        parts: All rows.
        weights: What is trained; those that a loss does not depend on get zeros.
        scale: Keeps small gradients from vanishing in half precision; a scalar.
    """
    count = sum(len(part) for part in parts)
    value, sums = scale.new_zeros(()), [torch.zeros_like(weight) for weight in weights] if len(parts) > 1 else []
    for part in parts:
        loss = losses(part).sum() / count
        with torch.autocast(loss.device.type, enabled=False):  # backward runs in the types that forward chose
            found = torch.autograd.grad(loss * scale, weights, allow_unused=True)
        value = value + loss.detach()
        own = [torch.zeros_like(w) if g is None else g for g, w in zip(found, weights, strict=True)]
        sums = list(torch._foreach_add(sums, own)) if sums else own
    return value, sums


def is_finite(value: Tensor, gradient: Iterable[Tensor]) -> bool:
    """Whether a loss and its gradient are numbers: one look at the device for all of them."""
    norms = torch._foreach_norm(list(gradient))
    return bool(torch.isfinite(value + torch.stack(norms).sum()) if norms else torch.isfinite(value))


def carried(value: Tensor, gradient: list[Tensor], weights: Sequence[nn.Parameter], scale: Tensor) -> Tensor:
    """A loss whose backward pass hands over a gradient that is known already.

    So clipping, accumulation, loss scaling and DDP meet an ordinary loss.

    Args:
        value: The loss, a scalar.
        gradient: Its gradient with respect to the weights, times ``scale``.
        weights: What is trained.
        scale: What the gradient was multiplied by.

    Example:
        >>> weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> loss = carried(torch.tensor(5.0), [torch.tensor([8.0, 4.0])], [weight], torch.tensor(4.0))
        >>> (loss / 2).backward()
        >>> loss.item(), weight.grad
        (5.0, tensor([1.0000, 0.5000]))
    """
    loss: Tensor = _Carried.apply(value, gradient, scale, *weights)
    return loss


class _Carried(torch.autograd.Function):
    """The value forward, the gradient that was computed before backward."""

    @staticmethod
    @override
    def forward(ctx: Any, value: Tensor, gradient: list[Tensor], scale: Tensor, *weights: Tensor) -> Tensor:
        ctx.gradient, ctx.scale = gradient, scale
        return value.clone()

    @staticmethod
    @override
    def backward(ctx: Any, *outer: Tensor) -> Any:
        return None, None, None, *torch._foreach_mul(ctx.gradient, outer[0] / ctx.scale)
