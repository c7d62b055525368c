"""Noise of one image: from the CPU's generator, from the device's own, or as an NVIDIA card would draw it, computed anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from synthaug.diffusion.philox import normals
from synthaug.diffusion.slerp import slerp
from synthaug.errors import SettingError
from synthaug.records import Request

__all__ = ["PhiloxGenerator", "drawing_from", "drawn", "generator_of", "starting_noise"]


class PhiloxGenerator(torch.Generator):
    """Stands where a generator is asked for, and draws what CUDA's would draw after this seed.

    PyTorch itself would draw the CPU's numbers from it: draw with :func:`drawn`, or within :func:`drawing_from`.
    """

    def __new__(cls, seed: int) -> Self:  # noqa: ARG004  # PyTorch would take it for the number of a GPU
        """A generator on the CPU."""
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]  # PyTorch's stubs know of __init__ alone

    def __init__(self, seed: int) -> None:
        self._seed, self._calls = seed, 0

    def normals(self, shape: Sequence[int]) -> Tensor:
        """The next noise, fp32 of the shape."""
        self._calls += 1
        return normals(self._seed, self._calls - 1, torch.Size(shape).numel()).reshape(*shape)


class _Redirected(TorchFunctionMode):
    """``torch.randn`` asks a :class:`PhiloxGenerator` itself."""

    @override
    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        source = kwargs.get("generator")
        if func is not torch.randn or not isinstance(source, PhiloxGenerator):
            return func(*args, **kwargs)
        shape = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
        return source.normals(shape).to(device=kwargs.get("device"), dtype=kwargs.get("dtype"))


def generator_of(seed: int, source: str, device: torch.device) -> torch.Generator:
    """Where the noise of one image comes from.

    Args:
        seed: 0 to 2**63 - 1.
        source: ``CPU``, ``GPU`` or ``NV``.
        device: Where images are drawn.

    Raises:
        SettingError: If noise is to come from a GPU and there is none at work.

    Example:
        >>> drawn((3,), generator_of(0, "NV", torch.device("cpu")))
        tensor([-0.9247, -0.4253, -2.6438])
    """
    if source == "NV":
        return PhiloxGenerator(seed)
    if source == "GPU" and device.type == "cpu":
        raise SettingError(
            f"noise GPU is drawn by a GPU, and images are drawn on {device}; take noise NV, which computes an NVIDIA card's noise on "
            "any machine, or CPU"
        )
    return torch.Generator(device if source == "GPU" else "cpu").manual_seed(seed)


def drawn(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """The generator's next noise, fp32 of the shape, on the CPU."""
    if isinstance(generator, PhiloxGenerator):
        return generator.normals(shape)
    return torch.randn(tuple(shape), generator=generator, device=generator.device).cpu()


def drawing_from(generators: Sequence[torch.Generator]) -> AbstractContextManager[Any]:
    """Within it, ``torch.randn`` draws from these generators what :func:`drawn` does."""
    return _Redirected() if any(isinstance(generator, PhiloxGenerator) for generator in generators) else nullcontext()


def starting_noise(request: Request, shape: Sequence[int], device: torch.device) -> tuple[Tensor, torch.Generator]:
    """Noise that an image begins with, fp32 of the shape (C, h, w), and the generator that goes on drawing for it.

    With a variation, the noise is turned towards that of the other seed; what is drawn later is not.

    Raises:
        SettingError: If noise is to come from a GPU and there is none at work.
    """
    generator = generator_of(request.seed, request.noise, device)
    noise = drawn(shape, generator)
    if request.variation_strength > 0:
        other = drawn(shape, generator_of(request.variation_seed, request.noise, device))
        noise = slerp(noise, other, request.variation_strength)
    return noise, generator
