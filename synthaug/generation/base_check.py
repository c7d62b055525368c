"""Whether a plan's LoRAs belong to its base, found out before anything is drawn."""

from __future__ import annotations

from synthaug.errors import SettingError
from synthaug.generation.plan import Plan
from synthaug.lora.file import LoraFile
from synthaug.models.load import Base, load_base

__all__ = ["base_fingerprint", "check_base", "check_drawable"]


def check_base(plan: Plan) -> None:
    """Refuse a plan whose LoRAs were made for another base; reads the UNet of the base, and draws nothing.

    Raises:
        WrongBaseModelError: If a LoRA was made for another base.
        UnusableFileError: If the base or a LoRA cannot be read.
        SettingError: If there is no such base, or it cannot be drawn with.
    """
    check_drawable(load_base(plan.base, parts=()))
    base = load_base(plan.base, parts=["unet"])
    for use in plan.loras:
        LoraFile.read(use.path).check_base(base.name, base.fingerprint, base.family)


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


def check_drawable(base: Base) -> None:
    """Refuse a base that the sampler cannot draw with.

    Raises:
        SettingError: If it is SDXL, or fills in.
    """
    if base.family == "sdxl":
        raise SettingError(f"images are drawn with SD 1.x and SD 2.x, {base.name} is SDXL; draw with a base of those families")
    if base.inpaints:
        raise SettingError(f"images are drawn from noise and text alone, {base.name} fills masks in; draw with the base it was made from")
