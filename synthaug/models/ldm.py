"""Write a base as one file in the layout of CompVis and Stability AI, which A1111, Forge and ComfyUI read.

The metadata say what weights do not show: what is predicted and at which size, by the model spec
(https://github.com/Stability-AI/ModelSpec), and every setting, for reading it here again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from synthaug.errors import OutputError, SettingError
from synthaug.models.base import Base
from synthaug.models.ldm_names import TEXT, Place, places_of_text, places_of_unet, places_of_vae, written
from synthaug.models.stated import SAID

__all__ = ["ldm_weights", "write_ldm"]

_ARCHITECTURE = {"sd1": "stable-diffusion-v1", "sd2": "stable-diffusion-v2", "sdxl": "stable-diffusion-xl-v1-base"}
_IMPLEMENTATION = {
    "sd1": "https://github.com/CompVis/stable-diffusion", "sd2": "https://github.com/Stability-AI/stablediffusion",
    "sdxl": "https://github.com/Stability-AI/generative-models",
}  # fmt: skip


def write_ldm(
    base: Base, path: Path | str, *, dtype: torch.dtype | None = None, metadata: Mapping[str, str] | None = None
) -> None:
    """Write UNet, autoencoder and text encoders of a base, whole or not at all.

    Args:
        base: With all its parts loaded.
        path: Where to, a ``.safetensors`` file; missing folders are made.
        dtype: Type of the weights; None leaves each as it is.
        metadata: What to say besides, such as which LoRA was baked in.

    Raises:
        SettingError: If a part is not loaded, the UNet has weights that the layout has no name for, as pocket's has, or the path
            does not end in ``.safetensors``.
        OutputError: If the file cannot be written.

    Example:
        >>> from synthaug.models.load import load_base
        >>> write_ldm(load_base("pocket", parts=("unet",)), "pocket.safetensors")
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: a base must be whole to be written, pocket was loaded without VAE and text encoder; load all parts of it
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise SettingError(f"a base in one file is written as .safetensors, got {path}; give {path.with_suffix('.safetensors').name}")
    weights = {name: weight.to(dtype or weight.dtype) for name, weight in ldm_weights(base).items()}
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, part, {**_about(base), **(metadata or {})})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # the first failure is the one to tell
            part.unlink(missing_ok=True)
        raise OutputError(f"{path} could not be written ({error}); free some space or choose another folder") from error


def ldm_weights(base: Base) -> dict[str, Tensor]:
    """Every weight of a base by its name in the layout; on the CPU, and without a copy where the form is the same.

    Raises:
        SettingError: If a part is not loaded, or the UNet has weights that the layout has no name for.
    """
    encoders = [encoder for encoder in (base.text_encoder, base.text_encoder_2) if encoder is not None]
    texts = TEXT[base.family]
    there = {"UNet": base.unet, "VAE": base.vae, "text encoder": len(encoders) == len(texts)}
    if missing := [part for part, network in there.items() if not network]:
        raise SettingError(
            f"a base must be whole to be written, {base.name} was loaded without {' and '.join(missing)}; load all parts of it"
        )
    assert base.unet is not None
    assert base.vae is not None
    unet, vae = _weights(base.unet), _weights(base.vae)
    found = _written(unet, places_of_unet(unet, base.unet.config["layers_per_block"]), base.name)
    found |= _written(vae, places_of_vae(vae, len(base.vae.config["block_out_channels"])), base.name)
    for encoder, prefix in zip(encoders, texts, strict=True):
        weights = _weights(encoder)
        found |= _written(weights, places_of_text(weights, prefix), base.name)
        if base.family == "sd2":
            found |= _layer_more(found, f"{prefix}transformer.resblocks.", encoder.config.num_hidden_layers)
    return found | _marks(base)


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {path: weight.detach().cpu() for path, weight in network.state_dict().items() if not path.endswith("position_ids")}


def _written(weights: Mapping[str, Tensor], places: Mapping[str, Place], name: str) -> dict[str, Tensor]:
    if nameless := sorted(weights.keys() - places.keys()):
        raise SettingError(
            f"a base in one file has only weights that the layout of Stable Diffusion has names for, {name} has {len(nameless)} others "
            f"({', '.join(nameless[:3])}); keep it as a diffusers folder"
        )
    return written(weights, places)


def _layer_more(weights: Mapping[str, Tensor], prefix: str, layers: int) -> dict[str, Tensor]:
    """The last layer of SD 2.x's text encoder, which nobody uses and everybody leaves out: a copy of the one before it."""
    last = f"{prefix}{layers - 1}."
    return {name.replace(last, f"{prefix}{layers}."): weight.clone() for name, weight in weights.items() if name.startswith(last)}


def _marks(base: Base) -> dict[str, Tensor]:
    """Empty weights by which other tools know what is predicted."""
    marks = {"v_pred": base.prediction_type == "v_prediction", "ztsnr": base.schedule.get("rescale_betas_zero_snr", False)}
    return {name: torch.zeros(0) for name, there in marks.items() if there}


def _about(base: Base) -> dict[str, str]:
    """The metadata."""
    assert base.unet is not None
    assert base.vae is not None
    height, width = base.size
    encoders = [encoder.config.to_diff_dict() for encoder in (base.text_encoder, base.text_encoder_2) if encoder is not None]
    said = {
        "size": base.size, "schedule": _plain(base.schedule), "unet": _plain(base.unet.config), "vae": _plain(base.vae.config),
        "text": [{key: value for key, value in _plain(encoder).items() if "dtype" not in key} for encoder in encoders],
    }  # fmt: skip
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": _ARCHITECTURE[base.family],
        "modelspec.implementation": _IMPLEMENTATION[base.family],
        "modelspec.title": Path(base.name).stem,
        "modelspec.prediction_type": "v" if base.prediction_type == "v_prediction" else "epsilon",
        "modelspec.resolution": f"{width}x{height}",
        SAID: json.dumps(said, sort_keys=True),
    }


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without what diffusers notes for itself, such as where the network came from."""
    return {key: value for key, value in config.items() if not key.startswith("_")}
