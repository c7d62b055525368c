"""Which family of bases a LoRA was made for, as its layers show, or else as its metadata say."""

from __future__ import annotations

import re
from collections.abc import Mapping

from synthaug.lora.updates import Update

__all__ = ["family_of"]

_STRANGERS = {r"double_blocks|single_blocks|single_transformer_blocks": "flux", r"joint_blocks|transformer_transformer_blocks": "sd3"}
"""Part of a name that only a family has whose LoRAs cannot sit on our bases -> the family."""

_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
"""Width of the text states that attention to the text takes -> family."""

_SAID = (
    ("ss_base_model_version", r"sdxl", "sdxl"), ("ss_base_model_version", r"sd_v2", "sd2"), ("ss_base_model_version", r"sd_v1", "sd1"),
    ("ss_v2", r"True", "sd2"), ("modelspec.architecture", r"stable-diffusion-xl", "sdxl"),
    ("modelspec.architecture", r"stable-diffusion-v2", "sd2"), ("modelspec.architecture", r"stable-diffusion-v1", "sd1"),
)  # fmt: skip
"""Metadata entry, how its value begins, and the family that it means; the first that is there counts."""


def family_of(layers: Mapping[str, Update], metadata: Mapping[str, str]) -> str | None:
    """``sd1``, ``sd2`` or ``sdxl``; ``flux`` or ``sd3`` for files of families that are not drawn with here; None if nothing tells.

    Args:
        layers: Updates by kohya name.
        metadata: Of the file; asked only where names and widths do not tell.

    Example:
        >>> family_of({}, {"ss_base_model_version": "sdxl_base_v1-0"})
        'sdxl'
    """
    strange = (family for name in layers for mark, family in _STRANGERS.items() if re.search(mark, name))
    if found := next(strange, None):
        return found
    if any(name.startswith("lora_te2_") or re.search(r"transformer_blocks_[1-9]", name) for name in layers):
        return "sdxl"
    widths = (update.shape[1] for name, update in layers.items() if re.search(r"lora_unet_.*attn2_to_[kv]$", name))
    if found := _WIDTHS.get(next(widths, 0)):
        return found
    return next((family for key, start, family in _SAID if re.match(start, metadata.get(key, ""))), None)
