"""A base on one device, as drawing sees it: latents in, the UNet's answer out; pixels in, latents out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synthaug.errors import SettingError
from synthaug.generation.base_check import check_finite
from synthaug.models.casting import HALVES, compute_as_a_card
from synthaug.models.load import Base, Prediction, load_base
from synthaug.models.numerics import Precision, PrecisionName, choose_precision
from synthaug.prompts.encode import TextStates, text_states_of

__all__ = ["Networks", "Told", "device_of"]


@dataclass(frozen=True)
class Told:
    """What a row of the UNet is told besides its latents."""

    states: Tensor
    """Text states, (N, tokens, width)."""

    pooled: Tensor | None = None
    """SDXL's vector for the whole text, (N, P)."""

    places: Tensor | None = None
    """SDXL's sizes and crop, (N, 6)."""


class Networks:
    """Loads a base and asks its networks.

    Args:
        name: ``"pocket"``, a diffusers folder, a hub id, or one ``.safetensors`` file.
        device: Where they run.
        precision: ``"auto"`` looks at the card.
        prediction: What the UNet predicts, for files that do not say; None believes the base.

    Raises:
        SettingError: If there is no such base.
        UnusableFileError: If it cannot be read, or a weight of it is NaN.
    """

    def __init__(
        self, name: str, *, device: torch.device, precision: PrecisionName = "auto", prediction: Prediction | None = None
    ) -> None:  # fmt: skip
        self.device = device
        self.precision: Precision = choose_precision(precision, device)
        self.base: Base = load_base(name, prediction=prediction).to(device, self.precision.storage)
        check_finite(self.base)
        assert self.base.unet is not None
        assert self.base.vae is not None
        self.unet, self.vae = self.base.unet, self.base.vae
        if self.base.family == "sdxl" and self.precision.storage == torch.float16 and self.vae.config["force_upcast"]:
            self.vae.to(torch.float32)  # SDXL's own autoencoder overflows in half precision, and says so
        if self.precision.autocast == torch.float32 and self.precision.storage in HALVES:
            for network in (self.unet, self.vae, self.base.text_encoder, self.base.text_encoder_2):
                if network is not None:
                    compute_as_a_card(network, self.precision)  # Pascal computes halves slowly or wrongly: widened layer by layer
        self.texts: TextStates = text_states_of(self.base)

    @property
    def factor(self) -> int:
        """Pixels along the side of one place of the latent."""
        return int(2 ** (len(self.vae.config["block_out_channels"]) - 1))

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Channels, height and width of the latent of a picture."""
        return int(self.vae.config["latent_channels"]), size[0] // self.factor, size[1] // self.factor

    def predict(
        self,
        z: Tensor,
        t: Tensor,
        told: Told,
        residuals: tuple[list[Tensor], Tensor] | None = None,
        through: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """The UNet's answer in fp32, (N, C, h, w).

        Args:
            z: What it is shown, (N, C or 2 C + 1, h, w).
            t: Time steps, (N,).
            told: Of the same N.
            residuals: What networks that steer add to the skip connections, and to the middle.
            through: Asks the UNet instead of asking it outright, as DeepCache does.
        """
        more: dict[str, Any] = {}
        if told.pooled is not None:
            more["added_cond_kwargs"] = {"text_embeds": told.pooled.to(self.unet.dtype), "time_ids": told.places}
        if residuals is not None:
            more |= {"down_block_additional_residuals": residuals[0], "mid_block_additional_residual": residuals[1]}
        shown, states = z.to(self.unet.dtype), told.states.to(self.unet.dtype)
        with self.casting():
            answer = through(shown, t, states, **more) if through else self.unet(shown, t, states, return_dict=False, **more)[0]
        return answer.float()

    def casting(self) -> AbstractContextManager[Any]:
        """Within it, networks compute in the precision that was chosen."""
        dtype = self.precision.autocast
        return torch.autocast(self.device.type, dtype) if dtype in (torch.float16, torch.bfloat16) else nullcontext()

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of pictures, the mean of what the encoder says: float (N, 3, H, W) in [-1, 1] to (N, C, h, w) in fp32.

        Each picture by itself, so that nothing depends on its neighbours.
        """
        found = [self.vae.encode(picture[None].to(self.device, self.vae.dtype)).latent_dist.mean for picture in pixels]
        return torch.cat(found).float() * float(self.vae.config["scaling_factor"])


def device_of(name: str) -> torch.device:
    """The device of this name; ``"auto"`` is a GPU if there is one.

    Raises:
        SettingError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
    except RuntimeError:
        raise SettingError(f"unknown device {name!r}; give auto, cpu, cuda or cuda:1") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise SettingError(f"there is no device {name!r}, PyTorch sees {torch.cuda.device_count()} GPUs; give --device cpu or auto")
    return found
