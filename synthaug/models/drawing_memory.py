"""The memory of drawing, by asking UNet and decoder once on tensors that hold no numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from synthaug.models.blueprint import Blueprint, fill
from synthaug.models.casting import casting, compute_as_a_card
from synthaug.models.live import LiveStorages
from synthaug.models.memory import Device, Forecast, checked_size, forecast_of
from synthaug.models.numerics import DECODED_AT_A_TIME, Precision, PrecisionName, choose_precision
from synthaug.pixels import to_uint8

__all__ = ["predict_drawing"]

TOKENS = 77
LATENTS = 4
"""Copies of the latents while they are denoised: themselves, their first noise, and what a solver remembers of two steps."""


def predict_drawing(  # noqa: PLR0913  # what decides on memory, each documented below
    base: str | Blueprint,
    *,
    size: tuple[int, int] | None = None,
    batch_size: int = 1,
    precision: PrecisionName | Precision = "fp16",
    guidance: bool = True,
    text_chunks: int = 1,
    decoder: Literal["full", "tiny"] = "full",
    decoded: int | None = None,
    encoders_stay: bool = False,
    device: Device = "cuda",
    beside: float = 0.0,
) -> Forecast:
    """What drawing takes at its peak. LoRAs are fused into the weights and take nothing of their own.

    Args:
        base: ``sd15``, ``sd21``, ``sdxl``, or any base that is here.
        size: Height and width of the pictures; the base's own when left out.
        batch_size: Pictures that are drawn at a time.
        precision: Of all networks; SDXL's own autoencoder is in fp32 where the rest is in fp16.
        guidance: Whether each picture is two rows of the UNet, with the prompt and without.
        text_chunks: Length of the prompts, in chunks of 75 words.
        decoder: The base's own, or a tiny one beside it.
        decoded: Pictures that are decoded at a time; left out, as many as :data:`DECODED_AT_A_TIME` pixels on a card, all on a CPU.
        encoders_stay: Whether text encoders stay in memory when they have read; on a CPU they always do.
        device: ``cpu`` leaves out what only a card needs.
        beside: MiB that another program needs on the same card.

    Raises:
        SettingError: If a number is outside its range, or nothing of the base's name is found.
        UnusableFileError: If the base cannot be read.

    Example:
        >>> small, large = (predict_drawing("pocket", batch_size=count, precision="fp32", device="cpu") for count in (1, 8))
        >>> small.tensors < large.tensors < 4 * small.tensors
        True
    """
    plan, latents = checked_size(base, size, batch_size)
    how = choose_precision(precision, "cpu") if isinstance(precision, str) else precision
    networks = _Networks(plan, how, decoder, device)
    pixels = latents[0] * latents[1] * plan.factor**2
    at_once = min(batch_size, decoded or (max(1, DECODED_AT_A_TIME // pixels) if device == "cuda" else batch_size))
    each = 2 if guidance else 1
    kept: dict[str, int] = {}
    passing: dict[str, int] = {}
    with FakeTensorMode(), LiveStorages() as watch, torch.inference_mode():

        def taken(name: str, made: Any) -> Any:
            kept[name] = watch.live - sum(kept.values())
            return made

        taken("UNet", fill(networks.unet, lambda *_: how.storage))
        taken("autoencoder", [fill(each, lambda *_: networks.decoded_in) for each in networks.autoencoders])
        stay = encoders_stay or device == "cpu"
        if stay:
            taken("text encoders", networks.fill_texts())
        else:
            passing["text encoders, on call"] = _peak(watch, networks.read_and_drop)
        given = _given(plan, latents, batch_size * each, text_chunks, how.storage)
        rest = taken("latents and words", [torch.zeros(batch_size, plan.channels, *latents) for _ in range(LATENTS)])
        passing["UNet's call"] = _peak(watch, lambda: networks.predict(given))
        passing["decoding"] = _peak(watch, lambda: networks.decode(at_once, latents))
        if stay:
            passing["reading a text"] = _peak(watch, lambda: networks.read(networks.texts))
        del rest
    return forecast_of(kept, passing, device=device, beside=beside)


def _given(plan: Blueprint, latents: tuple[int, int], rows: int, chunks: int, dtype: torch.dtype) -> dict[str, Any]:
    """What the UNet is told."""
    return {
        "sample": torch.zeros(rows, plan.shown, *latents),
        "timestep": torch.zeros(rows, dtype=torch.int64),
        "encoder_hidden_states": torch.zeros(rows, TOKENS * chunks, plan.width, dtype=dtype),
        "added_cond_kwargs": {name: value.to(dtype) if name == "text_embeds" else value for name, value in plan.more(rows).items()},
    }


def _peak(watch: LiveStorages, call: Callable[[], object]) -> int:
    """Bytes that a call takes above what is there; its answer is dropped."""
    watch.restart()
    before = watch.live
    call()
    return watch.peak - before


class _Networks:
    """Networks on the meta device, and what drawing asks of them."""

    def __init__(self, plan: Blueprint, precision: Precision, decoder: Literal["full", "tiny"], device: Device) -> None:
        self.plan, self.precision = plan, precision
        self.unet: Any = plan.build_unet().eval()
        self.vae: Any = plan.build_vae().eval()
        self.autoencoders: list[Any] = [self.vae]
        if decoder == "tiny":
            with torch.device("meta"):
                self.autoencoders.append(AutoencoderTiny(latent_channels=plan.channels).eval())
        self.texts: list[Any] = [text.eval() for text in plan.build_texts()]
        upcast = plan.family == "sdxl" and precision.storage == torch.float16 and plan.vae.get("force_upcast")
        self.decoded_in = torch.float32 if upcast else precision.storage
        if device == "cuda":
            compute_as_a_card(self.unet, precision)
        if device == "cuda" and precision.autocast == torch.float32:  # decoding is not under autocast
            for autoencoder in self.autoencoders:
                compute_as_a_card(autoencoder, precision)

    def fill_texts(self) -> list[Any]:
        for text in self.texts:
            fill(text, lambda *_: self.precision.storage)
        return self.texts

    def read(self, texts: list[Any]) -> None:
        """One text, by every encoder: :mod:`synthaug.prompts.read`."""
        for text in texts:
            text(torch.zeros(1, TOKENS, dtype=torch.int64), output_hidden_states=True)

    def read_and_drop(self) -> None:
        """Have text encoders come for a text and leave."""
        self.read(self.fill_texts())
        self.texts.clear()

    def predict(self, given: dict[str, Any]) -> Tensor:
        """:meth:`synthaug.generation.networks.Networks.predict`."""
        shown = {**given, "sample": given["sample"].to(self.precision.storage)}
        with casting(self.precision):
            answer: Tensor = self.unet(**shown, return_dict=False)[0]
        return answer.float()

    def decode(self, count: int, latents: tuple[int, int]) -> Tensor:
        """:func:`synthaug.models.numerics.decode_latents`, and pixels."""
        decoder = self.autoencoders[-1]
        z = torch.zeros(count, self.plan.channels, *latents)
        return to_uint8(decoder.decode((z / 1.0).to(self.decoded_in)).sample.float())
