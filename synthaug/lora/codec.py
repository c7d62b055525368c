"""From a file's tensors to updates, whatever the tool that wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from synthaug.errors import UnusableFileError
from synthaug.lora.family import family_of
from synthaug.lora.formats import grouped, with_peft_alphas
from synthaug.lora.layers import LoraLayer
from synthaug.lora.naming import numbered
from synthaug.lora.updates import Decomposed, FullChange, HadamardLayer, KroneckerLayer, TuckerLayer, Update, WithBias

__all__ = ["BUNDLED", "read_updates"]

BUNDLED = "bundle_emb."
"""How the keys of words begin that a file brings along, vectors of textual inversion; they are no updates."""

_KINDS = {
    "lora_down.weight": "LoRA",
    "hada_w1_a": "LoHa",
    "lokr_w1": "LoKr",
    "lokr_w1_a": "LoKr",
    "diff": "full change",
    "w_norm": "change of a norm",
}
"""A tensor that only this kind of update has -> the kind."""

_STRANGE = {
    "on_input": "IA3", "a1.weight": "GLoRA", "oft_blocks": "OFT or BOFT", "oft_diag": "OFT or BOFT",
    "reshape_weight": "a change of shape",
}  # fmt: skip
"""A tensor of a kind that is not read -> the kind."""


_ASIDE = ("alpha", "scale", "dora_scale", "diff_b", "b_norm")
"""Tensors that may stand beside those of any kind."""


def read_updates(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Update]:  # fmt: skip
    """Updates by kohya name, every tensor of the file accounted for but bundled words.

    Args:
        tensors: All of a file.
        metadata: Of the file.
        path: The file, for messages.
        settings: PEFT's settings by network, where there are some.

    Raises:
        UnusableFileError: If the file holds no LoRA, an incomplete one, or one of a kind that is not read.
    """
    if not any(mark in key for key in tensors for mark in ("lora", "hada_", "lokr_", "diff", "w_norm", *_STRANGE)):
        example = next(iter(tensors), "nothing")
        raise UnusableFileError(
            f"a LoRA file must hold keys such as X.lora_down.weight (kohya's naming, diffusers' or PEFT's), {path} has {len(tensors)} "
            f"tensors such as {example!r}; convert it, or check that it is a LoRA"
        )
    groups = with_peft_alphas(grouped({key: t for key, t in tensors.items() if not key.startswith(BUNDLED)}), settings or {})
    updates = {name: _update(name, groups[name], path) for name in sorted(groups)}
    if family_of(updates, metadata) == "sdxl":  # with its second text encoder left alone, the first one's names do not tell
        return {numbered(name, two_encoders=True): update for name, update in updates.items()}
    return updates


def _update(name: str, parts: Mapping[str, Tensor], path: Path) -> Update:
    """The update of one module."""
    if strange := next((kind for part, kind in _STRANGE.items() if part in parts), None):
        raise UnusableFileError(
            f"{path} holds {strange} for {name}, which is not read; LoRA, LoCon, LoHa, LoKr, DoRA and full changes are: "
            "convert it with the tool that made it"
        )
    kind = next((kind for part, kind in _KINDS.items() if part in parts), None)
    plain = {part: tensor for part, tensor in parts.items() if part not in _ASIDE}
    try:
        update, used = _BUILD[kind or ""](plain, None if "alpha" not in parts else float(parts["alpha"]))
    except KeyError as missing:
        wanted = str(missing).strip("'") if kind else "lora_down.weight"
        of = f" of rank {parts['lora_down.weight'].shape[0]}" if wanted == "lora_up.weight" else ""
        raise UnusableFileError(f"{path} is incomplete: {name} has no {wanted}{of}; get it again") from None
    if left := sorted(set(plain) - used):
        raise UnusableFileError(f"{path} has a tensor {left[0]} for {name} that no {kind} has; it may come from a newer tool")
    if "scale" in parts and hasattr(update, "alpha"):  # said outright, it counts more than alpha over rank
        update = replace(update, alpha=float(parts["scale"]) * update.rank)  # type: ignore[type-var]  # a dataclass
    if "dora_scale" in parts:
        update = Decomposed(direction=update, magnitude=_lengths(parts["dora_scale"], update))
    bias = parts.get("b_norm" if kind == "change of a norm" else "diff_b")
    return update if bias is None else WithBias(weight=update, bias=bias)


def _lengths(scale: Tensor, update: Update) -> Tensor:
    """A DoRA's lengths with as many axes as the weight, as kohya's tools want them; those of inputs stay as they are."""
    if scale.ndim > 1 and scale.shape[0] == 1:
        return scale
    return scale.reshape(-1, *[1] * (len(update.shape) - 1))


def _lora(parts: Mapping[str, Tensor], alpha: float | None) -> tuple[Update, set[str]]:
    down, up = parts["lora_down.weight"], parts["lora_up.weight"]
    if up.ndim < 2 or up.shape[1] != down.shape[0]:
        raise KeyError("lora_up.weight")
    alpha = float(down.shape[0]) if alpha is None else alpha
    if "lora_mid.weight" in parts:
        return TuckerLayer(down=down, mid=parts["lora_mid.weight"], up=up, alpha=alpha), set(parts)
    return LoraLayer(down=down, up=up, alpha=alpha), {"lora_down.weight", "lora_up.weight"}


def _loha(parts: Mapping[str, Tensor], alpha: float | None) -> tuple[Update, set[str]]:
    names = [f"hada_w{number}_{side}" for number in (1, 2) for side in "ab"]
    names += ["hada_t1", "hada_t2"] if "hada_t1" in parts else []
    found = {name: parts[name] for name in names}
    return HadamardLayer(parts=found, alpha=float(found["hada_w1_b"].shape[0]) if alpha is None else alpha), set(names)


def _lokr(parts: Mapping[str, Tensor], alpha: float | None) -> tuple[Update, set[str]]:
    names = [n for number in (1, 2) for n in ((f"lokr_w{number}",) if f"lokr_w{number}" in parts else _low(number))]
    names += ["lokr_t2"] if "lokr_t2" in parts else []
    layer = KroneckerLayer(parts={name: parts[name] for name in names}, alpha=1.0 if alpha is None else alpha)
    return (layer if alpha is not None else KroneckerLayer(parts=layer.parts, alpha=float(layer.rank))), set(names)


def _low(number: int) -> tuple[str, str]:
    return f"lokr_w{number}_a", f"lokr_w{number}_b"


def _full(parts: Mapping[str, Tensor], _alpha: float | None) -> tuple[Update, set[str]]:
    return FullChange(diff=parts["diff"]), {"diff"}


def _norm(parts: Mapping[str, Tensor], _alpha: float | None) -> tuple[Update, set[str]]:
    return FullChange(diff=parts["w_norm"]), {"w_norm"}


_BUILD = {"LoRA": _lora, "LoHa": _loha, "LoKr": _lokr, "full change": _full, "change of a norm": _norm}
