"""Put a LoRA on the networks of a base: a new one of some shape, or one to go on from."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from synthaug.errors import SettingError
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import put_on
from synthaug.lora.naming import NetworkKind
from synthaug.training.shape import LoraShape, sizes_of

__all__ = ["put_lora_on"]


def put_lora_on(networks: Mapping[NetworkKind, nn.Module], shape: LoraShape, start: LoraFile | None = None) -> dict[str, nn.Parameter]:
    """Freeze networks and put layers on them.

    Args:
        networks: By kind; they are changed in place.
        shape: Of the layers; networks that ``start`` has none for get them too.
        start: Layers to go on from; they decide ranks, alphas and places on their networks.

    Returns:
        The weights that are trained, by name.

    Raises:
        SettingError: If the shape matches nothing, or layers of ``start`` would be lost.
        UnusableFileError: If ``start`` does not fit.
    """
    sizes = sizes_of(networks, shape)
    if start is not None and "text_encoder" not in networks and any(name.startswith("lora_te") for name in start.layers):
        raise SettingError(
            f"what is not trained on would be lost, {start.name} has layers on the text encoder; give --model.text_learning_rate"
        )
    trained: dict[str, nn.Parameter] = {}
    for kind, network in networks.items():
        found = start.layers_on(network, kind) if start is not None else {}
        network.requires_grad_(requires_grad=False)
        if found or sizes[kind]:
            put_on(
                network, rank=shape.rank, alpha=shape.alpha, dropout=shape.dropout, dora=shape.dora, start=found or None, sizes=sizes[kind]
            )
        trained |= {f"{kind}.{name}": weight for name, weight in network.named_parameters() if weight.requires_grad}
    return trained
