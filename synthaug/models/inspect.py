"""``synthaug inspect``: what a LoRA file says about itself, and how it fits a base."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from math import prod
from pathlib import Path

import torch
from torch import nn

from synthaug.lora.file import LoraFile
from synthaug.models.bake import networks_of
from synthaug.models.load import Base, load_base

__all__ = ["fit_on", "inspect"]


def inspect(*, file: Path, all: bool = False, base: str | None = None, json: bool = False) -> None:  # noqa: A002  # the option reads --all
    """Print what is in a LoRA file of any tool: its layers, who made it, which bases it is for, the words it was trained with.

    Args:
        file: The LoRA file, or the folder that PEFT wrote.
        all: Print every metadata entry too.
        base: Compare it with this base too: layers without a module there, of another shape, and how much they change.
        json: Print JSON.
    """
    lora = LoraFile.read(file)
    rows: dict[str, object] = lora.summary()
    if base is not None:
        rows["on the base"] = fit_on(lora, load_base(base, parts=("unet", "text")))
    if all:
        rows["metadata"] = dict(sorted(lora.metadata.items()))
    print(dumps(rows, indent=2, ensure_ascii=False) if json else "\n".join(_lines(rows)))


@torch.no_grad()
def fit_on(lora: LoraFile, base: Base) -> dict[str, object]:
    """How a LoRA fits a base.

    Args:
        lora: Any file.
        base: With the networks to compare with.

    Returns:
        Numbers of layers that match, lack a module or have another shape, the first names of those; whether the file was made
        for this very base (None if it does not say); the largest and the median change, as a share of the weight's norm.
    """
    layers, modules = lora.on(networks_of(base))
    there = {name: update for name, update in layers.items() if name in modules}
    fits = {name: update for name, update in there.items() if _same(update.shape, modules[name])}
    missing, other = sorted(set(layers) - set(there)), sorted(set(there) - set(fits))
    changes = torch.tensor([_share(fits[name].change(weight), weight) for name in fits for weight in [_weight(modules[name])]])
    made_for = lora.metadata.get("synthaug.base_hash")
    return {
        "base": base.name,
        "made for it": None if made_for is None else made_for == base.fingerprint,
        "layers that fit": len(fits),
        "layers without a module": len(missing),
        "first without": missing[:3],
        "layers of another shape": len(other),
        "first of another shape": other[:3],
        "layers without effect": int((changes == 0).sum()),
        "largest change, share of the weight": round(float(changes.max()), 4) if len(changes) else None,
        "median change, share of the weight": round(float(changes.median()), 4) if len(changes) else None,
    }


def _share(change: torch.Tensor, weight: torch.Tensor) -> float:
    return float(change.norm() / weight.norm().clamp_min(torch.finfo(torch.float32).tiny))


def _weight(module: nn.Module) -> torch.Tensor:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.float()


def _same(shape: tuple[int, ...], module: nn.Module) -> bool:
    there = _weight(module).shape
    return shape[0] == there[0] and prod(shape) == prod(there)


def _lines(rows: Mapping[str, object], indent: str = "") -> list[str]:
    """A row a line; a table inside is indented."""
    width = max((len(key) for key, value in rows.items() if not _nested(value)), default=0)
    lines: list[str] = []
    for key, value in rows.items():
        if isinstance(value, Mapping) and _nested(value):
            lines += [f"{indent}{key}", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key:<{width}}  {_words(value)}")
    return lines


def _nested(value: object) -> bool:
    return isinstance(value, Mapping) and len(value) > 3


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {inner}" for key, inner in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
