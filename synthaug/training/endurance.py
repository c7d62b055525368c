"""Get the gradient of a step although memory is short, or half precision too narrow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from synthaug.errors import NumericsError, SettingError
from synthaug.lora.naming import NetworkKind
from synthaug.training.gradient import gradient_of, is_finite
from synthaug.training.memory import free_caches, is_out_of_memory
from synthaug.training.repairs import Repair, compute_in_fp32, module_at, repaired
from synthaug.training.rows import Rows

__all__ = ["Endurance", "Task"]

MEMORY = "memory"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One step's work, and what messages say about it."""

    losses: Callable[[Rows], Tensor]
    """The loss of each row, (B,)."""

    networks: Mapping[NetworkKind, nn.Module]
    """What computes it, by name."""

    weights: Sequence[nn.Parameter]
    """What is trained."""

    scale: Tensor
    """Factor on the gradient, a scalar."""

    scaled: bool
    """Whether a gradient that is not finite is dealt with later, by the scaler of half precision."""

    step: int
    learning_rate: float
    pixels: int
    """Pixels along one side of a latent's place."""

    settings: str
    """Precision and checkpointing, in words."""


@dataclass(kw_only=True)
class Endurance:
    """What was learned about memory and precision in earlier steps, and the way to learn more."""

    micro_batches: int = 1
    """Parts that a batch is computed in."""

    repairs: list[Repair] = field(default_factory=list)
    """What was put right, in order."""

    def gradient(self, rows: Rows, task: Task) -> tuple[Tensor, list[Tensor]]:
        """Mean loss of the rows and its gradient times the task's scale, from the same noise however often it is tried.

        Raises:
            SettingError: If a single row takes more memory than there is.
            NumericsError: If loss or gradient are not finite and fp32 does not help.
        """
        while True:
            try:
                value, gradient = gradient_of(task.losses, rows.parts(self.micro_batches), task.weights, task.scale)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error).splitlines()[0].rstrip(".")
            else:
                if is_finite(value, () if task.scaled else gradient):
                    return value, gradient
                self._raise_precision(rows, task, value)
                continue
            self._divide(rows, task, failure)  # only here are the failed part's tensors gone

    def losses(self, rows: Rows, task: Task) -> Tensor:
        """The loss of each row (B,), to measure and not to learn from.

        Raises:
            SettingError: If a single row takes more memory than there is.
        """
        while True:
            try:
                return torch.cat([task.losses(part) for part in rows.parts(self.micro_batches)])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error).splitlines()[0].rstrip(".")
            self._divide(rows, task, failure)

    def _divide(self, rows: Rows, task: Task, failure: str) -> None:
        height, width = (side * task.pixels for side in rows.x.shape[-2:])
        count, before = len(rows), -(-len(rows) // self.micro_batches)
        if self.micro_batches >= count:
            raise SettingError(
                f"a single photo must fit into memory, one of {height} x {width} pixels does not at step {task.step} (batch of {count} in "
                f"{self.micro_batches} parts, {task.settings}): {failure}; use --model.gradient_checkpointing true, a smaller --data.size, "
                "or --trainer.precision bf16-mixed or 16-mixed"
            )
        self.micro_batches = min(count, 2 * self.micro_batches)
        free_caches()
        what = f"memory does not hold {before} photos of {height} x {width} at once ({task.settings})"
        self._note(task, MEMORY, f"{what}; from here on a batch of {count} is computed in {self.micro_batches} parts, to the same result")

    def _raise_precision(self, rows: Rows, task: Task, value: Tensor) -> None:
        complaint = f"the loss must be a number, it is {value.item()} at step {task.step}"
        if bool(torch.isfinite(value)):
            complaint = f"the gradient must be finite, at step {task.step} it is not"
        advice = f"use --trainer.precision 32-true, or a learning rate below {task.learning_rate:g}"
        _check_given(rows, complaint)
        found = repaired(
            task.networks, lambda: [task.losses(part) for part in rows.parts(self.micro_batches)], complaint=complaint, advice=advice
        )
        if not found:
            raise NumericsError(f"{complaint}; {advice}")
        for culprit in found:
            self._note(task, culprit.path, f"{culprit} answered more than half precision holds; it is computed in float32 from here on")

    def _note(self, task: Task, where: str, what: str) -> None:
        self.repairs.append(Repair(step=task.step, where=where, what=f"step {task.step}: {what}"))
        print(self.repairs[-1].what, flush=True)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"micro_batches": self.micro_batches, "repairs": [asdict(repair) for repair in self.repairs]}

    def restore(self, state: Mapping[str, Any], networks: Mapping[NetworkKind, nn.Module]) -> None:
        """Go on as before: divide batches and compute modules in fp32 from the first step on."""
        self.micro_batches, self.repairs = int(state["micro_batches"]), [Repair(**repair) for repair in state["repairs"]]
        for repair in self.repairs:
            if repair.where != MEMORY:
                compute_in_fp32(module_at(networks, repair.where))


def _check_given(rows: Rows, complaint: str) -> None:
    """Tell a bad batch from a bad network.

    Raises:
        NumericsError: If what the network is given is not finite.
    """
    for name, value in {"mean": rows.x, **rows.given}.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise NumericsError(f"{complaint}; the batch's own {name!r} are not finite, encode the photos again, with the encoders in fp32")
