"""LoRA files and whole bases: a LoRA baked into a base, the base written, two bases compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from diffusers import (
    DDIMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from torch import nn

from synthaug.errors import OutputError, SettingError
from synthaug.lora.algebra import extract
from synthaug.lora.file import LoraFile
from synthaug.lora.naming import NetworkKind
from synthaug.models.base import Base, fingerprint
from synthaug.models.ldm import write_ldm

__all__ = ["bake", "extracted", "networks_of", "write_base"]

_WHOLE = ("unet", "vae", "text_encoder", "tokenizer")


def networks_of(base: Base) -> dict[NetworkKind, nn.Module]:
    """The networks of a base that a LoRA can sit on, as far as they were loaded."""
    every: dict[NetworkKind, nn.Module | None] = {
        "unet": base.unet, "text_encoder": base.text_encoder, "text_encoder_2": base.text_encoder_2
    }  # fmt: skip
    return {kind: network for kind, network in every.items() if network is not None}


def bake(file: LoraFile, base: Base, weight: float = 1.0) -> Base:
    """Add a LoRA to the weights of a base for good, computed in fp32; any kind of update, DoRA included.

    Args:
        file: The LoRA.
        base: A base of its own, with every network that the LoRA has layers on; its weights are changed in place.
        weight: Strength; 1 is as trained.

    Returns:
        The same base, with the fingerprint of its new weights.

    Raises:
        UnusableFileError: If a layer has no module in the base, or another shape.
        WrongBaseModelError: If the LoRA was made for another base.

    Example:
        >>> from synthaug.models.load import load_base
        >>> base = load_base("pocket")
        >>> lora = LoraFile.read("iriko.safetensors")       # doctest: +SKIP
        >>> write_base(bake(lora, base), Path("iriko"))     # doctest: +SKIP
    """
    if base.fingerprint:
        file.check_base(base.name, base.fingerprint, base.family)
    file.fuse_into(networks_of(base), weight)
    if base.unet is not None:
        base.fingerprint = fingerprint(base.unet)
    base.name = f"{base.name} with {file.name}"
    return base


def write_base(base: Base, path: Path) -> None:
    """Write a base as a diffusers folder, or as one file in LDM layout when the path ends in ``.safetensors``.

    Raises:
        SettingError: If a part of the base was not loaded, or the folder is already there.
        OutputError: If it cannot be written.
    """
    whole = (*_WHOLE, *(("text_encoder_2", "tokenizer_2") if base.family == "sdxl" else ()))
    if missing := [part for part in whole if getattr(base, part) is None]:
        raise SettingError(f"a base is written whole, {base.name} was loaded without its {missing[0]}; load every part")
    if path.suffix == ".safetensors":
        write_ldm(base, path)
        return
    if path.exists():
        raise SettingError(f"a base is written to a new folder, {path} is already there; choose another name")
    parts: dict[str, Any] = {name: getattr(base, name) for name in whole}
    parts["scheduler"] = DDIMScheduler.from_config(base.schedule)
    if base.family == "sdxl":
        pipe = (StableDiffusionXLInpaintPipeline if base.inpaints else StableDiffusionXLPipeline)(**parts, add_watermarker=False)
    else:
        kind = StableDiffusionInpaintPipeline if base.inpaints else StableDiffusionPipeline
        pipe = kind(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    part = path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a run that was cut short
        pipe.save_pretrained(part)
        part.replace(path)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(f"{path} could not be written ({error.strerror}); free some space or choose another folder") from error


def extracted(base: Base, tuned: Base, *, rank: int, conv_rank: int | None = None) -> LoraFile:
    """The LoRA that leads from one base to another, text encoders and convolutions included.

    Args:
        base: The base to start from; the file says that it is for this one.
        tuned: The base to arrive at.
        rank: Largest rank of every layer.
        conv_rank: Largest rank on convolutions larger than 1 x 1; ``rank`` when left out.

    Raises:
        SettingError: If the bases differ in shape, or do not differ at all.
    """
    file = extract(networks_of(base), networks_of(tuned), rank=rank, conv_rank=conv_rank)
    size = "x".join(map(str, base.size))
    facts = {"synthaug.base": base.name, "synthaug.base_hash": base.fingerprint, "synthaug.size": size}
    return LoraFile(layers=file.layers, metadata={**file.metadata, **facts}, name=f"{base.name} to {tuned.name}")
