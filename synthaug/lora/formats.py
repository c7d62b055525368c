"""The names under which tools store a LoRA's tensors, read into one and written from one.

kohya       ``lora_unet_down_blocks_0_..._to_q.lora_down.weight``; OneTrainer's ``lora_te1_`` of SD 1.x; block names of the
            original Stable Diffusion (``input_blocks_4_1_...``), as SDXL files have them
diffusers   ``unet.down_blocks.0...to_q.lora.down.weight``, before 0.22 ``...attn1.processor.to_q_lora.down.weight``
PEFT        ``base_model.model.down_blocks.0...to_q.lora_A.weight`` with an ``adapter_config.json`` beside it, and diffusers'
            ``unet.…lora_A.weight`` with the same settings in the file's metadata

A group of tensors is named as kohya names it: module, then ``lora_down.weight``, ``alpha`` and so on.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from synthaug.errors import UnusableFileError

__all__ = ["dotted_path", "grouped", "to_diffusers", "with_peft_alphas"]

Groups = dict[str, dict[str, Tensor]]
"""Module -> what follows its name -> tensor."""

_SUFFIXES = {
    "lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight",
    "lora_A.default.weight": "lora_down.weight", "lora_B.default.weight": "lora_up.weight",
    "lora.down.weight": "lora_down.weight", "lora.up.weight": "lora_up.weight",
    "lora_linear_layer.down.weight": "lora_down.weight", "lora_linear_layer.up.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale", "lora_magnitude_vector.weight": "dora_scale",
    "lora_magnitude_vector.default.weight": "dora_scale",
    "alpha": "alpha",
}  # fmt: skip
"""How diffusers and PEFT end a key -> how kohya does."""

_OLD_ATTENTION = re.compile(r"\.processor\.(to_(?:q|k|v|out))_lora\.(down|up)\.weight$")
_COMPONENTS = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}
_WORDS = (
    "down_blocks", "up_blocks", "mid_block", "transformer_blocks", "attentions", "resnets", "downsamplers", "upsamplers",
    "time_emb_proj", "conv_shortcut", "conv_in", "conv_out", "conv1", "conv2", "conv", "attn1", "attn2", "to_q", "to_k", "to_v",
    "to_out", "proj_in", "proj_out", "proj", "ff", "net", "time_embedding", "add_embedding", "linear_1", "linear_2",
    "text_model", "encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "mlp", "fc1", "fc2",
)  # fmt: skip
"""Parts of a module's path; longer ones before their beginnings."""
_PATH = re.compile("|".join(("[0-9]+", *_WORDS)))


def grouped(tensors: Mapping[str, Tensor]) -> Groups:
    """Tensors of any of the formats, by module and in kohya's terms.

    Raises:
        UnusableFileError: If a key belongs to none of them; it is named.

    Example:
        >>> import torch
        >>> list(grouped({"unet.mid_block.resnets.0.conv1.lora_A.weight": torch.zeros(1)}))
        ['lora_unet_mid_block_resnets_0_conv1']
    """
    groups: Groups = defaultdict(dict)
    two_encoders = any(key.startswith(("lora_te2_", "text_encoder_2.")) for key in tensors)
    for key, tensor in tensors.items():
        if key.startswith("lora_"):
            name, _, suffix = key.partition(".")
            groups[_kohya(name, two_encoders=two_encoders)][suffix] = tensor
        else:
            name, suffix = _from_dotted(key, two_encoders=two_encoders)
            groups[name][suffix] = tensor
    return dict(groups)


def _kohya(name: str, *, two_encoders: bool) -> str:
    """A kohya module name with diffusers' block names and the encoder's usual prefix."""
    if name.startswith("lora_te1_") and not two_encoders:
        name = name.replace("lora_te1_", "lora_te_", 1)
    if re.match(r"lora_te\d?_encoder_layers_", name):
        name = name.replace("_encoder_layers_", "_text_model_encoder_layers_", 1)
    return _with_diffusers_blocks(name)


def _from_dotted(key: str, *, two_encoders: bool) -> tuple[str, str]:
    """Module and suffix of a key of diffusers or PEFT."""
    old = _OLD_ATTENTION.search(key)
    if old:
        key = f"{key[: old.start()]}.{old[1].replace('to_out', 'to_out.0')}.lora.{old[2]}.weight"
    suffix = next((end for end in sorted(_SUFFIXES, key=len, reverse=True) if key.endswith(f".{end}")), None)
    if suffix is None:
        raise UnusableFileError(
            f"a LoRA file must have keys of kohya, diffusers or PEFT, {key!r} is none of them; it may be another kind of file"
        )
    path = key.removesuffix(f".{suffix}").removeprefix("base_model.model.")
    component = next((name for name in sorted(_COMPONENTS, key=len, reverse=True) if path.startswith(f"{name}.")), None)
    if component is None:
        component = "text_encoder" if re.match(r"(text_model\.)?encoder\.layers\.", path) else "unet"
    else:
        path = path.removeprefix(f"{component}.").removeprefix("base_model.model.")
    if component.startswith("text_encoder") and not path.startswith("text_model."):
        path = f"text_model.{path}"
    prefix = "lora_te1_" if component == "text_encoder" and two_encoders else _COMPONENTS[component]
    return prefix + path.replace(".", "_"), _SUFFIXES[suffix]


_RESNET = {"in_layers_2": "conv1", "emb_layers_1": "time_emb_proj", "out_layers_3": "conv2", "skip_connection": "conv_shortcut"}


def _with_diffusers_blocks(name: str) -> str:
    """Turn the original block numbers into diffusers' names; two residual blocks a level, as in SD 1.x, 2.x and SDXL."""
    found = re.match(r"lora_unet_(input_blocks|output_blocks|middle_block)_(\d+)_(.*)$", name)
    if not found:
        return name
    side, number, rest = found[1], int(found[2]), found[3]
    if side == "middle_block":
        place = "mid_block_attentions_0" if number == 1 else f"mid_block_resnets_{number // 2}"
        return f"lora_unet_{place}_{_RESNET.get(rest, rest)}"
    inner, _, rest = rest.partition("_")
    if side == "input_blocks":
        level, layer = divmod(number - 1, 3)
        if rest == "op":
            return f"lora_unet_down_blocks_{level}_downsamplers_0_conv"
        place = f"down_blocks_{level}_{'resnets' if inner == '0' else 'attentions'}_{layer}"
    else:
        level, layer = divmod(number, 3)
        if rest == "conv":
            return f"lora_unet_up_blocks_{level}_upsamplers_0_conv"
        place = f"up_blocks_{level}_{'resnets' if inner == '0' else 'attentions'}_{layer}"
    return f"lora_unet_{place}_{_RESNET.get(rest, rest)}"


def with_peft_alphas(groups: Groups, configs: Mapping[str, Mapping[str, Any]]) -> Groups:
    """Add the alphas that PEFT keeps outside of the tensors; a module without one has alpha = rank.

    Args:
        groups: As :func:`grouped` gives them.
        configs: PEFT's settings (``lora_alpha``, ``alpha_pattern``, ``use_rslora``) by component, ``unet`` or ``text_encoder``.
    """
    for name, parts in groups.items():
        component = "unet" if name.startswith("lora_unet_") else "text_encoder_2" if name.startswith("lora_te2_") else "text_encoder"
        config = configs.get(component)
        if config is None or "alpha" in parts or "lora_down.weight" not in parts:
            continue
        rank = int(parts["lora_down.weight"].shape[0])
        alpha = float(config.get("lora_alpha", rank))
        for pattern, value in (config.get("alpha_pattern") or {}).items():
            if name.endswith("_" + pattern.replace(".", "_")) or name == _COMPONENTS[component] + pattern.replace(".", "_"):
                alpha = float(value)
        parts["alpha"] = torch.tensor(alpha * rank**0.5 if config.get("use_rslora") else alpha)
    return groups


def dotted_path(name: str) -> tuple[str, str]:
    """Component and module path of a kohya name.

    Raises:
        UnusableFileError: If a part of the name is unknown.

    Example:
        >>> dotted_path("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0")
        ('unet', 'mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0')
    """
    prefixes = {"lora_unet_": "unet", "lora_te_": "text_encoder", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2"}
    prefix = next((p for p in prefixes if name.startswith(p)), None)
    rest = "" if prefix is None else name.removeprefix(prefix)
    parts: list[str] = []
    while rest:
        found = _PATH.match(rest)
        if found is None or (found.end() < len(rest) and rest[found.end()] != "_"):
            parts = []
            break
        parts.append(found[0])
        rest = rest[found.end() + 1 :]
    if prefix is None or not parts:
        raise UnusableFileError(f"a module's path must be made of known parts to be written for diffusers, {name!r} has an unknown one")
    return prefixes[prefix], ".".join(parts)


def to_diffusers(groups: Iterable[tuple[str, Mapping[str, Tensor]]]) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Tensors under diffusers' names, and PEFT's settings with each module's own alpha and rank, by component.

    Raises:
        UnusableFileError: If an update is no plain LoRA or DoRA; diffusers has no name for it.
    """
    tensors: dict[str, Tensor] = {}
    alphas: dict[str, dict[str, float]] = defaultdict(dict)
    ranks: dict[str, dict[str, int]] = defaultdict(dict)
    for name, parts in groups:
        if strange := sorted(set(parts) - {"lora_down.weight", "lora_up.weight", "alpha", "dora_scale"}):
            raise UnusableFileError(
                f"diffusers' format holds plain LoRAs and DoRAs alone, {name} has {strange[0]}; write kohya's format, or resize it first"
            )
        component, path = dotted_path(name)
        tensors[f"{component}.{path}.lora_A.weight"] = parts["lora_down.weight"]
        tensors[f"{component}.{path}.lora_B.weight"] = parts["lora_up.weight"]
        if "dora_scale" in parts:
            tensors[f"{component}.{path}.lora_magnitude_vector"] = parts["dora_scale"].flatten()
        ranks[component][path] = int(parts["lora_down.weight"].shape[0])
        alphas[component][path] = float(parts["alpha"])
    configs = {
        component: {
            "r": max(found.values()),
            "lora_alpha": max(alphas[component].values()),
            "rank_pattern": found,
            "alpha_pattern": alphas[component],
            "target_modules": sorted(found),
            "use_dora": any(key.startswith(f"{component}.") and key.endswith("magnitude_vector") for key in tensors),
        }
        for component, found in ranks.items()
    }
    return tensors, configs
