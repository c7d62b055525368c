"""What the trainer's precision means for a LoRA: frozen weights in half, trained ones in fp32, gradients scaled or not."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor

from synthaug.errors import SettingError

__all__ = ["PRECISIONS", "computed_in", "gradient_scale", "layout_for"]

PRECISIONS: dict[str, torch.dtype | None] = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
"""What the trainer's precision may be, and the type that its products are computed in; None is that of the weights."""


def computed_in(precision: str) -> torch.dtype | None:
    """Type of the products; None where it is that of the weights.

    Raises:
        SettingError: If the trained weights would not be in fp32.

    Example:
        >>> computed_in("16-mixed")
        torch.float16
    """
    if precision not in PRECISIONS:
        raise SettingError(
            f"trained weights must stay in fp32, --trainer.precision {precision} changes them; choose one of: {', '.join(PRECISIONS)}"
        )
    return PRECISIONS[precision]


def gradient_scale(trainer: Trainer | None, device: torch.device) -> tuple[Tensor, bool]:
    """Factor that keeps small gradients from vanishing, on the device, and whether there is one."""
    one = torch.ones((), device=device)
    plugin = None if trainer is None else trainer.precision_plugin
    if not isinstance(plugin, MixedPrecision) or plugin.scaler is None:
        return one, False
    scaled: Tensor = plugin.scaler.scale(one)
    return scaled, True


def layout_for(device: torch.device, computed: torch.dtype | None) -> torch.memory_format:
    """Order of values that convolutions are fastest in; fp32 on a CPU stays as it was read, where a copy would cost 2 GiB of SD 1.5.

    Example:
        >>> layout_for(torch.device("cpu"), None)
        torch.preserve_format
    """
    return torch.channels_last if device.type == "cuda" or computed is not None else torch.preserve_format
