"""Other ways than up @ down to say how a weight changes: LyCORIS' and DoRA's.

Code name    Paper      Meaning
shape                   shape of the weight that is changed, (out, in) or (out, in, h, w)
scale        alpha/r    alpha over the rank; 1 where no factor is low-rank

Hadamard product (LoHa): Hyeon-Woo et al. 2021, https://arxiv.org/abs/2108.06098.
Kronecker product (LoKr) and the Tucker form of all of them: Yeh et al. 2023, https://arxiv.org/abs/2309.14859.
DoRA: Liu et al. 2024, https://arxiv.org/abs/2402.09353. Names of the tensors: LyCORIS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Decomposed", "FullChange", "HadamardLayer", "KroneckerLayer", "TuckerLayer", "Update", "WithBias", "by_parameter", "moved"]


class Update(Protocol):
    """How one weight of a base changes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, rest): the number of outputs, and what is left of the weight, flattened or not."""
        ...

    @property
    def rank(self) -> int:
        """Number of directions of its factors; the smaller side of the weight where there are none."""
        ...

    def change(self, weight: Tensor) -> Tensor:
        """What is added to a weight of the base, fp32, of the weight's shape."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Tensors as kohya and LyCORIS name them, alpha included."""
        ...


@dataclass(frozen=True, kw_only=True)
class TuckerLayer:
    """A convolution's update with the kernel in a small core: up, mid, down."""

    down: Tensor
    """(rank, in, 1, 1)"""

    mid: Tensor
    """(rank, rank, h, w)"""

    up: Tensor
    """(out, rank, 1, 1)"""

    alpha: float
    """Scale times rank."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in, h, w)."""
        return int(self.up.shape[0]), int(self.down.shape[1]), *self.mid.shape[2:]

    @property
    def rank(self) -> int:
        """Number of directions."""
        return int(self.down.shape[0])

    def change(self, weight: Tensor) -> Tensor:
        """Sum over a, b of up[o, a] mid[a, b, h, w] down[b, i], times alpha / rank."""
        core = torch.einsum("oa,abhw,bi->oihw", self.up.float().flatten(1), self.mid.float(), self.down.float().flatten(1))
        return (self.alpha / self.rank) * core.reshape(weight.shape)

    def tensors(self) -> dict[str, Tensor]:
        """``lora_down``, ``lora_mid``, ``lora_up`` and alpha."""
        return {
            "lora_down.weight": self.down, "lora_mid.weight": self.mid, "lora_up.weight": self.up, "alpha": torch.tensor(self.alpha),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HadamardLayer:
    """The product, entry by entry, of two low-rank updates (LoHa)."""

    parts: Mapping[str, Tensor]
    """``hada_w1_a`` (out, rank), ``hada_w1_b`` (rank, in h w), the same for w2; with ``hada_t1`` and ``hada_t2``
    (rank, rank, h, w) w_a is (rank, out) and w_b (rank, in)."""

    alpha: float
    """Scale times rank."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), with the kernel where there is a core, flattened into ``in`` where there is none."""
        a, b = self.parts["hada_w1_a"], self.parts["hada_w1_b"]
        core = self.parts.get("hada_t1")
        return (int(a.shape[0]), int(b.shape[1])) if core is None else (int(a.shape[1]), int(b.shape[1]), *core.shape[2:])

    @property
    def rank(self) -> int:
        """Number of directions of each factor."""
        return int(self.parts["hada_w1_b"].shape[0])

    def change(self, weight: Tensor) -> Tensor:
        """The product w1 * w2, times alpha / rank."""
        one, two = (self._factor(k) for k in (1, 2))
        return (self.alpha / self.rank) * (one * two).reshape(weight.shape)

    def _factor(self, number: int) -> Tensor:
        a, b = self.parts[f"hada_w{number}_a"].float(), self.parts[f"hada_w{number}_b"].float()
        core = self.parts.get(f"hada_t{number}")
        return a @ b if core is None else _tucker(core, a, b)

    def tensors(self) -> dict[str, Tensor]:
        """The parts and alpha."""
        return {**self.parts, "alpha": torch.tensor(self.alpha)}


@dataclass(frozen=True, kw_only=True)
class KroneckerLayer:
    """The Kronecker product of a small and a large factor, each whole or low-rank (LoKr)."""

    parts: Mapping[str, Tensor]
    """``lokr_w1``, or ``lokr_w1_a`` and ``lokr_w1_b``; the same for w2, with ``lokr_t2`` in Tucker form."""

    alpha: float
    """Scale times rank; without effect where both factors are whole."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in) or (out, in, h, w)."""
        one, two = self._factor(1), self._factor(2)
        return one.shape[0] * two.shape[0], one.shape[1] * two.shape[1], *two.shape[2:]

    @property
    def rank(self) -> int:
        """Number of directions of the low-rank factor; the smaller side of the second where both are whole."""
        low = [self.parts[name] for name in ("lokr_w1_b", "lokr_w2_b") if name in self.parts]
        return int(low[-1].shape[0]) if low else min(self.parts["lokr_w2"].shape[:2])

    def change(self, weight: Tensor) -> Tensor:
        """The product w1 (x) w2, times alpha / rank."""
        one, two = self._factor(1), self._factor(2)
        whole = "lokr_w1" in self.parts and "lokr_w2" in self.parts
        product = torch.kron(one.reshape(*one.shape, *[1] * (two.ndim - one.ndim)), two)
        return (1.0 if whole else self.alpha / self.rank) * product.reshape(weight.shape)

    def _factor(self, number: int) -> Tensor:
        if (whole := self.parts.get(f"lokr_w{number}")) is not None:
            return whole.float()
        a, b = self.parts[f"lokr_w{number}_a"].float(), self.parts[f"lokr_w{number}_b"].float()
        core = self.parts.get(f"lokr_t{number}")
        return a @ b.flatten(1) if core is None else _tucker(core, a, b)

    def tensors(self) -> dict[str, Tensor]:
        """The parts and alpha."""
        return {**self.parts, "alpha": torch.tensor(self.alpha)}


@dataclass(frozen=True, kw_only=True)
class FullChange:
    """The whole difference, as it is."""

    diff: Tensor
    """Of the weight's shape; of a norm's, (channels,)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's."""
        return tuple(self.diff.shape)

    @property
    def rank(self) -> int:
        """The smaller side."""
        return min(int(self.diff.shape[0]), math.prod(self.diff.shape[1:]))

    def change(self, weight: Tensor) -> Tensor:
        """The difference."""
        return self.diff.float().reshape(weight.shape)

    def tensors(self) -> dict[str, Tensor]:
        """``diff``; of a norm, ``w_norm``."""
        return {"w_norm" if self.diff.ndim == 1 else "diff": self.diff}


@dataclass(frozen=True, kw_only=True)
class Decomposed:
    """DoRA: another update gives the direction, and every output, or input, has a length of its own."""

    direction: Update
    """The update whose sum with the base's weight is brought to length 1."""

    magnitude: Tensor
    """``dora_scale``: (out, 1) or (out, 1, 1, 1), one length per output; (1, in), one per input."""

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the direction."""
        return self.direction.shape

    @property
    def rank(self) -> int:
        """That of the direction."""
        return self.direction.rank

    def change(self, weight: Tensor) -> Tensor:
        """What leads from W to m (W + D) / |W + D|."""
        base = weight.float()
        moved = base + self.direction.change(weight)
        magnitude = self.magnitude.float()
        if magnitude.ndim == 1:
            magnitude = magnitude[:, None]
        magnitude = magnitude.reshape(*magnitude.shape, *[1] * (base.ndim - magnitude.ndim))
        over = [dim for dim in range(base.ndim) if magnitude.shape[dim] == 1]
        length = torch.linalg.vector_norm(moved, dim=over, keepdim=True)
        turned: Tensor = magnitude * moved / length.clamp_min(torch.finfo(torch.float32).eps)
        return turned - base

    def tensors(self) -> dict[str, Tensor]:
        """Those of the direction and ``dora_scale``."""
        return {**self.direction.tensors(), "dora_scale": self.magnitude}


@dataclass(frozen=True, kw_only=True)
class WithBias:
    """A change of a weight together with one of its module's bias, as full changes and those of norms have."""

    weight: Update
    """Of the weight."""

    bias: Tensor
    """Added to the bias, (out,)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's."""
        return self.weight.shape

    @property
    def rank(self) -> int:
        """The weight's."""
        return self.weight.rank

    def change(self, weight: Tensor) -> Tensor:
        """What is added to the weight."""
        return self.weight.change(weight)

    def tensors(self) -> dict[str, Tensor]:
        """Those of the weight and ``diff_b``; of a norm, ``b_norm``."""
        return {**self.weight.tensors(), "b_norm" if len(self.shape) == 1 else "diff_b": self.bias}


def by_parameter(layers: Mapping[str, Update]) -> dict[str, Update]:
    """Updates of single parameters: a module's name for its weight, with ``.bias`` behind it for its bias.

    Example:
        >>> update = WithBias(weight=FullChange(diff=torch.ones(2, 3)), bias=torch.ones(2))
        >>> {name: part.shape for name, part in by_parameter({"lora_unet_x": update}).items()}
        {'lora_unet_x': (2, 3), 'lora_unet_x.bias': (2,)}
    """
    found: dict[str, Update] = {}
    for name, update in layers.items():
        if isinstance(update, WithBias):
            found |= {name: update.weight, f"{name}.bias": FullChange(diff=update.bias)}
        else:
            found[name] = update
    return found


def moved(update: Any, device: torch.device) -> Any:
    """The same update with its tensors on a device."""
    there: dict[str, Any] = {}
    for part in fields(update):
        value = getattr(update, part.name)
        if isinstance(value, Tensor):
            there[part.name] = value.to(device)
        elif isinstance(value, Mapping):
            there[part.name] = {name: tensor.to(device) for name, tensor in value.items()}
        elif not isinstance(value, float):
            there[part.name] = moved(value, device)
    return replace(update, **there)


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Sum over i, j of core[i, j, h, w] a[i, o] b[j, n], (out, in, h, w)."""
    return torch.einsum("ijhw,io,jn->onhw", core.float(), a, b)
