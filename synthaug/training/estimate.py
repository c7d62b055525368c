"""What a run will take: operations and memory counted on the network's plan, time from a short measurement of the machine.

Code name     Meaning
operations    multiplications and additions of one forward pass of one picture
activations   values that the backward pass needs, of one picture
rate          operations per second in a large matrix product, measured
SHARE         share of that rate which a step reaches

The network is built once more without memory (torch's meta device) and run there, which counts and computes nothing. A step
costs three forward passes' worth where every weight is trained; a LoRA's backward pass needs no gradients of the frozen
weights, which leaves two, and a third where activations are computed again, or a seventh of it where the widest are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from synthaug.training.activations import Checkpointing

__all__ = ["Cost", "cost_of", "rate_of", "seconds_per_step"]

SHARE = {("cuda", True): 0.35, ("cuda", False): 0.5, ("cpu", True): 0.17, ("cpu", False): 0.8}
"""Share of the measured matmul rate that a training step reaches, by device and by whether it computes in halves. The CPU's come
from pocket on two cores with bf16 units, one run each; the cards' are guesses until somebody measures one."""

PROBES, FIRST, PAUSE = 12, 4, 0.02
"""Products that are timed, how many of them at once, and seconds between the others."""

WIDE = 1024
"""Attention maps of so many places or more are never stored: torch's attention computes them piece by piece."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one picture costs in one forward pass."""

    operations: float
    activations: float
    """How many values."""

    weights: int
    """How many values the frozen network has."""


def cost_of(unet: nn.Module, latents: tuple[int, int], tokens: int = 77) -> Cost:
    """Count on a copy of the network that holds no numbers.

    Args:
        unet: With or without LoRA layers; it is not touched.
        latents: Height and width of the latents.
        tokens: Length of the text.
    """
    config: dict[str, Any] = dict(unet.config)  # type: ignore[arg-type]  # diffusers keeps it there
    with torch.device("meta"):
        plan = UNet2DConditionModel.from_config(config)
        z = torch.empty(1, config["in_channels"], *latents)
        width = config["cross_attention_dim"]
        states = torch.empty(1, tokens, width if isinstance(width, int) else width[0])
        more = _conditions(config)
    saved: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        if not isinstance(value, nn.Parameter) and not (value.shape[-1:] == value.shape[-2:-1] and value.shape[-1] >= WIDE):
            saved[id(value.untyped_storage())] = value.untyped_storage().nbytes() // value.element_size()
        return value

    with FlopCounterMode(display=False) as counted, torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        answer = plan(z.requires_grad_(), torch.zeros(1, dtype=torch.int64, device="meta"), states, added_cond_kwargs=more)[0]
    del answer
    return Cost(
        operations=float(counted.get_total_flops()),
        activations=float(sum(saved.values())),
        weights=sum(p.numel() for p in plan.parameters()),
    )


def _conditions(config: dict[str, Any]) -> dict[str, Tensor]:
    """What SDXL is told besides the text; empty for others."""
    if config.get("addition_embed_type") != "text_time":
        return {}
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    return {"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)}


def rate_of(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product, the best of several short ones: a loaded machine is idle now and then."""
    side = 4096 if device.type == "cuda" else 1024
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for probe in range(PROBES):
        if probe > FIRST:  # what runs beside us gets its turn, then we are first again
            time.sleep(PAUSE)
        _wait(device)
        started = time.perf_counter()
        torch.mm(a, b)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return float(2 * side**3 / best)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_step(cost: Cost, *, batch_size: int, rate: float, dtype: torch.dtype, checkpointing: Checkpointing, device: str) -> float:
    """Estimated seconds of one training step.

    Args:
        cost: Of one picture.
        batch_size: Pictures a step.
        rate: As :func:`rate_of` measures it.
        dtype: What it was measured in.
        checkpointing: Which activations are computed again.
        device: ``cuda`` or ``cpu``.

    Example:
        >>> cost = Cost(operations=1e9, activations=0.0, weights=0)
        >>> seconds_per_step(cost, batch_size=8, rate=1e10, dtype=torch.float32, checkpointing=False, device="cpu")
        2.0
    """
    passes = {False: 2.0, "wide": 2.15, True: 3.0}[checkpointing]
    return passes * cost.operations * batch_size / (rate * SHARE[device, dtype != torch.float32])
