"""Muon for matrices and kernels, AdamW for everything else.

Muon: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/ (torch's own implementation, which
takes matrices only; a kernel (out, in, h, w) is handed to it as the matrix (out, in * h * w) that it is).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from typing_extensions import override

__all__ = ["MuonAndAdamW", "warm_average", "warm_stable_decay"]


class MuonAndAdamW(Optimizer):
    """One optimiser for a whole network.

    Args:
        parameters: Named weights, as ``module.named_parameters()`` gives them. Those with two dimensions
            or more, none below 16, go to Muon, embeddings excepted.
        lr: Step size of Muon, in units of AdamW's.
        small_lr: Step size of AdamW, for embeddings, biases and norms.
        weight_decay: Decoupled, per step times ``lr``.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], *, lr: float, small_lr: float, weight_decay: float = 0.0) -> None:
        weights = [(name, p) for name, p in parameters if p.requires_grad]
        super().__init__([p for _, p in weights], {"lr": lr})
        self._small_share = small_lr / lr
        self._matrices = [
            p for name, p in weights if p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 16 and "embedding.weight" not in name
        ]
        matrices = {id(p) for p in self._matrices}
        self._views = [nn.Parameter(_as_matrix(p.detach())) for p in self._matrices]
        self._muon = Muon(self._views, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        others = [p for _, p in weights if id(p) not in matrices]
        self._adamw = AdamW(others, lr=small_lr, betas=(0.9, 0.99), weight_decay=weight_decay)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @override
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step of both optimisers at the learning rate of this one's group."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for weight, view in zip(self._matrices, self._views, strict=True):
            view.data = _as_matrix(weight.detach())
            view.grad = None if weight.grad is None else _as_matrix(weight.grad.contiguous(memory_format=_format(weight)))
        for inner, share in ((self._muon, 1.0), (self._adamw, self._small_share)):
            inner.param_groups[0]["lr"] = self.param_groups[0]["lr"] * share
            inner.step()  # type: ignore[no-untyped-call]  # torch leaves Muon's step without types
        return loss

    @override
    def state_dict(self) -> dict[str, Any]:
        """State of both optimisers."""
        return {**super().state_dict(), "muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both optimisers."""
        parts = dict(state_dict)
        self._muon.load_state_dict(parts.pop("muon"))
        self._adamw.load_state_dict(parts.pop("adamw"))
        super().load_state_dict(parts)


def warm_stable_decay(total: int, *, warm: int = 100, stable: float = 0.6) -> Callable[[int], float]:
    """Factor on the learning rate: up over ``warm`` steps, level, then down to 0 after ``stable`` of the total.

    A run may be resumed with another total as long as it is still on the level.
    Hu et al. 2024, section 4, https://arxiv.org/abs/2404.06395.

    Example:
        >>> factor = warm_stable_decay(1000, warm=10)
        >>> factor(0), factor(500), round(factor(800), 2), factor(1000)
        (0.1, 1.0, 0.5, 0.0)
    """

    def factor(step: int) -> float:
        return max(0.0, min((step + 1) / warm, 1.0, (1 - step / total) / (1 - stable)))

    return factor


def warm_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Running average of weights that soon forgets where it began, as ``avg_fn`` of torch's AveragedModel.

    The decay of update n is the smaller of ``decay`` and (1 + n) / (10 + n).

    Example:
        >>> average, zero, one = warm_average(0.99), torch.zeros(1), torch.ones(1)
        >>> round(float(average(zero, one, 1)), 2), round(float(average(zero, one, 5000)), 2)
        (0.82, 0.01)
    """

    def averaged(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        n = float(count)
        return average.lerp(current, 1 - min(decay, (1 + n) / (10 + n)))

    return averaged


def _format(weight: Tensor) -> torch.memory_format:
    last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _as_matrix(weight: Tensor) -> Tensor:
    """The same memory as (out, everything else)."""
    if _format(weight) is torch.channels_last:
        weight = weight.permute(0, 2, 3, 1)
    return weight.view(weight.shape[0], -1)
