"""The base in memory, and the marks by which bases are told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from synthaug.errors import UnusableFileError
from synthaug.models.ldm_names import Family

__all__ = ["Base", "Part", "Prediction", "check_whole", "family_of", "fingerprint", "inpaints", "still"]

Part = Literal["unet", "vae", "text"]
Prediction = Literal["epsilon", "v_prediction"]


@dataclass(kw_only=True)
class Base:
    """A Stable Diffusion checkpoint, or the parts of it that were asked for.

    A part that was not asked for is None; asking for it later means loading again.
    """

    name: str
    """As the user gave it."""

    schedule: dict[str, Any]
    """Configuration of the noise schedule, as diffusers writes it."""

    size: tuple[int, int]
    """Height and width that the base was trained for."""

    family: Family = "sd1"
    """Which text encoders and which UNet it is made of."""

    inpaints: bool = False
    """Whether the UNet is shown a mask and the masked latents besides the noised ones."""

    nothing_is_zeros: bool = False
    """Whether an empty negative prompt is zeros, and not what the encoders say of an empty text; SDXL's are usually drawn so."""

    unet: UNet2DConditionModel | None = None
    vae: AutoencoderKL | None = None
    text_encoder: CLIPTextModel | None = None
    tokenizer: CLIPTokenizer | None = None

    text_encoder_2: CLIPTextModelWithProjection | None = None
    """The second encoder of SDXL."""

    tokenizer_2: CLIPTokenizer | None = None
    """The second tokenizer of SDXL."""

    fingerprint: str = ""
    """Hash of the UNet's weights; "" when the UNet was not loaded."""

    @property
    def prediction_type(self) -> str:
        """``epsilon`` or ``v_prediction``."""
        return str(self.schedule.get("prediction_type", "epsilon"))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Base:
        """Move every part that is there; the base itself is returned."""
        for part in (self.unet, self.vae, self.text_encoder, self.text_encoder_2):
            if part is not None:
                nn.Module.to(part, device=device, dtype=dtype)  # diffusers' own .to() warns of nothing
        return self


def family_of(unet: Mapping[str, Any]) -> Family:
    """The family that a UNet's configuration belongs to.

    Example:
        >>> family_of({"addition_embed_type": "text_time", "use_linear_projection": True})
        'sdxl'
    """
    if unet.get("addition_embed_type") == "text_time":
        return "sdxl"
    return "sd2" if unet.get("use_linear_projection") else "sd1"


def inpaints(unet: Mapping[str, Any], vae: Mapping[str, Any], name: str) -> bool:
    """Whether a UNet takes a mask and masked latents besides the noised ones.

    Raises:
        UnusableFileError: If it takes something else that no Stable Diffusion base of these families takes.
    """
    shown, latent = unet["in_channels"], vae["latent_channels"]
    extra = [key for key in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type") if unet.get(key) is not None]
    if shown not in (latent, 2 * latent + 1) or extra:
        what = f"with {extra[0]}" if extra else f"that is shown {shown} channels"
        raise UnusableFileError(
            f"a base's UNet must be shown {latent} channels, or {2 * latent + 1} if it fills in, and nothing but text; {name} has one "
            f"{what}, as upscalers, depth models and picture editors have; take SD 1.x, SD 2.x or SDXL, or an inpainting model of theirs"
        )
    return bool(shown != latent)


def fingerprint(unet: nn.Module) -> str:
    """Hash that tells one base from another, whatever the file format or precision it came in.

    Up to 256 values of every weight are rounded to fp16 and hashed with its shape; names are left out.
    """
    marks = []
    for weight in unet.parameters():
        flat = weight.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 256)][:256].to("cpu", torch.float16)
        marks.append(hashlib.sha256(str(tuple(weight.shape)).encode() + sample.numpy().tobytes()).hexdigest())
    return hashlib.sha256("".join(sorted(marks)).encode()).hexdigest()


def still(module: Any) -> Any:
    """In evaluation mode and without gradients."""
    return module.eval().requires_grad_(requires_grad=False)


def check_whole(name: str, part: str, missing: Sequence[str], extra: Sequence[str]) -> None:
    """Refuse a network that lacks weights, or has some that nothing is done with.

    Raises:
        UnusableFileError: With counts and the first names.
    """
    said = [f"{what} {len(keys)} ({_some(keys)})" for what, keys in (("lacks", missing), ("knows no place for", extra)) if keys]
    if said:
        raise UnusableFileError(
            f"every weight of a base must be there and have its place, the {part} of {name} {' and '.join(said)}; "
            "it is damaged or of another kind, download or copy it again"
        )


def _some(keys: Sequence[str]) -> str:
    return ", ".join(sorted(keys)[:3]) + (", …" if len(keys) > 3 else "")
