"""Find the module that answered NaN or infinity, and compute it in fp32 from then on.

Half precision ends at 65504. Where one module's answer goes beyond, autocast turns it into infinity and the loss into NaN;
the same module in fp32 is fine, and so are most others in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synthaug.errors import NumericsError
from synthaug.lora.naming import NetworkKind

__all__ = ["Culprit", "Repair", "compute_in_fp32", "find_culprit", "module_at", "repaired"]

SINGLY = 8
"""How many modules are put right one by one before their whole network is."""


@dataclass(frozen=True, kw_only=True)
class Repair:
    """Something that went wrong in a step and was put right."""

    step: int
    """Optimiser steps that were taken before."""

    where: str
    """Path of the module that is computed in fp32 from then on; ``memory`` where the batch was divided."""

    what: str
    """The sentence that was printed."""


@dataclass(frozen=True, kw_only=True)
class Culprit:
    """The first module, in the order of computation, whose answer is not finite though what it was given is."""

    path: str
    module: nn.Module
    dtype: torch.dtype
    """Type of the answer."""

    sound: bool
    """Whether the module's own weights are finite."""

    def __str__(self) -> str:
        weights = "" if self.sound else ", its weights are not finite"
        return f"{self.path} ({str(self.dtype).removeprefix('torch.')}{weights})"


def find_culprit(networks: Mapping[NetworkKind, nn.Module], compute: Callable[[], object]) -> Culprit | None:
    """Compute something again and watch every module of some networks; None when all answers are finite.

    An operation between modules that goes wrong (a product in attention, a sum) is laid to the module it is in.
    """
    watch = _Watch({module: f"{name}.{path}".rstrip(".") for name, network in networks.items() for path, module in network.named_modules()})
    with watch.watching(), torch.no_grad():
        compute()
    return watch.found


class _Watch:
    """Hooks on modules that keep the first bad answer."""

    def __init__(self, paths: Mapping[nn.Module, str]) -> None:
        self._paths, self._inside = paths, list[nn.Module]()
        self.found: Culprit | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        with ExitStack() as hooks:
            for module in self._paths:
                hooks.callback(module.register_forward_pre_hook(self._enters, with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(lambda module, _, output: self._leaves(module, output)).remove)
            yield

    def _enters(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        given = [args, *(value for name, value in kwargs.items() if "mask" not in name)]  # masks are infinite on purpose
        if self._inside:
            self._look(self._inside[-1], given)
        self._inside.append(module)

    def _leaves(self, module: nn.Module, output: Any) -> None:
        self._inside.pop()
        self._look(module, output)

    def _look(self, module: nn.Module, values: Any) -> None:
        if self.found is not None:
            return
        bad = next((value for value in _tensors(values) if not bool(torch.isfinite(value).all())), None)
        if bad is not None:
            sound = all(bool(torch.isfinite(weight).all()) for weight in module.parameters())
            self.found = Culprit(path=self._paths[module], module=module, dtype=bad.dtype, sound=sound)


def _tensors(values: Any) -> Iterator[Tensor]:
    """Floating tensors in whatever a module takes or gives."""
    if isinstance(values, Tensor):
        if values.is_floating_point():
            yield values
    elif isinstance(values, Mapping):
        yield from _tensors(list(values.values()))
    elif isinstance(values, Sequence) and not isinstance(values, str):
        for value in values:
            yield from _tensors(value)


def compute_in_fp32(module: nn.Module) -> None:
    """Keep a module's weights in fp32 and compute it there, whatever autocast is set to around it."""
    plain = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        device = next((value.device for value in _tensors([args, kwargs])), torch.device("cpu"))
        with torch.autocast(device.type, enabled=False):
            return plain(*map(_float, args), **{name: _float(value) for name, value in kwargs.items()})

    module.float()
    module.forward = forward


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def module_at(networks: Mapping[NetworkKind, nn.Module], where: str) -> nn.Module:
    """The module at a path that begins with its network's name."""
    return nn.ModuleDict({str(kind): network for kind, network in networks.items()}).get_submodule(where)


def repaired(networks: Mapping[NetworkKind, nn.Module], compute: Callable[[], object], *, complaint: str, advice: str) -> list[Culprit]:
    """Compute ever more modules in fp32 until all answers are finite: first the culprits one by one, then whole networks.

    Args:
        networks: By name; their modules are changed in place.
        compute: Runs them.
        complaint: Begin of the message when nothing helps.
        advice: Its end.

    Returns:
        What is computed in fp32 now and was not before, in the order it was found.

    Raises:
        NumericsError: If answers are not finite in fp32 either, or weights are not.
    """
    found: list[Culprit] = []
    while (culprit := find_culprit(networks, compute)) is not None:
        if not culprit.sound or culprit.dtype != torch.float16 or any(culprit.module is known.module for known in found):
            raise NumericsError(f"{complaint}; the first module whose answer is not finite is {found[0] if found else culprit}; {advice}")
        if len(found) >= SINGLY:
            root = culprit.path.split(".", maxsplit=1)[0]
            culprit = Culprit(path=root, module=module_at(networks, root), dtype=culprit.dtype, sound=True)
        compute_in_fp32(culprit.module)
        found.append(culprit)
    return found
