"""What can be said about a LoRA file without its base: its layers, its author, the words it was trained with."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping

import torch

from synthaug.lora.family import family_of
from synthaug.lora.layers import LoraLayer
from synthaug.lora.naming import network_of
from synthaug.lora.updates import Decomposed, FullChange, HadamardLayer, KroneckerLayer, TuckerLayer, Update, WithBias

__all__ = ["block_of", "describe", "kind_of", "size_of"]

_KINDS: dict[type, str] = {
    TuckerLayer: "LoCon in Tucker form", HadamardLayer: "LoHa", KroneckerLayer: "LoKr", FullChange: "full change",
}  # fmt: skip

_MAKERS = (
    ("synthaug.version", "", "synthaug"), ("ss_network_module", "lycoris", "LyCORIS with kohya's sd-scripts"),
    ("ss_sd_scripts_commit_hash", "", "kohya's sd-scripts"), ("ot_revision", "", "OneTrainer"), ("ot_branch", "", "OneTrainer"),
    ("ss_network_module", "networks", "kohya's sd-scripts, or a tool that writes as they do"), ("lora_adapter_metadata", "", "diffusers"),
)  # fmt: skip
"""Metadata entry, how its value begins, and the tool that writes it; the first that is there counts."""


def describe(layers: Mapping[str, Update], metadata: Mapping[str, str]) -> dict[str, object]:
    """Everything that a file says of itself, ready for JSON.

    Args:
        layers: Updates by kohya name.
        metadata: Of the file.

    Example:
        >>> layer = LoraLayer(down=torch.ones(2, 3), up=torch.ones(3, 2), alpha=1.0)
        >>> found = describe({"lora_unet_mid_block_attentions_0_proj_in": layer}, {"ss_base_model_version": "sd_v1"})
        >>> found["family"], found["kinds"], found["sizes by block (norm)"]
        ('sd1', {'LoRA': 1}, {'unet mid': 3.0})
    """
    sizes = {name: size_of(update) for name, update in layers.items()}
    blocks: dict[str, float] = defaultdict(float)
    for name, size in sizes.items():
        blocks[block_of(name)] += size**2
    plain = [_direction(update) for update in layers.values()]
    side = metadata.get("synthaug.size")
    return {
        "layers": len(layers),
        "networks": dict(Counter(network_of(name) or "unknown" for name in layers)),
        "kinds": dict(Counter(map(kind_of, layers.values()))),
        "ranks": sorted({update.rank for update in layers.values()}),
        "alphas": sorted({round(float(alpha), 6) for update in plain if (alpha := getattr(update, "alpha", None)) is not None}),
        "zero-effect layers": sum(size == 0 for size in sizes.values()),
        "largest update (norm)": round(max(sizes.values()), 4),
        "sizes by block (norm)": {block: round(blocks[block] ** 0.5, 4) for block in sorted(blocks)},
        "family": family_of(layers, metadata),
        "made by": next((f"{tool} {metadata[key]}" if tool == "synthaug" else tool for key, tool in _maker(metadata)), None),
        "base": metadata.get("synthaug.base") or _said(metadata, "ss_sd_model_name"),
        "caption": metadata.get("synthaug.caption") or _said(metadata, "modelspec.trigger_phrase"),
        "trained words": _tags(metadata.get("ss_tag_frequency", "{}")),
        "size": None if side is None else [int(length) for length in side.split("x")],
        "photos seen": len(json.loads(metadata.get("synthaug.photos", "[]"))),
        "hash": metadata.get("sshs_model_hash", "")[:12],
    }


def kind_of(update: Update) -> str:
    """The kind of an update in the words of its authors.

    Example:
        >>> kind_of(LoraLayer(down=torch.ones(2, 3, 3, 3), up=torch.ones(4, 2, 1, 1), alpha=1.0))
        'LoCon'
    """
    if isinstance(update, Decomposed):
        return f"DoRA on {kind_of(update.direction)}"
    if isinstance(update, WithBias):
        return f"{kind_of(update.weight)} with bias"
    if isinstance(update, LoraLayer):
        return "LoCon" if max(update.shape[2:], default=1) > 1 else "LoRA"
    return _KINDS[type(update)]


def block_of(name: str) -> str:
    """The network and the block that a layer lies in.

    Example:
        >>> block_of("lora_unet_up_blocks_1_attentions_0_proj_in"), block_of("lora_te_text_model_encoder_layers_0_mlp_fc1")
        ('unet up 1', 'text_encoder')
    """
    kind = network_of(name) or "unknown"
    if kind != "unet":
        return kind
    if found := re.search(r"(down|up)_blocks_(\d+)", name):
        return f"unet {found[1]} {found[2]}"
    return "unet mid" if "mid_block" in name else "unet ends"


def size_of(update: Update) -> float:
    """Norm of an update; of a DoRA, of its direction, since its length depends on the base; not finite if a number is not."""
    plain = _direction(update)
    if isinstance(plain, LoraLayer):  # |up down|^2 is the product of the two small squares
        up, down = plain.up.double().flatten(1), plain.down.double().flatten(1)
        square = float(((up.T @ up) * (down @ down.T)).sum())
        return abs(plain.alpha) / plain.rank * math.sqrt(max(square, 0.0))
    return float(plain.change(torch.zeros(plain.shape)).norm())


def _direction(update: Update) -> Update:
    if isinstance(update, WithBias):
        return _direction(update.weight)
    return update.direction if isinstance(update, Decomposed) else update


def _maker(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(key, tool) for key, start, tool in _MAKERS if metadata.get(key, "None").startswith(start) and key in metadata]


def _said(metadata: Mapping[str, str], key: str) -> str | None:
    """The value of an entry; kohya writes ``None`` as a word."""
    value = metadata.get(key)
    return None if value in (None, "None", "") else value


def _tags(text: str, most: int = 12) -> dict[str, int] | str:
    """The tags of all folders that were trained on most often, with their counts."""
    try:
        counts: Counter[str] = Counter()
        for tags in json.loads(text).values():
            counts.update({str(tag).strip(): int(count) for tag, count in tags.items()})
    except (ValueError, AttributeError, TypeError):
        return "ss_tag_frequency is there, but not as kohya writes it"
    return dict(counts.most_common(most))
