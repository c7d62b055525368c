"""The base that stays as it is while a LoRA is trained on it: which networks, which schedule, what it predicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from synthaug.diffusion.objective import Target
from synthaug.diffusion.schedule import schedule_of
from synthaug.errors import SettingError
from synthaug.models.load import Base, Part, load_base

__all__ = ["Frozen", "Prediction", "load_frozen", "store_as", "without_lora"]

Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What training needs of a base."""

    unet: UNet2DConditionModel
    encoders: tuple[CLIPTextModel | CLIPTextModelWithProjection, ...]
    """The text encoders, where they are trained."""

    alpha: Tensor
    """Signal scale of every step, (T,)."""

    sigma: Tensor
    """Noise scale of every step, (T,)."""

    kind: Target
    """What the UNet predicts."""

    family: Literal["sd1", "sd2", "sdxl"]
    inpaints: bool
    fingerprint: str
    pixels: int
    """Pixels along one side of a latent's place."""


def load_frozen(name: str, *, with_text: bool, prediction: Prediction | None) -> Frozen:
    """Load the networks that are trained on, and nothing else.

    Args:
        name: As :func:`synthaug.models.load.load_base` takes it.
        with_text: Whether the text encoders are needed.
        prediction: What the user says the base predicts; None believes the base.

    Raises:
        SettingError: If the base predicts something else, or its schedule is not known here.
        UnusableFileError: If it cannot be loaded.
    """
    parts: tuple[Part, ...] = ("unet", "text") if with_text else ("unet",)
    base = load_base(name, parts=parts, prediction=prediction)
    assert base.unet is not None
    alpha, sigma = schedule_of(base.schedule).scales()
    encoders = [base.text_encoder, base.text_encoder_2] if with_text else []
    return Frozen(
        unet=base.unet, encoders=tuple(encoder for encoder in encoders if encoder is not None), alpha=alpha, sigma=sigma,
        kind=_predicts(base, prediction), family=base.family, inpaints=base.inpaints, fingerprint=base.fingerprint,
        pixels=base.size[0] // _side(base),
    )  # fmt: skip


def _side(base: Base) -> int:
    """Height of the latents that the base was trained for; a file that does not say has places of 8 pixels."""
    assert base.unet is not None
    side = base.unet.config["sample_size"]
    return int(side[0] if isinstance(side, list | tuple) else side or base.size[0] // 8)


def _predicts(base: Base, wanted: Prediction | None) -> Target:
    """What the base predicts.

    Raises:
        SettingError: If that is unknown, or not what is wanted.
    """
    known = base.prediction_type
    if known not in get_args(Target):
        raise SettingError(f"a base must predict one of {', '.join(get_args(Target))}, {base.name} predicts {known!r}; take another base")
    if wanted not in (None, known):
        raise SettingError(
            f"a base can only be trained on what it predicts, {base.name} predicts {known}, not {wanted}; leave --model.prediction out, "
            f"or take a base that was trained for {wanted}"
        )
    return cast("Target", known)


def store_as(network: nn.Module, dtype: torch.dtype) -> None:
    """Keep frozen matrices and convolutions in the type that they are computed in anyway, whatever the file had.

    Answers stay the same to the last bit, for half of the memory and no conversion at each step. The LoRA's own layers
    and the rest (norms, embeddings), which autocast computes in fp32, are kept in fp32.
    """
    for path, module in network.named_modules():
        frozen = isinstance(module, nn.Linear | nn.Conv2d) and "lora_" not in path
        for weight in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if weight.is_floating_point():
                weight.data = weight.data.to(dtype if frozen else torch.float32)


@contextmanager
def without_lora(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Let networks answer as they did before there was a LoRA on them, without a second copy of them."""
    layers = [module for network in networks for module in network.modules() if isinstance(module, PeftLoraLayer)]
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)
