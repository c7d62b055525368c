"""Arithmetic on LoRA files: add them up, make them smaller, take them out of a trained checkpoint.

Everything is computed in fp32 (singular values in fp64), every module with its own alpha and rank.

Code name    Meaning
D            what a file adds to a weight, flattened to (out, rest)
energy       share of the sum of squared singular values of D

Best approximation of a given rank: Eckart & Young 1936, https://doi.org/10.1007/BF02288367.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from synthaug.errors import SettingError, UnusableFileError, require
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import LoraLayer
from synthaug.lora.naming import NetworkKind, modules_by_name
from synthaug.lora.updates import Decomposed, Update

__all__ = ["extract", "merge", "resize"]


def merge(files: Sequence[LoraFile], weights: Sequence[float], *, rank: int | None = None) -> LoraFile:
    """One file that does what several do together.

    Args:
        files: At least one; modules may differ. DoRAs cannot be added without their base.
        weights: How strongly each is worn.
        rank: Largest rank of the result; left out, factors are stacked and nothing is lost.

    Raises:
        SettingError: If there is not one weight for each file.
        UnusableFileError: If a file holds a DoRA.

    Example:
        >>> import torch
        >>> one = LoraFile(layers={"lora_unet_x": LoraLayer(down=torch.ones(1, 3), up=torch.ones(2, 1), alpha=1.0)}, metadata={})
        >>> merge([one, one], [0.5, 0.25]).layers["lora_unet_x"].change(torch.zeros(2, 3))[0, 0]
        tensor(0.7500)
    """
    require({
        "merging needs at least one file": (len(files) > 0, len(files)),
        "there must be one weight for each file": (len(files) == len(weights), f"{len(weights)} for {len(files)}"),
    })  # fmt: skip
    names = sorted({name for file in files for name in file.layers})
    layers: dict[str, Update] = {}
    for name in names:
        worn = [(file.layers[name], weight) for file, weight in zip(files, weights, strict=True) if name in file.layers]
        layers[name] = _stacked(name, worn)
    merged = replace(files[0], layers=layers, metadata=_shared([file.metadata for file in files]), name="merged LoRA")
    return merged if rank is None else resize(merged, rank=rank)


def resize(file: LoraFile, *, rank: int | None = None, energy: float | None = None) -> LoraFile:
    """The nearest file of smaller rank; LoHa, LoKr and full changes become plain LoRAs.

    Args:
        file: Any but a DoRA.
        rank: Largest rank of every module.
        energy: Give each module the smallest rank that keeps this share of it, 0 to 1; with ``rank``, at most that.

    Raises:
        SettingError: If neither is given, or one is out of range.
        UnusableFileError: If the file holds a DoRA.
    """
    require({
        "resizing needs a rank or an energy to keep": (rank is not None or energy is not None, None),
        "rank must be at least 1": (rank is None or rank >= 1, rank),
        "energy must be above 0 and at most 1": (energy is None or 0 < energy <= 1, energy),
    })  # fmt: skip
    return replace(file, layers={name: _smaller(name, update, rank, energy) for name, update in file.layers.items()})


def extract(
    base: Mapping[NetworkKind, nn.Module], tuned: Mapping[NetworkKind, nn.Module], *, rank: int, smallest: float = 1e-6
) -> LoraFile:  # fmt: skip
    """The LoRA that leads from one checkpoint to another, as nearly as its rank allows.

    Args:
        base: Networks of the checkpoint to start from.
        tuned: The same networks of the checkpoint to arrive at.
        rank: Largest rank of every module.
        smallest: Modules whose largest difference is below this are left out.

    Raises:
        SettingError: If the networks differ in shape, or do not differ at all.
    """
    require({"rank must be at least 1": (rank >= 1, rank)})
    layers: dict[str, Update] = {}
    for kind, network in base.items():
        ours, theirs = modules_by_name(network, kind), modules_by_name(tuned[kind], kind)
        for name, module in ours.items():
            before, after = module.weight, getattr(theirs.get(name), "weight", None)
            assert isinstance(before, Tensor)
            if after is None or after.shape != before.shape:
                raise SettingError(f"both checkpoints must have the same networks, {name} has another shape in the second")
            difference = after.detach().float().cpu() - before.detach().float().cpu()
            if float(difference.abs().max()) >= smallest:
                layers[name] = _low_rank(difference, rank, None)
    if not layers:
        raise SettingError("the checkpoints do not differ in any layer that a LoRA can sit on; give two different ones")
    return LoraFile(layers=layers, metadata={"ss_network_module": "networks.lora", "ss_network_dim": str(rank)}, name="extracted LoRA")


def _stacked(name: str, worn: Sequence[tuple[Update, float]]) -> LoraLayer:
    """Factors side by side, scales and weights folded into up; alpha = rank."""
    plain = [(_as_lora(name, update), weight) for update, weight in worn]
    shapes = {layer.shape for layer, _ in plain}
    if len(shapes) != 1:
        raise UnusableFileError(f"files to merge must be for one base, {name} has shapes {sorted(shapes)}")
    down = torch.cat([layer.down.float() for layer, _ in plain])
    up = torch.cat([layer.up.float() * (weight * layer.alpha / layer.rank) for layer, weight in plain], 1)
    return LoraLayer(down=down, up=up, alpha=float(len(down)))


def _as_lora(name: str, update: Update) -> LoraLayer:
    """The update as a plain LoRA, exactly."""
    if isinstance(update, LoraLayer):
        return update
    difference = _difference(name, update)
    return _low_rank(difference, min(difference.shape[0], difference[0].numel()), 1.0)


def _difference(name: str, update: Update) -> Tensor:
    if isinstance(update, Decomposed):
        raise UnusableFileError(f"a DoRA's change depends on the base's weights, {name} is one; bake it into its base, then extract")
    return update.change(torch.zeros(update.shape))


def _smaller(name: str, update: Update, rank: int | None, energy: float | None) -> LoraLayer:
    """The nearest LoRA of smaller rank; the alpha of a plain one keeps its ratio to the rank."""
    if not isinstance(update, LoraLayer):
        difference = _difference(name, update)
        return _low_rank(difference, rank or min(difference.flatten(1).shape), energy)
    q_up, r_up = torch.linalg.qr(update.up.double().flatten(1))
    q_down, r_down = torch.linalg.qr(update.down.double().flatten(1).T)
    u, s, vh = torch.linalg.svd(r_up @ r_down.T * (update.alpha / update.rank))
    return _factors(q_up @ u, s, vh @ q_down.T, update.shape, rank or update.rank, energy)


def _low_rank(difference: Tensor, rank: int, energy: float | None) -> LoraLayer:
    u, s, vh = torch.linalg.svd(difference.double().flatten(1), full_matrices=False)
    return _factors(u, s, vh, tuple(difference.shape), rank, energy)


def _factors(u: Tensor, s: Tensor, vh: Tensor, shape: tuple[int, ...], rank: int, energy: float | None) -> LoraLayer:
    """The first directions as up and down, each with the root of the singular values; alpha = rank."""
    keep = min(rank, len(s))
    if energy is not None:
        gathered = s.square().cumsum(0)
        keep = min(keep, int((gathered < energy * gathered[-1] * (1 - 1e-12)).sum()) + 1)
    root = s[:keep].sqrt()
    up = (u[:, :keep] * root).float()
    down = (vh[:keep] * root[:, None]).float()
    kernel = [1] * (len(shape) - 2)
    return LoraLayer(down=down.reshape(keep, *shape[1:]), up=up.reshape(shape[0], keep, *kernel), alpha=float(keep))


def _shared(metadata: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Entries on which all files agree."""
    first = metadata[0]
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in metadata)}
