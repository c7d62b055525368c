"""Load a base: ``"pocket"``, a diffusers folder, or a hub id.

Only safetensors are read: a pickle can run anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from synthaug.errors import SettingError, UnusableFileError
from synthaug.pocket import WEIGHTS
from synthaug.pocket.checksums import check_weights

__all__ = ["Base", "Part", "fingerprint", "load_base", "resolve"]

Part = Literal["unet", "vae", "text"]
_FILES: dict[Part, tuple[str, ...]] = {"unet": ("unet",), "vae": ("vae",), "text": ("text_encoder", "tokenizer")}
_FOLDERS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


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

    unet: UNet2DConditionModel | None = None
    vae: AutoencoderKL | None = None
    text_encoder: CLIPTextModel | None = None
    tokenizer: CLIPTokenizer | None = None
    text_encoder_2: Any = None
    tokenizer_2: CLIPTokenizer | None = None
    family: Literal["sd1", "sd2", "sdxl"] = "sd1"
    inpaints: bool = False

    fingerprint: str = ""
    """Hash of the UNet's weights; "" when the UNet was not loaded."""

    @property
    def prediction_type(self) -> str:
        """``epsilon`` or ``v_prediction``."""
        return str(self.schedule.get("prediction_type", "epsilon"))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Base:
        """Move every part that is there; the base itself is returned."""
        for part in (self.unet, self.vae, self.text_encoder):
            if part is not None:
                nn.Module.to(part, device=device, dtype=dtype)  # diffusers' own .to() warns of nothing
        return self


def resolve(name: str) -> str:
    """Turn what the user wrote into a folder or a hub id.

    Raises:
        UnusableFileError: If it is a pickle, one single file, or a folder that lacks something.
    """
    path = Path(name)
    if name == "pocket":
        return str(WEIGHTS)
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin", ".pkl"):
        raise UnusableFileError(
            f"a base must be safetensors, {name} is a pickle, which can run any program when it is read; "
            "save it again as safetensors on a machine you can spare"
        )
    if path.is_file():
        raise UnusableFileError(
            f"a base must be a diffusers folder or a hub id, {name} is a single file; convert it once with diffusers' "
            "StableDiffusionPipeline.from_single_file(...).save_pretrained(FOLDER) and give that folder"
        )
    if path.is_dir() and (missing := [part for part in _FOLDERS if not (path / part).is_dir()]):
        raise UnusableFileError(
            f"a base folder must hold {', '.join(_FOLDERS)}, {name} has no {missing[0]}; check the path, or copy it again"
        )
    return name


def load_base(name: str, *, parts: Collection[Part] = ("unet", "vae", "text")) -> Base:
    """Load a base, or some parts of it, in evaluation mode and without gradients.

    A local folder never needs the network.

    Args:
        name: ``"pocket"``, a diffusers folder, or a hub id such as ``"stable-diffusion-v1-5/stable-diffusion-v1-5"``.
        parts: Which parts to load; training wants them one after the other.

    Returns:
        The base, on the CPU, in the precision of its files.

    Raises:
        UnusableFileError: If it is a pickle, damaged, or not a Stable Diffusion 1.x or 2.x checkpoint.
        SettingError: If nothing of this name can be found.

    Example:
        >>> load_base("pocket", parts=()).prediction_type
        'v_prediction'
    """
    place = resolve(name)
    if name == "pocket":
        check_weights(WEIGHTS, {folder for part in parts for folder in _FILES[part]})
    safe = {"use_safetensors": True}
    transformers_logging.disable_progress_bar()
    try:
        schedule = dict(DDIMScheduler.load_config(place, subfolder="scheduler"))
        config = UNet2DConditionModel.load_config(place, subfolder="unet")
        base = Base(name=name, schedule=schedule, size=_size(config, AutoencoderKL.load_config(place, subfolder="vae")))
        if "unet" in parts:
            base.unet = _still(UNet2DConditionModel.from_pretrained(place, subfolder="unet", **safe))
            base.fingerprint = fingerprint(base.unet)
        if "vae" in parts:
            base.vae = _still(AutoencoderKL.from_pretrained(place, subfolder="vae", **safe))
        if "text" in parts:
            base.text_encoder = _still(CLIPTextModel.from_pretrained(place, subfolder="text_encoder", **safe))
            base.tokenizer = _spelling(CLIPTokenizer.from_pretrained(place, subfolder="tokenizer"))
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        if Path(place).exists():
            raise UnusableFileError(f"the base {name} cannot be loaded: {first}; download or copy it again") from error
        raise SettingError(
            f"no base {name!r} was found here or on the hub ({first}); give 'pocket', a diffusers folder, or a hub id while online"
        ) from error
    finally:
        transformers_logging.enable_progress_bar()
    return base


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


def _spelling(tokenizer: CLIPTokenizer) -> CLIPTokenizer:
    """Refuse a tokenizer without words: transformers makes one where the files are missing."""
    if len(tokenizer) < 256:
        raise ValueError(f"its tokenizer knows {len(tokenizer)} tokens, not even the letters; vocab.json or merges.txt is missing")
    return tokenizer


def _still(module: Any) -> Any:
    return module.eval().requires_grad_(requires_grad=False)


def _size(unet: dict[str, Any], vae: dict[str, Any]) -> tuple[int, int]:
    side = int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    return side, side
