"""Whether a base, a plan's LoRAs and its words belong together, found out before anything is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from synthaug.errors import SettingError, UnusableFileError
from synthaug.generation.embeddings import read_embedding
from synthaug.lora.file import LoraFile
from synthaug.models.load import Base, load_base

if TYPE_CHECKING:
    from synthaug.generation.plan import Plan

__all__ = ["base_fingerprint", "check_base", "check_filled", "check_finite"]


def check_base(plan: Plan) -> None:
    """Refuse a plan whose LoRAs were made for another base; reads the UNet of the base, and draws nothing.

    Raises:
        WrongBaseModelError: If a LoRA was made for another base.
        UnusableFileError: If the base, a LoRA or an embedding cannot be read.
        SettingError: If there is no such base, or what the plan asks for cannot be drawn with it.
    """
    check_filled(load_base(plan.base, parts=()), masked=plan.mask is not None)
    base = load_base(plan.base, parts=["unet"])
    for use in plan.loras:
        LoraFile.read(use.path).check_base(base.name, base.fingerprint, base.family)
    for path in plan.embeddings:
        read_embedding(path)


def base_fingerprint(plan: Plan) -> str:
    """Fingerprint of the base that a plan is drawn with: what one of its LoRAs was made for, else that of the base, read now.

    A base other than the one a LoRA was made for is refused when it is drawn with, so the file's word is enough.

    Raises:
        UnusableFileError: If the base or a LoRA cannot be read.
        SettingError: If there is no such base.
    """
    for use in plan.loras:
        if made_for := LoraFile.read(use.path).metadata.get("synthaug.base_hash"):
            return made_for
    return load_base(plan.base, parts=["unet"]).fingerprint


def check_filled(base: Base, *, masked: bool) -> None:
    """Refuse to draw with an inpainting base what has no mask.

    Raises:
        SettingError: If the base's UNet is shown a mask, and there is none.
    """
    if base.inpaints and not masked:
        raise SettingError(
            f"{base.name} fills a mask in and draws nothing else, and no mask is given; give image and mask, or draw with the base that it "
            "was made from"
        )


def check_finite(base: Base) -> None:
    """Refuse a base with a weight that is NaN or infinite; one sum for each weight, one look at the device for all.

    Raises:
        UnusableFileError: With the first such weight and how many there are.
    """
    networks: dict[str, nn.Module | None] = {
        "unet": base.unet, "vae": base.vae, "text_encoder": base.text_encoder, "text_encoder_2": base.text_encoder_2,
    }  # fmt: skip
    sums = {
        f"{kind}.{name}": weight.detach().float().sum()
        for kind, network in networks.items() if network is not None for name, weight in network.named_parameters()
    }  # fmt: skip
    finite = torch.isfinite(torch.stack(list(sums.values()))).tolist()
    if bad := [name for name, fine in zip(sums, finite, strict=True) if not fine]:
        raise UnusableFileError(
            f"a base's weights must be finite, {base.name} has NaN or infinity in {bad[0]}"
            f"{f' and {len(bad) - 1} more' if len(bad) > 1 else ''}; download or copy it again"
        )
