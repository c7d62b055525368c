"""Size and place of a LoRA's layers, part by part."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from synthaug.errors import SettingError, require
from synthaug.lora.layers import is_wide, target_paths
from synthaug.lora.naming import NetworkKind

__all__ = ["PARTS", "LoraShape", "PartShape", "Sizes", "sizes_of"]

Sizes = dict[str, tuple[int, float]]
"""Rank and alpha of every layer, by module path."""

PARTS: dict[str, str] = {
    "attention": r"attn[12]\.|self_attn\.",
    "feed_forward": r"\.ff\.|\.mlp\.",
    "projections": r"\.proj_(in|out)$",
    "convolutions": r"resnets\.|samplers\.",
    "down": r"^unet\.down_blocks\.",
    "middle": r"^unet\.mid_block\.",
    "up": r"^unet\.up_blocks\.",
    "text_encoders": r"^text_encoder",
}
"""Name of a part -> pattern on paths such as ``unet.down_blocks.0.attentions.1.proj_in`` or ``text_encoder.encoder.layers.0.mlp.fc1``."""


@dataclass(frozen=True, kw_only=True)
class PartShape:
    """Rank and alpha of one part."""

    rank: int
    """Rank of its layers; 0 leaves the part out."""

    alpha: float | None = None
    """Scale times rank; left out, its layers are scaled as all others are."""

    def __post_init__(self) -> None:
        require({
            "the rank of a part must be 0 or above; 0 leaves it out": (self.rank >= 0, self.rank),
            "the alpha of a part must be above 0": (self.alpha is None or 0 < self.alpha < math.inf, self.alpha),
        })  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LoraShape:
    """Size and place of the low-rank layers."""

    rank: int = 16
    """Rank of every layer; 4 to 32 for twenty photos."""

    alpha: float = 16.0
    """Scale times rank; equal to the rank it leaves the learning rate as it is."""

    targets: str = "transformer"
    """``attention``, ``transformer`` (attention and feed-forward), ``everything``, or a regular expression."""

    dropout: float = 0.0
    """Share of each layer's inputs dropped in training."""

    conv_rank: int | None = None
    """Rank on convolutions larger than 1 x 1, where ``targets`` picks some; ``rank`` when left out."""

    conv_alpha: float | None = None
    """Their alpha; ``alpha`` when left out."""

    dora: bool = False
    """Train a length for every output too (DoRA); slower, and kohya's own scripts cannot read it."""

    parts: dict[str, PartShape] = field(default_factory=dict)
    """Other ranks and alphas for some of the layers: ``attention``, ``feed_forward``, ``projections``, ``convolutions``, ``down``,
    ``middle``, ``up``, ``text_encoders``, or a regular expression on paths such as ``unet.down_blocks.0.attentions``; where several
    match a layer, the last one counts."""

    def __post_init__(self) -> None:
        require({
            "rank must be at least 1; 4 to 32 are usual": (self.rank >= 1, self.rank),
            "alpha must be above 0; equal to the rank is usual": (0 < self.alpha < math.inf, self.alpha),
            "conv_rank must be at least 1": (self.conv_rank is None or self.conv_rank >= 1, self.conv_rank),
            "conv_alpha must be above 0": (self.conv_alpha is None or 0 < self.conv_alpha < math.inf, self.conv_alpha),
            "dropout must be from 0 to below 1": (0 <= self.dropout < 1, self.dropout),
        })  # fmt: skip
        for name in self.parts:
            _pattern(name)

    def size(self, path: str, module: nn.Module) -> tuple[int, float]:
        """Rank and alpha of the layer on a module; the path begins with the network's name."""
        plain = (self.conv_rank or self.rank, self.conv_alpha or self.alpha) if is_wide(module) else (self.rank, self.alpha)
        matching = [part for name, part in self.parts.items() if _pattern(name).search(path)]
        if not matching:
            return plain
        part = matching[-1]
        return part.rank, part.rank * plain[1] / plain[0] if part.alpha is None else part.alpha


def _pattern(part: str) -> re.Pattern[str]:
    try:
        return re.compile(PARTS.get(part, part))
    except re.error as error:
        raise SettingError(
            f"a part of a LoRA must be one of {', '.join(PARTS)}, or a regular expression, {part!r} is neither ({error})"
        ) from error


def sizes_of(networks: Mapping[NetworkKind, nn.Module], shape: LoraShape) -> dict[NetworkKind, Sizes]:
    """Rank and alpha of every layer, by network and module path; parts of rank 0 are not there.

    Raises:
        SettingError: If the targets, or one of the parts, match nothing, or nothing is left.

    Example:
        >>> unet = nn.ModuleDict({"attn1": nn.ModuleDict({"to_q": nn.Linear(4, 4), "to_k": nn.Linear(4, 4)})})
        >>> sizes_of({"unet": unet}, LoraShape(rank=8, alpha=4.0, targets="attention", parts={"to_k": PartShape(rank=2)}))
        {'unet': {'attn1.to_q': (8, 4.0), 'attn1.to_k': (2, 1.0)}}
    """
    picked = {kind: target_paths(network, shape.targets) for kind, network in networks.items()}
    every = [f"{kind}.{path}" for kind, paths in picked.items() for path in paths]
    for name in shape.parts:
        if not any(_pattern(name).search(path) for path in every):
            raise SettingError(
                f"every part of a LoRA must match at least one of its {len(every)} layers, {name!r} matches none (the first is "
                f"{every[0]}); take one of {', '.join(PARTS)} that is trained, or write a regular expression on such paths"
            )
    found: dict[NetworkKind, Sizes] = {}
    for kind, paths in picked.items():
        sizes = {path: shape.size(f"{kind}.{path}", networks[kind].get_submodule(path)) for path in paths}
        found[kind] = {path: size for path, size in sizes.items() if size[0] > 0}
    if not any(found.values()):
        raise SettingError(f"at least one layer must be trained, parts leave out all {len(every)}; give one of them a rank above 0")
    return found
