"""Arithmetic on LoRA files: add them up, make them smaller, take them out of a trained checkpoint.

Everything is computed in fp32 (singular values in fp64), every module with its own alpha and rank.

Code name    Meaning
D            what a file adds to a weight, flattened to (out, rest)
s            singular values of D, falling
energy       share of the sum of squared singular values of D
ratio        the largest singular value over the smallest that is kept

Best approximation of a given rank: Eckart & Young 1936, https://doi.org/10.1007/BF02288367.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from synthaug.errors import SettingError, UnusableFileError, require
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import LoraLayer
from synthaug.lora.naming import NetworkKind, modules_by_name, modules_of, network_of, numbered
from synthaug.lora.updates import Decomposed, Update, WithBias

__all__ = ["extract", "merge", "resize"]

Networks = Mapping[NetworkKind, nn.Module]
_BLOCKS = {"down": "lora_unet_down_blocks", "mid": "lora_unet_mid_block", "up": "lora_unet_up_blocks", "text": "lora_te"}


def merge(
    files: Sequence[LoraFile], weights: Sequence[float | Mapping[str, float]], *, rank: int | None = None, base: Networks | None = None
) -> LoraFile:  # fmt: skip
    """One file that does what several do together.

    What the result says of itself is what all files agree on, and every photo that any of them has seen.

    Args:
        files: At least one, all for one family of bases; modules may differ.
        weights: How strongly each is worn: a number, or numbers by ``down``, ``mid``, ``up``, ``text``, or a regular expression
            on kohya names. The first that fits a module counts; where none fits, the file is worn as it is.
        rank: Largest rank of the result; left out, factors are stacked and nothing is lost.
        base: Networks of the base, which DoRAs need.

    Raises:
        SettingError: If there is not one weight for each file, or one of them fits no module.
        UnusableFileError: If the files are for different bases, or one holds a DoRA and no base is given.

    Example:
        >>> import torch
        >>> one = LoraFile(layers={"lora_unet_x": LoraLayer(down=torch.ones(1, 3), up=torch.ones(2, 1), alpha=1.0)}, metadata={})
        >>> merge([one, one], [0.5, 0.25]).layers["lora_unet_x"].change(torch.zeros(2, 3))[0, 0]
        tensor(0.7500)
        >>> merge([one], [{"unet_x$": 0.5}]).layers["lora_unet_x"].change(torch.zeros(2, 3))[0, 0]
        tensor(0.5000)
    """
    require({
        "merging needs at least one file": (len(files) > 0, len(files)),
        "there must be one weight for each file": (len(files) == len(weights), f"{len(weights)} for {len(files)}"),
    })  # fmt: skip
    families = sorted({file.family for file in files if file.family})
    if len(families) > 1:
        raise UnusableFileError(f"files to merge must be for one family of bases, these are for {' and '.join(families)}")
    worn = [(file, _weights(file, weight)) for file, weight in zip(files, weights, strict=True)]
    layers: dict[str, Update] = {}
    for name in sorted({name for file in files for name in file.layers}):
        parts = [(file.layers[name], strength[name]) for file, strength in worn if name in file.layers]
        layers[name] = _stacked(name, parts, base)
    bundled = {key: tensor for file in files for key, tensor in file.bundled.items()}
    merged = _restated(replace(files[0], layers=layers, metadata=_shared(files), name="merged LoRA", bundled=bundled))
    return merged if rank is None else resize(merged, rank=rank)


def resize(  # three ways to say how small, each alone or together
    file: LoraFile, *, rank: int | None = None, energy: float | None = None, ratio: float | None = None, base: Networks | None = None
) -> LoraFile:  # fmt: skip
    """The nearest file of smaller rank; LoHa, LoKr, Tucker forms and full changes become plain LoRAs.

    Args:
        file: Any.
        rank: Largest rank of every module.
        energy: Give each module the smallest rank that keeps this share of it, 0 to 1; with ``rank``, at most that.
        ratio: Leave out directions that are more than so many times weaker than the module's strongest; 2 to 20 are usual.
        base: Networks of the base, which DoRAs need.

    Raises:
        SettingError: If none of the three is given, or one is out of range.
        UnusableFileError: If the file holds a DoRA and no base is given.

    Example:
        >>> import torch
        >>> full = LoraLayer(down=torch.diag(torch.tensor([8.0, 4.0, 1.0])), up=torch.eye(3), alpha=3.0)
        >>> resize(LoraFile(layers={"lora_unet_x": full}, metadata={}), ratio=2.0).rank
        2
    """
    require({
        "resizing needs a rank, an energy to keep or a ratio": (any(cut is not None for cut in (rank, energy, ratio)), None),
        "rank must be at least 1": (rank is None or rank >= 1, rank),
        "energy must be above 0 and at most 1": (energy is None or 0 < energy <= 1, energy),
        "ratio must be at least 1": (ratio is None or ratio >= 1, ratio),
    })  # fmt: skip
    cut = _Cut(rank=rank, energy=energy, ratio=ratio)
    return _restated(replace(file, layers={name: _smaller(name, update, cut, base) for name, update in file.layers.items()}))


def extract(base: Networks, tuned: Networks, *, rank: int, conv_rank: int | None = None, smallest: float = 1e-6) -> LoraFile:
    """The LoRA that leads from one checkpoint to another, as nearly as its rank allows.

    Args:
        base: Networks of the checkpoint to start from; with a ``text_encoder_2`` the file is one for SDXL.
        tuned: The same networks of the checkpoint to arrive at.
        rank: Largest rank of every module.
        conv_rank: Largest rank on convolutions larger than 1 x 1; ``rank`` when left out.
        smallest: Modules whose largest difference is below this are left out.

    Raises:
        SettingError: If the networks differ in shape, or do not differ at all.
    """
    require({
        "rank must be at least 1": (rank >= 1, rank),
        "conv_rank must be at least 1": (conv_rank is None or conv_rank >= 1, conv_rank),
        "both checkpoints must have the same networks": (set(base) == set(tuned), f"{sorted(base)} and {sorted(tuned)}"),
    })  # fmt: skip
    two = "text_encoder_2" in base
    layers: dict[str, Update] = {}
    for kind, network in base.items():
        ours, theirs = (modules_by_name(side, kind, two_encoders=two) for side in (network, tuned[kind]))
        for name, module in ours.items():
            before, after = _weight(module), getattr(theirs.get(name), "weight", None)
            if after is None or after.shape != before.shape:
                raise SettingError(f"both checkpoints must have the same networks, {name} has another shape in the second")
            difference = after.detach().float().cpu() - before
            wide = max(before.shape[2:], default=1) > 1
            if float(difference.abs().max()) >= smallest:
                layers[name] = _low_rank(difference, _Cut(rank=(conv_rank or rank) if wide else rank))
    if not layers:
        raise SettingError("the checkpoints do not differ in any layer that a LoRA can sit on; give two different ones")
    facts = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": str(float(rank))}
    metadata = LoraFile.of({}, {}, facts, two_encoders=two).metadata
    return LoraFile(layers=layers, metadata=metadata, name="extracted LoRA")


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """How many directions are kept."""

    rank: int | None = None
    energy: float | None = None
    ratio: float | None = None

    def kept(self, s: Tensor) -> int:
        """Of singular values (N,), falling; at least 1."""
        keep = len(s) if self.rank is None else min(self.rank, len(s))
        if self.energy is not None:
            gathered = s.square().cumsum(0)
            keep = min(keep, int((gathered < self.energy * gathered[-1] * (1 - 1e-12)).sum()) + 1)
        if self.ratio is not None:
            keep = min(keep, int((s * self.ratio >= s[0] * (1 - 1e-12)).sum()))
        return max(keep, 1)


def _weights(file: LoraFile, weight: float | Mapping[str, float]) -> dict[str, float]:
    """How strongly each module is worn.

    Raises:
        SettingError: If a block or pattern fits no module.
    """
    if not isinstance(weight, Mapping):
        return dict.fromkeys(file.layers, weight)
    found: dict[str, float] = dict.fromkeys(file.layers, 1.0)
    for block, strength in reversed(list(weight.items())):  # the first that fits is written last
        try:
            fits = [name for name in file.layers if re.search(_BLOCKS.get(block, block), name)]
        except re.error as error:
            raise SettingError(
                f"a block's weight needs {', '.join(_BLOCKS)} or a regular expression, {block!r} is none ({error})"
            ) from error
        if not fits:
            raise SettingError(
                f"a weight must fit a module, {block!r} fits none of {file.name}; use {', '.join(_BLOCKS)}, or part of a name"
            )
        found |= dict.fromkeys(fits, strength)
    return found


def _stacked(name: str, worn: Sequence[tuple[Update, float]], base: Networks | None) -> LoraLayer:
    """Factors side by side, scales and weights folded into up; alpha = rank."""
    plain = [(_as_lora(name, update, base), weight) for update, weight in worn]
    shapes = {layer.shape for layer, _ in plain}
    if len(shapes) != 1:
        raise UnusableFileError(f"files to merge must be for one base, {name} has shapes {sorted(shapes)}")
    down = torch.cat([layer.down.float() for layer, _ in plain])
    up = torch.cat([layer.up.float() * (weight * layer.alpha / layer.rank) for layer, weight in plain], 1)
    return LoraLayer(down=down, up=up, alpha=float(len(down)))


def _as_lora(name: str, update: Update, base: Networks | None) -> LoraLayer:
    """The update as a plain LoRA, exactly."""
    return update if isinstance(update, LoraLayer) else _low_rank(_difference(name, update, base), _Cut(energy=1.0))


def _difference(name: str, update: Update, base: Networks | None) -> Tensor:
    """What is added to the weight; a DoRA needs the weight itself, and a bias or a norm has no rank.

    Raises:
        UnusableFileError: If a weight is needed and not given, or there is a change of a bias or a norm.
    """
    if isinstance(update, WithBias) or len(update.shape) == 1:
        raise UnusableFileError(f"changes of weights alone have a rank, {name} has one of a bias or a norm; take a file without them")
    if not isinstance(update, Decomposed):
        return update.change(torch.zeros(update.shape))
    if base is None:
        raise UnusableFileError(f"a DoRA's change depends on the base's weights, {name} is one; give base=, its networks")
    kind = network_of(name)
    module = modules_of(base).get(numbered(name, two_encoders="text_encoder_2" in base))
    if module is None:
        raise UnusableFileError(f"a DoRA's change depends on the base's weights, the base has no {name}; give its {kind or 'own base'}")
    weight = _weight(module)
    if weight.numel() != torch.Size(update.shape).numel() or weight.shape[0] != update.shape[0]:
        raise UnusableFileError(
            f"a DoRA must fit its base, {name} has shape {update.shape} and the base {tuple(weight.shape)}; give its own"
        )
    return update.change(weight)


def _smaller(name: str, update: Update, cut: _Cut, base: Networks | None) -> LoraLayer:
    """The nearest LoRA of smaller rank."""
    if not isinstance(update, LoraLayer):
        return _low_rank(_difference(name, update, base), cut)
    q_up, r_up = torch.linalg.qr(update.up.double().flatten(1))
    q_down, r_down = torch.linalg.qr(update.down.double().flatten(1).T)
    u, s, vh = torch.linalg.svd(r_up @ r_down.T * (update.alpha / update.rank))
    return _factors(q_up @ u, s, vh @ q_down.T, update.shape, cut)


def _low_rank(difference: Tensor, cut: _Cut) -> LoraLayer:
    u, s, vh = torch.linalg.svd(difference.double().flatten(1), full_matrices=False)
    return _factors(u, s, vh, tuple(difference.shape), cut)


def _factors(u: Tensor, s: Tensor, vh: Tensor, shape: tuple[int, ...], cut: _Cut) -> LoraLayer:
    """The first directions as up and down, each with the root of the singular values; alpha = rank."""
    keep = cut.kept(s)
    root = s[:keep].sqrt()
    up = (u[:, :keep] * root).float()
    down = (vh[:keep] * root[:, None]).float()
    kernel = [1] * (len(shape) - 2)
    return LoraLayer(down=down.reshape(keep, *shape[1:]), up=up.reshape(shape[0], keep, *kernel), alpha=float(keep))


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach().float().cpu()


def _shared(files: Sequence[LoraFile]) -> dict[str, str]:
    """Entries on which all files agree, and every photo that one of them has seen."""
    agreed = {key: value for key, value in files[0].metadata.items() if all(file.metadata.get(key) == value for file in files)}
    seen = {photo["sha256"]: photo for file in files for photo in json.loads(file.metadata.get("synthaug.photos", "[]"))}
    return agreed | ({"synthaug.photos": json.dumps(list(seen.values()))} if seen else {})


def _restated(file: LoraFile) -> LoraFile:
    """Rank and alpha in the metadata as they are now; kohya's word for ranks that differ is Dynamic."""
    if "ss_network_dim" not in file.metadata:
        return file
    ranks = {update.rank for update in file.layers.values()}
    rank = str(next(iter(ranks))) if len(ranks) == 1 else "Dynamic"
    alpha = str(float(rank)) if len(ranks) == 1 else "Dynamic"
    return replace(file, metadata={**file.metadata, "ss_network_dim": rank, "ss_network_alpha": alpha})
