"""Whether a plan's LoRAs belong to its base, found out before anything is drawn."""

from __future__ import annotations

from synthaug.errors import SettingError
from synthaug.generation.plan import Plan
from synthaug.lora.file import LoraFile
from synthaug.models.load import Base, load_base

__all__ = ["check_base", "check_drawable", "check_filled"]


def check_base(plan: Plan) -> None:
    """Refuse a plan whose LoRAs were made for another base; reads the UNet of the base, and draws nothing.

    Raises:
        WrongBaseModelError: If a LoRA was made for another base.
        UnusableFileError: If the base or a LoRA cannot be read.
        SettingError: If there is no such base, or it cannot be drawn with.
    """
    empty = load_base(plan.base, parts=())
    check_drawable(empty)
    check_filled(empty, masked=plan.mask is not None)
    base = load_base(plan.base, parts=["unet"])
    for use in plan.loras:
        LoraFile.read(use.path).check_base(base.name, base.fingerprint, base.family)


def check_drawable(base: Base) -> None:
    """Refuse a base that the sampler cannot draw with.

    Raises:
        SettingError: If it is SDXL.
    """
    if base.family == "sdxl":
        raise SettingError(f"images are drawn with SD 1.x and SD 2.x, {base.name} is SDXL; draw with a base of those families")


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
