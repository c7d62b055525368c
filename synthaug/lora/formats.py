"""The names under which tools store a LoRA's tensors, read into one.

kohya       ``lora_unet_down_blocks_0_..._to_q.lora_down.weight``; OneTrainer's ``lora_te1_`` of SD 1.x; block names of the
            original Stable Diffusion (``input_blocks_4_1_...``), as SDXL files have them
diffusers   ``unet.down_blocks.0...to_q.lora.down.weight``, before 0.22 ``...attn1.processor.to_q_lora.down.weight``
LDM         ``diffusion_model.input_blocks.4.1...lora_up.weight``, and SimpleTuner's ``lycoris_down_blocks_0_...``
PEFT        ``base_model.model.down_blocks.0...to_q.lora_A.weight`` with an ``adapter_config.json`` beside it, and diffusers'
            ``unet.…lora_A.weight`` with the same settings in the file's metadata

A group of tensors is named as kohya names it: module, then ``lora_down.weight``, ``alpha`` and so on.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from synthaug.errors import UnusableFileError
from synthaug.lora.blocks import diffusers_block
from synthaug.lora.naming import network_of

__all__ = ["grouped", "with_peft_alphas"]

Groups = dict[str, dict[str, Tensor]]
"""Module -> what follows its name -> tensor."""

_SUFFIXES = {
    "lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight",
    "lora_A.default.weight": "lora_down.weight", "lora_B.default.weight": "lora_up.weight",
    "lora.down.weight": "lora_down.weight", "lora.up.weight": "lora_up.weight",
    "lora_linear_layer.down.weight": "lora_down.weight", "lora_linear_layer.up.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale", "lora_magnitude_vector.weight": "dora_scale",
    "lora_magnitude_vector.default.weight": "dora_scale",
    **{part: part for part in (
        "lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha", "scale", "dora_scale", "diff", "diff_b", "w_norm", "b_norm",
        *(f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
        *(f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
    )},
}  # fmt: skip
"""How a key of dotted names ends -> how kohya's does."""

_OLD_ATTENTION = re.compile(r"\.processor\.(to_(?:q|k|v|out))_lora\.(down|up)\.weight$")
_COMPONENTS = {"unet": "lora_unet_", "diffusion_model": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}


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
        if key.startswith(("lora_", "lycoris_")):
            name, _, suffix = key.replace("lycoris_", "lora_unet_", 1).partition(".")
            groups[_kohya(name, two_encoders=two_encoders)][suffix] = tensor
        else:
            name, suffix = _from_dotted(key, two_encoders=two_encoders)
            groups[name][suffix] = tensor.flatten()[:, None] if suffix == "dora_scale" else tensor
    return dict(groups)


def _kohya(name: str, *, two_encoders: bool) -> str:
    """A kohya module name with diffusers' block names and the encoder's usual prefix."""
    if name.startswith("lora_te1_") and not two_encoders:
        name = name.replace("lora_te1_", "lora_te_", 1)
    if re.match(r"lora_te\d?_encoder_layers_", name):
        name = name.replace("_encoder_layers_", "_text_model_encoder_layers_", 1)
    return diffusers_block(name)


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
    return diffusers_block(prefix + path.replace(".", "_")), _SUFFIXES[suffix]


def with_peft_alphas(groups: Groups, configs: Mapping[str, Mapping[str, Any]]) -> Groups:
    """Add the alphas that PEFT keeps outside of the tensors; a module without one has alpha = rank.

    Args:
        groups: As :func:`grouped` gives them.
        configs: PEFT's settings (``lora_alpha``, ``alpha_pattern``, ``use_rslora``) by network, ``unet`` or ``text_encoder``.

    Raises:
        UnusableFileError: If an alpha is no number, or a pattern no regular expression.
    """
    for name, parts in groups.items():
        config = configs.get(network_of(name) or "unet")
        if config is None or "alpha" in parts or "lora_down.weight" not in parts:
            continue
        rank = int(parts["lora_down.weight"].shape[0])
        try:
            alpha = _peft_alpha(name, config, rank)
        except (TypeError, ValueError, re.error) as error:
            raise UnusableFileError(
                f"PEFT's settings must give a number as alpha, those for {name} do not ({error}); get them again"
            ) from error
        parts["alpha"] = torch.tensor(alpha * rank**0.5 if config.get("use_rslora") else alpha)
    return groups


def _peft_alpha(name: str, config: Mapping[str, Any], rank: int) -> float:
    """The alpha of the first pattern that the end of the module's path matches, as PEFT looks it up."""
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        spelled = pattern.replace(r"\.", "_")  # a bare dot matches the underscore as it is
        if re.fullmatch(rf"(.*_)?({spelled})", re.sub(r"^lora_[a-z0-9]+_", "", name)):
            return float(value)
    given = config.get("lora_alpha")
    return float(rank if given is None else given)
