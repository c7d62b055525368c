"""The memory of a training step of a LoRA, by running one on tensors that hold no numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import AdamW

from synthaug.lora.layers import put_on
from synthaug.models.blueprint import Blueprint, fill
from synthaug.models.casting import HALVES, casting, compute_as_a_card
from synthaug.models.live import LiveStorages
from synthaug.models.memory import Device, Forecast, checked_size, forecast_of
from synthaug.models.numerics import Precision, PrecisionName, choose_precision

__all__ = ["predict_training"]

TOKENS = 77
Prepare = Callable[[UNet2DConditionModel], None]


def predict_training(  # noqa: PLR0913  # what decides on memory, each documented below
    base: str | Blueprint,
    *,
    size: tuple[int, int] | None = None,
    batch_size: int = 1,
    precision: PrecisionName | Precision = "fp16",
    checkpointing: bool = True,
    rank: int = 16,
    targets: str = "transformer",
    text_chunks: int = 1,
    device: Device = "cuda",
    prepare: Prepare | None = None,
    beside: float = 0.0,
) -> Forecast:
    """What training a LoRA takes at its peak, in the second step or any later one.

    Latents and text states are encoded beforehand, as ``synthaug fit`` does, so that no encoder is in memory.

    Args:
        base: ``sd15``, ``sd21``, ``sdxl``, or any base that is here.
        size: Height and width of the pictures; the base's own when left out.
        batch_size: Pictures that are computed at a time.
        precision: ``fp16`` and ``bf16`` keep the frozen weights in halves and compute so, the LoRA stays in fp32; ``auto`` is a CPU's.
        checkpointing: Whether activations are computed again in the backward pass.
        rank: Of every layer.
        targets: Where layers are put, see :func:`synthaug.lora.layers.target_paths`.
        text_chunks: Length of the captions, in chunks of 75 words.
        device: ``cpu`` leaves out what only a card needs.
        prepare: What is done to the network before it runs, as training does to keep less for the backward pass.
        beside: MiB that another program needs on the same card.

    Raises:
        SettingError: If a number is outside its range, or nothing of the base's name is found.
        UnusableFileError: If the base cannot be read.

    Example:
        >>> forecast = predict_training("pocket", batch_size=2, precision="fp32", device="cpu")
        >>> 40 < forecast.tensors < 80
        True
    """
    plan, latents = checked_size(base, size, batch_size, rank)
    how = choose_precision(precision, "cpu") if isinstance(precision, str) else precision
    unet = plan.build_unet().eval().requires_grad_(requires_grad=False)
    put_on(unet, rank=rank, alpha=float(rank), targets=targets)
    if prepare is not None:
        prepare(unet)
    if device == "cuda":
        compute_as_a_card(unet, how)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    kept: dict[str, int] = {}
    passing: dict[str, int] = {}
    with FakeTensorMode(), LiveStorages() as watch:
        stored = how.autocast if how.autocast in HALVES else torch.float32
        fill(unet, lambda path, module: stored if _is_product(path, module) else torch.float32)
        trained = [weight for weight in unet.parameters() if weight.requires_grad]
        kept["LoRA"] = sum(weight.untyped_storage().nbytes() for weight in trained)
        kept["frozen weights"] = watch.live - kept["LoRA"]
        optimizer = _optimizer(trained, device)
        kept["optimiser"] = watch.live - sum(kept.values())
        batch = _Batch(plan, latents, batch_size, text_chunks)
        kept["batch"] = watch.live - sum(kept.values())
        watch.restart()
        gradient = _gradient(unet, batch, trained, how)
        passing["activations and gradients"] = watch.peak - sum(kept.values())
        for weight, own in zip(trained, gradient, strict=True):
            weight.grad = own
        del gradient
        watch.restart()
        optimizer.step()
        passing["optimiser's step"] = watch.peak - sum(kept.values())
    return forecast_of(kept, passing, device=device, beside=beside)


def _optimizer(trained: list[nn.Parameter], device: Device) -> AdamW:
    """The usual optimiser after its first step, when its moments are there; on a card it goes through all weights at once."""
    optimizer = AdamW(trained, weight_decay=0.01, foreach=device == "cuda")
    for weight in trained:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


class _Batch:
    """What a step is given, of noise and words."""

    def __init__(self, plan: Blueprint, latents: tuple[int, int], count: int, chunks: int) -> None:
        self.mean, self.std, self.x, self.eps = (torch.zeros(count, plan.channels, *latents) for _ in range(4))
        self.states = torch.zeros(count, TOKENS * chunks, plan.width)
        self.shown = torch.zeros(count, plan.shown - plan.channels, *latents) if plan.shown > plan.channels else None
        self.t = torch.zeros(count, dtype=torch.int64)
        self.more = plan.more(count)

    def given(self) -> dict[str, Any]:
        """What the UNet is told."""
        target = self.x + self.eps
        z = target if self.shown is None else torch.cat([target, self.shown], 1)
        return {"sample": z, "timestep": self.t, "encoder_hidden_states": self.states, "added_cond_kwargs": self.more}


def _gradient(unet: UNet2DConditionModel, batch: _Batch, trained: list[nn.Parameter], precision: Precision) -> list[Tensor]:
    """The gradient of the loss, as training computes it: :mod:`synthaug.training.gradient`."""
    scale = torch.ones(len(batch.x), 1, 1, 1)
    with casting(precision):
        target = scale * batch.eps
        answer = unet(**batch.given(), return_dict=False)[0].float()
        loss = (answer - target).square().flatten(1).mean(1).sum()
        with torch.autocast("cpu", enabled=False):
            return list(torch.autograd.grad(loss, trained))


def _is_product(path: str, module: nn.Module) -> bool:
    """Whether a module's frozen weights are kept in the type that products are computed in."""
    return isinstance(module, nn.Linear | nn.Conv2d) and "lora_" not in path
