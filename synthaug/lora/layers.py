"""Low-rank layers: choose where, put them on, read them off, fuse them in.

Code name    Paper    Meaning
down         A        (rank, in) or (rank, in, h, w)
up           B        (out, rank) or (out, rank, 1, 1)
alpha        alpha    the update is alpha / rank * up @ down

Hu et al. 2021, https://arxiv.org/abs/2106.09685.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from torch import Tensor, nn

from synthaug.errors import SettingError, UnusableFileError, choose
from synthaug.lora.updates import Decomposed, Update, by_parameter

__all__ = [
    "PRESETS",
    "LoraLayer",
    "check_fits",
    "fuse",
    "is_wide",
    "parameter_of",
    "put_on",
    "summed",
    "target_paths",
    "trained_layers",
    "unfuse",
]

_ATTENTION = r"attn[12]\.to_(q|k|v|out\.0)$|self_attn\.(q|k|v|out)_proj$"
_TRANSFORMER = _ATTENTION + r"|ff\.net\.(0\.proj|2)$|attentions\.\d+\.proj_(in|out)$|mlp\.fc[12]$"
_CONVOLUTIONS = r"|resnets\.\d+\.(conv1|conv2|time_emb_proj|conv_shortcut)$|(down|up)samplers\.0\.conv$"
PRESETS: dict[str, str] = {
    "attention": _ATTENTION,
    "transformer": _TRANSFORMER,
    "everything": _TRANSFORMER + _CONVOLUTIONS,
}
"""Name of a choice of modules -> pattern that their paths match; ``transformer`` is kohya's default."""


@dataclass(frozen=True, kw_only=True)
class LoraLayer:
    """The low-rank update of one module."""

    down: Tensor
    """(rank, in) for a linear layer, (rank, in, h, w) for a convolution."""

    up: Tensor
    """(out, rank) or (out, rank, 1, 1)."""

    alpha: float
    """Scale times rank."""

    @property
    def rank(self) -> int:
        """Number of directions."""
        return int(self.down.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in) or (out, in, h, w)."""
        return int(self.up.shape[0]), *self.down.shape[1:]

    def change(self, weight: Tensor) -> Tensor:
        """What is added to a weight of the base, fp32, of the weight's shape."""
        return self.delta().reshape(weight.shape)

    def tensors(self) -> dict[str, Tensor]:
        """``lora_down``, ``lora_up`` and alpha."""
        return {"lora_down.weight": self.down, "lora_up.weight": self.up, "alpha": torch.tensor(self.alpha)}

    def delta(self) -> Tensor:
        """alpha / rank * up @ down in fp32, shaped like the module's weight."""
        down, up = self.down.float(), self.up.float()
        product = up.flatten(1) @ down.flatten(1)
        return (self.alpha / self.rank) * product.reshape(up.shape[0], *down.shape[1:])


def target_paths(model: nn.Module, targets: str) -> list[str]:
    """Paths of the modules that a preset, or a regular expression on paths, picks.

    Raises:
        SettingError: If nothing is picked.
    """
    pattern = PRESETS.get(targets) or targets
    if targets.isidentifier() and targets not in PRESETS:
        choose("choice of LoRA targets", targets, PRESETS)
    found = [p for p, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d) and re.search(pattern, p)]
    if not found:
        raise SettingError(
            f"LoRA targets must match at least one module, {targets!r} matches none of {type(model).__name__}; "
            f"choose one of: {', '.join(PRESETS)}, or write a regular expression on module paths"
        )
    return found


def put_on(  # noqa: PLR0913  # what a LoRA can be, each documented below
    model: nn.Module,
    *,
    rank: int,
    alpha: float,
    targets: str = "transformer",
    dropout: float = 0.0,
    conv_rank: int | None = None,
    conv_alpha: float | None = None,
    dora: bool = False,
    start: Mapping[str, LoraLayer] | None = None,
    sizes: Mapping[str, tuple[int, float]] | None = None,
) -> list[nn.Parameter]:
    """Put trainable low-rank layers on a frozen network; its output is unchanged at first, unless there is a start.

    Args:
        model: Frozen; it is changed in place by peft.
        rank: Rank of every layer, at least 1.
        alpha: Scale times rank.
        targets: A preset or a regular expression on module paths.
        dropout: Share of inputs that are dropped in training.
        conv_rank: Rank on convolutions larger than 1 x 1, as LoCon has it; ``rank`` when left out.
        conv_alpha: Their alpha; ``alpha`` when left out.
        dora: Train a length for every output too.
        start: Layers to go on from, by module path; they decide targets, ranks and alphas.
        sizes: Rank and alpha of every layer by module path; they decide where ``start`` does not.

    Returns:
        The new parameters, the only ones that need gradients, in fp32.

    Raises:
        SettingError: If the rank is below 1 or the targets match nothing.

    DoRA: Liu et al. 2024, https://arxiv.org/abs/2402.09353.
    """
    if rank < 1:
        raise SettingError(f"the rank of a LoRA must be at least 1, got {rank}; 4 to 64 are usual")
    if start is not None:
        sizes = {path: (layer.rank, layer.alpha) for path, layer in start.items()}
    elif sizes is None:
        sizes = dict.fromkeys(target_paths(model, targets), (rank, alpha))
        sizes |= {path: (conv_rank or rank, conv_alpha or alpha) for path in sizes if is_wide(model.get_submodule(path))}
    model.requires_grad_(requires_grad=False)
    usual_rank, usual_alpha = (Counter(column).most_common(1)[0][0] for column in zip(*sizes.values(), strict=True))
    config = LoraConfig(  # peft tries every pattern on every module, so only what is unusual is one
        r=usual_rank, lora_alpha=usual_alpha, target_modules=list(sizes), lora_dropout=dropout, use_dora=dora,
        rank_pattern={path: own for path, (own, _) in sizes.items() if own != usual_rank},
        alpha_pattern={path: own for path, (_, own) in sizes.items() if own != usual_alpha},
    )  # fmt: skip
    inject_adapter_in_model(config, model)
    for path, layer in (start or {}).items():
        module = model.get_submodule(path)
        assert isinstance(module, PeftLoraLayer)
        module.lora_A["default"].weight.data.copy_(layer.down)
        module.lora_B["default"].weight.data.copy_(layer.up)
    trained = [weight for name, weight in model.named_parameters() if "lora_" in name]
    for weight in trained:
        weight.data = weight.data.float()
        weight.requires_grad_()
    return trained


def is_wide(module: nn.Module) -> bool:
    """Whether it is a convolution larger than 1 x 1, which has a rank of its own."""
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1


def trained_layers(model: nn.Module) -> dict[str, Update]:
    """Read the layers that :func:`put_on` put on, by the path of the module they sit on."""
    return {path: _trained(module) for path, module in model.named_modules() if isinstance(module, PeftLoraLayer)}


def _trained(module: PeftLoraLayer) -> Update:
    down, up = (side["default"].weight.detach().cpu().clone() for side in (module.lora_A, module.lora_B))
    layer = LoraLayer(down=down, up=up, alpha=float(module.lora_alpha["default"]))
    if not module.use_dora["default"]:
        return layer
    magnitude = module.lora_magnitude_vector["default"].weight.detach().cpu().clone()
    return Decomposed(direction=layer, magnitude=magnitude.reshape(len(up), *[1] * (down.ndim - 1)))


@torch.no_grad()
def fuse(modules: Mapping[str, nn.Module], layers: Mapping[str, Update], weight: float) -> dict[str, Tensor]:
    """Add layers to the weights of modules of the same name, computed in fp32.

    Args:
        modules: Linear layers, convolutions and norms by name.
        layers: Updates by the same names; every one must have its module.
        weight: Strength; 1 is as trained.

    Returns:
        The weights as they were, on the CPU, for :func:`unfuse`; biases have ``.bias`` behind their module's name.

    Raises:
        UnusableFileError: If an update's shape is not its module's.
    """
    parts = by_parameter(layers)
    for name, update in parts.items():  # all are checked before the first is changed
        check_fits(name, parameter_of(modules, name), update)
    before: dict[str, Tensor] = {}
    for name, update in parts.items():
        target = parameter_of(modules, name)
        assert target is not None
        before[name] = target.detach().to("cpu", copy=True)
        target.copy_(summed(before[name], [(update, weight)]).to(target.device, target.dtype))
    return before


@torch.no_grad()
def unfuse(modules: Mapping[str, nn.Module], before: Mapping[str, Tensor]) -> None:
    """Put the weights back, bit for bit."""
    for name, weight in before.items():
        target = parameter_of(modules, name)
        assert target is not None
        target.copy_(weight.to(target.device))


def parameter_of(modules: Mapping[str, nn.Module], name: str) -> Tensor | None:
    """The weight of a module, or with ``.bias`` behind the name its bias; None where it has none."""
    found = modules[name].weight if name in modules else modules[name.removesuffix(".bias")].bias
    assert found is None or isinstance(found, Tensor)
    return found


def check_fits(name: str, target: Tensor | None, update: Update) -> None:
    """Refuse an update for a weight of another shape.

    A convolution that is shown a mask and masked latents besides, 2 C + 1 channels, takes an update for C of them.

    Raises:
        UnusableFileError: With both shapes.
    """
    shape, there = update.shape, None if target is None else tuple(_changed(target, update).shape)
    if there is None or math.prod(shape) != math.prod(there) or shape[0] != there[0]:
        found = "none" if target is None else tuple(target.shape)
        raise UnusableFileError(
            f"the LoRA's update for {name} has shape {shape}, the base's weight {found}; it was made for another base model"
        )


def summed(bare: Tensor, worn: Sequence[tuple[Update, float]]) -> Tensor:
    """A weight with updates on it: bare + sum of strength * change, fp32 of its shape.

    Every change is that of the bare weight, so that DoRAs do not depend on what is worn besides.

    Args:
        bare: The base's weight.
        worn: Updates that fit it, and their strengths.
    """
    total = bare.to(torch.float32, copy=True)
    for update, strength in worn:
        part = _changed(total, update)
        if isinstance(update, LoraLayer) and part.is_contiguous():  # in place, without the product in between
            up, down = update.up.float().flatten(1), update.down.float().flatten(1)
            part.view(len(part), -1).addmm_(up, down, alpha=strength * update.alpha / update.rank)
        else:
            part += strength * update.change(_changed(bare, update))
    return total


def _changed(weight: Tensor, update: Update) -> Tensor:
    """The part of a weight that an update is for: of 2 C + 1 input channels the first C, if it is for so many."""
    if weight.ndim != 4:
        return weight
    channels = math.prod(update.shape[1:]) // math.prod(weight.shape[2:])
    return weight[:, :channels] if weight.shape[1] == 2 * channels + 1 else weight
