"""How much memory a run will take, part by part, for a card that may not be there.

The real networks run on tensors that hold no numbers, and every storage is counted from its birth to its end, so there is no table of
what a layer takes. What PyTorch's dispatcher does not see comes on top, as the constants below: the driver's context, workspaces of
cuBLAS and cuDNN, and the gaps that CUDA's allocator leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from synthaug.errors import require
from synthaug.models.blueprint import Blueprint, blueprint_of

__all__ = ["CONTEXT", "FRAGMENTS", "MIB", "WORKSPACE", "Device", "Forecast", "checked_size", "forecast_of"]

MIB = 2**20

CONTEXT = 400
"""MiB that the driver keeps for a process that uses PyTorch, kernels included; 250 to 450 by card and driver, not by the run. Not measured
here."""

WORKSPACE = 80
"""MiB that cuBLAS (8, https://docs.nvidia.com/cuda/cublas/#cublassetworkspace) and cuDNN work in. Not measured here."""

FRAGMENTS = 0.03
"""Share of the tensors' memory that CUDA's allocator loses between them. Not measured here."""

Device = Literal["cuda", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """MiB that a run will take at its peak.

    Example:
        >>> forecast = Forecast(kept={"weights": 100.0}, passing={"UNet": 20.0, "decoder": 50.0}, beyond={"context": 400.0})
        >>> forecast.tensors, forecast.peak
        (150.0, 550.0)
    """

    kept: Mapping[str, float]
    """What is there all the time."""

    passing: Mapping[str, float]
    """What is there one after the other, so that the largest counts."""

    beyond: Mapping[str, float] = field(default_factory=dict)
    """What no tensor holds: context, workspaces, gaps, and what another program was said to need."""

    @property
    def tensors(self) -> float:
        """Peak of what tensors hold: what ``torch.cuda.max_memory_allocated`` reports."""
        return sum(self.kept.values()) + max(self.passing.values(), default=0.0)

    @property
    def peak(self) -> float:
        """Peak of everything."""
        return self.tensors + sum(self.beyond.values())

    @property
    def parts(self) -> dict[str, float]:
        """Every part by its name; of those that pass, only the largest is in the peak."""
        return {**self.kept, **self.passing, **self.beyond}


def forecast_of(kept: Mapping[str, int], passing: Mapping[str, int], *, device: Device, beside: float = 0.0) -> Forecast:
    """Bytes of tensors as a forecast, with what comes on top on a card.

    Args:
        kept: Bytes by name.
        passing: Bytes by name.
        device: Constants are a card's.
        beside: MiB of another program, such as the detector that is trained on the same card.
    """
    held, gone = ({name: count / MIB for name, count in some.items()} for some in (kept, passing))
    tensors = sum(held.values()) + max(gone.values(), default=0.0)
    beyond: dict[str, float] = {}
    if device == "cuda":
        beyond = {"driver's context": CONTEXT, "workspaces": WORKSPACE, "gaps between tensors": FRAGMENTS * tensors}
    if beside:
        beyond["beside: the downstream trainer"] = beside
    return Forecast(kept=held, passing=gone, beyond=beyond)


def checked_size(base: str | Blueprint, size: tuple[int, int] | None, batch_size: int, rank: int = 1) -> tuple[Blueprint, tuple[int, int]]:
    """The blueprint and the size in latents, once all numbers have been found to be possible.

    Raises:
        SettingError: If a number is outside its range.
    """
    plan = blueprint_of(base) if isinstance(base, str) else base
    height, width = size or plan.size
    step = plan.factor
    require({
        f"sides must be multiples of {step} pixels": (min(height, width) >= step and height % step == 0 == width % step, (height, width)),
        "batch_size must be at least 1": (batch_size >= 1, batch_size),
        "rank must be at least 1; 4 to 32 are usual": (rank >= 1, rank),
    })  # fmt: skip
    return plan, (height // plan.factor, width // plan.factor)
