"""The names under which a LoRA's tensors are written: kohya's, diffusers' and PEFT's.

kohya's can carry everything. diffusers and PEFT know plain LoRAs and DoRAs; what each module has of rank and alpha stands
in their settings (``rank_pattern``, ``alpha_pattern``), in the file's metadata or in an ``adapter_config.json``.

PEFT: https://huggingface.co/docs/peft/developer_guides/checkpoint.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from torch import Tensor

from synthaug.errors import UnusableFileError
from synthaug.lora.blocks import numbered_block
from synthaug.lora.naming import PREFIXES, NetworkKind, network_of

__all__ = ["dotted_path", "to_diffusers", "to_kohya", "to_peft"]

Group = Mapping[str, Tensor]
"""What follows a module's name -> tensor."""

_WORDS = (
    "down_blocks", "up_blocks", "mid_block", "transformer_blocks", "attentions", "resnets", "downsamplers", "upsamplers",
    "time_emb_proj", "conv_shortcut", "conv_in", "conv_out", "conv1", "conv2", "conv", "attn1", "attn2", "to_q", "to_k", "to_v",
    "to_out", "proj_in", "proj_out", "proj", "ff", "net", "time_embedding", "add_embedding", "linear_1", "linear_2",
    "text_model", "encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "mlp", "fc1", "fc2",
)  # fmt: skip
"""Parts of a module's path; longer ones before their beginnings."""
_PATH = re.compile("|".join(("[0-9]+", *_WORDS)))

_CLASSES: dict[NetworkKind, tuple[str, str]] = {
    "unet": ("UNet2DConditionModel", "diffusers.models.unets.unet_2d_condition"),
    "text_encoder": ("CLIPTextModel", "transformers.models.clip.modeling_clip"),
    "text_encoder_2": ("CLIPTextModelWithProjection", "transformers.models.clip.modeling_clip"),
}
"""Network -> class and module that PEFT's settings name as the base model."""


def dotted_path(name: str) -> tuple[NetworkKind, str]:
    """Network and module path of a kohya name.

    Raises:
        UnusableFileError: If a part of the name is unknown.

    Example:
        >>> dotted_path("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0")
        ('unet', 'mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0')
    """
    kind = network_of(name)
    rest = "" if kind is None else next(name.removeprefix(prefix) for prefix in PREFIXES[kind] if name.startswith(prefix))
    parts: list[str] = []
    while rest:
        found = _PATH.match(rest)
        if found is None or (found.end() < len(rest) and rest[found.end()] != "_"):
            parts = []
            break
        parts.append(found[0])
        rest = rest[found.end() + 1 :]
    if kind is None or not parts:
        raise UnusableFileError(
            f"a module's path must be made of known parts to be written for diffusers or PEFT, {name!r} has an unknown one; "
            "write kohya's layout"
        )
    return kind, ".".join(parts)


def to_kohya(groups: Mapping[str, Group], *, numbered: bool) -> dict[str, Tensor]:
    """Tensors under kohya's names.

    Args:
        groups: What each module has, by kohya name.
        numbered: Number the UNet's blocks as the original does, which SDXL files do.
    """
    return {
        f"{numbered_block(name) if numbered else name}.{part}": value for name, parts in groups.items() for part, value in parts.items()
    }


def to_diffusers(groups: Mapping[str, Group]) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Tensors under diffusers' names, and PEFT's settings with each module's own alpha and rank, by network.

    A text encoder's layers are loaded by transformers, which wants another ending for a DoRA's lengths than PEFT writes.

    Raises:
        UnusableFileError: If an update is no plain LoRA or DoRA; diffusers has no name for it.
    """
    networks = _by_network(groups, "diffusers'")
    tensors = {
        f"{kind}.{path}.{end}{'.weight' if kind != 'unet' and end == 'lora_magnitude_vector' else ''}": value
        for kind, modules in networks.items()
        for path, parts in modules.items()
        for end, value in _peft_parts(parts).items()
    }
    return tensors, {kind: _settings(modules) for kind, modules in networks.items()}


def to_peft(groups: Mapping[str, Group]) -> dict[NetworkKind, tuple[dict[str, Tensor], dict[str, Any]]]:
    """What PEFT saves of each network: tensors, and the content of ``adapter_config.json``.

    The text encoder's paths are those of the transformers version that is installed.

    Raises:
        UnusableFileError: If an update is no plain LoRA or DoRA; PEFT's LoRA has no name for it.
    """
    found: dict[NetworkKind, tuple[dict[str, Tensor], dict[str, Any]]] = {}
    for kind, modules in _by_network(groups, "PEFT's").items():
        here = {_installed(path) if kind == "text_encoder" else path: parts for path, parts in modules.items()}
        tensors = {f"base_model.model.{path}.{end}": v for path, parts in here.items() for end, v in _peft_parts(parts).items()}
        name, library = _CLASSES[kind]
        fixed = {
            "peft_type": "LORA", "task_type": None, "inference_mode": True, "bias": "none", "lora_dropout": 0.0,
            "base_model_name_or_path": None, "auto_mapping": {"base_model_class": name, "parent_library": library},
        }  # fmt: skip
        found[kind] = (tensors, {**fixed, **_settings(here)})
    return found


def _installed(path: str) -> str:
    """The path in CLIPTextModel: transformers 5.6 took ``text_model`` out of it."""
    major, minor = (int(part) for part in version("transformers").split(".")[:2])
    return path.removeprefix("text_model.") if (major, minor) >= (5, 6) else path


def _by_network(groups: Mapping[str, Group], whose: str) -> dict[NetworkKind, dict[str, Group]]:
    """What each module has, by network and path.

    Raises:
        UnusableFileError: If the layout has no name for something.
    """
    networks: dict[NetworkKind, dict[str, Group]] = defaultdict(dict)
    for name, parts in groups.items():
        if strange := sorted(set(parts) - {"lora_down.weight", "lora_up.weight", "alpha", "dora_scale"}):
            raise UnusableFileError(
                f"{whose} layout holds plain LoRAs and DoRAs alone, {name} has {strange[0]}; write kohya's layout, or make it a LoRA "
                "with synthaug.lora.algebra.resize first"
            )
        scale = parts.get("dora_scale")
        if scale is not None and scale.shape[0] != parts["lora_up.weight"].shape[0]:
            raise UnusableFileError(
                f"{whose} layout holds DoRAs with a length for every output, {name} has lengths of shape {tuple(scale.shape)}; "
                "write kohya's layout"
            )
        kind, path = dotted_path(name)
        networks[kind][path] = parts
    for kind, modules in networks.items():
        kinds = {"dora_scale" in parts: path for path, parts in modules.items()}
        if len(kinds) == 2:
            raise UnusableFileError(
                f"{whose} layout holds a network's layers as LoRAs or all as DoRAs, {kind} has a DoRA on {kinds[True]} and none on "
                f"{kinds[False]}; write kohya's layout"
            )
    return networks


def _peft_parts(parts: Group) -> dict[str, Tensor]:
    """A module's tensors as PEFT ends their names; a convolution's lengths lie along its second axis there."""
    down, up = parts["lora_down.weight"], parts["lora_up.weight"]
    found = {"lora_A.weight": down, "lora_B.weight": up}
    if "dora_scale" in parts:
        lengths = parts["dora_scale"].flatten()
        found["lora_magnitude_vector"] = lengths if down.ndim == 2 else lengths.reshape(1, -1, *[1] * (down.ndim - 2))
    return found


def _settings(modules: Mapping[str, Group]) -> dict[str, Any]:
    """PEFT's settings of one network; patterns match the end of a path, with ``text_model`` or without."""
    paths = {path: path.removeprefix("text_model.") for path in modules}
    ranks = {paths[path]: int(parts["lora_down.weight"].shape[0]) for path, parts in modules.items()}
    alphas = {paths[path]: float(parts["alpha"]) for path, parts in modules.items()}
    return {
        "r": max(ranks.values()),
        "lora_alpha": max(alphas.values()),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": sorted(ranks),
        "use_dora": any("dora_scale" in parts for parts in modules.values()),
    }
