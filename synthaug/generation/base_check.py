"""Whether a plan's LoRAs belong to its base, found out before anything is drawn."""

from __future__ import annotations

from synthaug.generation.plan import Plan
from synthaug.lora.file import LoraFile
from synthaug.models.load import load_base

__all__ = ["check_base"]


def check_base(plan: Plan) -> None:
    """Refuse a plan whose LoRAs were made for another base; reads the UNet of the base, and draws nothing.

    Raises:
        WrongBaseModelError: If a LoRA was made for another base.
        UnusableFileError: If the base or a LoRA cannot be read.
        SettingError: If there is no such base.
    """
    base = load_base(plan.base, parts=["unet"])
    for use in plan.loras:
        LoraFile.read(use.path).check_base(base.name, base.fingerprint)
