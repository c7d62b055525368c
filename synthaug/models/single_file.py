"""Read a base from one ``.safetensors`` file in the layout of CompVis and Stability AI, without the network.

The networks are built from the shapes of the weights, and the weights stay mapped into the file until something changes
them, so that a base costs no memory twice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from synthaug.errors import UnusableFileError
from synthaug.models.base import Base, Part, Prediction, check_whole, fingerprint, inpaints, still
from synthaug.models.ldm_names import TEXT, UNET, VAE, Family, Place, places_of_text, places_of_unet, places_of_vae
from synthaug.models.ldm_shapes import text_config, unet_config, vae_config
from synthaug.models.stated import agreed_prediction, log, said_by_us, schedule_of, size_of, stated_predictions
from synthaug.models.tokenizers import find_tokenizer

__all__ = ["read_configs", "read_single_file"]

_LOOKS_LIKE = {
    "a LoRA": r"lora_|base_model\.|.*(\.lora|lora_down|lora_A|hada_|lokr_)",
    "a Flux checkpoint": r".*double_blocks\.",
    "a Stable Diffusion 3 checkpoint": r".*joint_blocks\.",
    "a ControlNet": r"control_model\.|controlnet_|input_hint_block",
    "the refiner of SDXL": r"conditioner\.embedders\.0\.model\.",
    "a part of a diffusers folder (give the folder)": r"(encoder\.|decoder\.)?(down_blocks|up_blocks|mid_block)\.|text_model\.",
    "a VAE": r"first_stage_model\.|encoder\.|decoder\.",
    "a UNet alone": r"model\.diffusion_model\.|input_blocks\.",
}
"""What people take for a base, by what one of its names begins with; the first that fits is named."""

_SHORT = re.compile(r"(cond_stage_model|conditioner\.embedders\.0)\.transformer\.(?!text_model\.)")
_NEEDLESS = re.compile(r"(.*\.)?(position_ids|logit_scale|text_projection(\.weight)?)|(loss|model_ema)\..*")
_ELSEWHERE = ("model_ema.", "denoiser.", "cond_stage_model.", "conditioner.")

_NOT_SHOWN = {
    "unet": ("attention_head_dim", "upcast_attention", "addition_time_embed_dim"),
    "vae": ("scaling_factor",),
    "text": ("num_attention_heads", "hidden_act", "bos_token_id", "eos_token_id", "pad_token_id", "projection_dim"),
}
"""Network -> settings that the shapes leave open, where the file's own word counts more than the usual value."""


class _File:
    """An open checkpoint: shapes of its weights by name, weights on request."""

    _opened: Any

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._opened = safe_open(path, "pt")
        except (SafetensorError, OSError) as error:
            raise UnusableFileError(
                f"{path} is not a whole safetensors file ({error}); it was cut short or is something else, copy or download it again"
            ) from error
        self.metadata: dict[str, str] = dict(self._opened.metadata() or {})
        self._stored = {_SHORT.sub(r"\1.transformer.text_model.", name): name for name in self._opened.keys()}  # noqa: SIM118  # not a dict
        self.shapes = {name: tuple(self._opened.get_slice(stored).get_shape()) for name, stored in self._stored.items()}

    def under(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Shapes of one network's weights, by the rest of their names."""
        return {name.removeprefix(prefix): shape for name, shape in self.shapes.items() if name.startswith(prefix)}

    def read(self, name: str) -> Tensor:
        """A weight, mapped into the file."""
        weight: Tensor = self._opened.get_tensor(self._stored[name])
        return weight


def read_single_file(path: Path, name: str, *, parts: Collection[Part], prediction: Prediction | None = None) -> Base:
    """Read a base, or parts of it.

    Args:
        path: The file.
        name: As the user gave it.
        parts: Which parts to load.
        prediction: What the network predicts, for files that do not say.

    Returns:
        The base, on the CPU, each part in the precision that most of its weights have.

    Raises:
        UnusableFileError: If the file is cut short, is no base, lacks weights, or says what cannot be.
        SettingError: If the file says that the network predicts something else.
    """
    file = _File(path)
    family = _family(file)
    said = said_by_us(file.metadata, path)
    kind = agreed_prediction(name, stated_predictions(path, file.shapes, file.metadata), prediction, family)
    size = size_of(file.metadata, said, family, kind)
    try:
        configs = _configs(file, family, said, size[0])
    except KeyError as error:
        check_whole(name, "file", [str(error.args[0])], [])
        raise
    unet, vae, texts = configs
    base = Base(
        name=name, schedule=schedule_of(file.shapes, said, kind), size=size, family=family, inpaints=inpaints(unet, vae, name),
        nothing_is_zeros=family == "sdxl",
    )  # fmt: skip
    if "unet" in parts:
        base.unet = _unet(file, unet)
        base.fingerprint = fingerprint(base.unet)
    if "vae" in parts:
        base.vae = _vae(file, vae)
    if "text" in parts:
        _add_text(file, base, texts)
    return base


def read_configs(path: Path) -> tuple[dict[str, Any], dict[str, Any], tuple[dict[str, Any], ...]]:
    """Settings of the UNet, autoencoder and text encoders in a file, without reading its weights.

    Raises:
        UnusableFileError: If the file is cut short, is no base, or lacks weights.
    """
    file = _File(path)
    family = _family(file)
    said = said_by_us(file.metadata, path)
    kinds = set(stated_predictions(path, file.shapes, file.metadata).values())
    side = size_of(file.metadata, said, family, kinds.pop() if len(kinds) == 1 else "v_prediction")[0]
    try:
        unet, vae, texts = _configs(file, family, said, side)
    except KeyError as error:
        check_whole(str(path), "file", [str(error.args[0])], [])
        raise
    return unet, vae, tuple(texts)


def _family(file: _File) -> Family:
    """Which kind of base it is.

    Raises:
        UnusableFileError: If it is none, with what it looks like.
    """

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in file.shapes)

    family = next((family for family, prefixes in TEXT.items() if all(has(prefix) for prefix in prefixes)), None)
    lacks = [what for what, there in (("UNet", has(f"{UNET}input_blocks.")), ("VAE", has(VAE)), ("text encoder", family)) if not there]
    if lacks or family is None:
        looks = next((what for what, start in _LOOKS_LIKE.items() if any(re.match(start, name) for name in file.shapes)), "something else")
        raise UnusableFileError(
            f"a base in one file must hold UNet, VAE and text encoder of SD 1.x, SD 2.x or SDXL, {file.path} has no "
            f"{' and no '.join(lacks)}; it looks like {looks}, take a whole checkpoint or a diffusers folder"
        )
    if "edm_mean" in file.shapes:
        raise UnusableFileError(f"a base must predict epsilon or v, {file.path} was trained by EDM (Playground 2.5); take another base")
    known = (UNET, VAE, *TEXT[family], *_ELSEWHERE)
    if strange := sorted(name for name in file.shapes if "." in name and not name.startswith(known)):
        log.warning("%s has %d weights that belong to no part of a base and are left aside: %s", file.path, len(strange), strange[:3])
    return family


def _configs(
    file: _File, family: Family, said: Mapping[str, Any], side: int
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Settings of UNet, autoencoder and text encoders: from the weights what they show, else from the metadata, else the usual."""
    texts = [
        text_config(file.under(prefix), is_open=prefix.endswith(".model."), drop_last=family == "sd2") for prefix in TEXT[family]
    ]  # fmt: skip
    texts = [_joined("text", shown, known) for shown, known in zip(texts, said.get("text", [{}, {}]), strict=False)]
    vae = _joined("vae", vae_config(file.under(VAE), family) | {"sample_size": side}, said.get("vae", {}))
    shown = unet_config(file.under(UNET), family, texts[-1]["projection_dim"])
    unet = shown | {"sample_size": side // 2 ** (len(vae["block_out_channels"]) - 1)}
    return _joined("unet", unet, said.get("unet", {})), vae, texts


def _joined(what: str, shown: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    return {**said, **{key: value for key, value in shown.items() if key not in said or key not in _NOT_SHOWN[what]}}


def _unet(file: _File, config: Mapping[str, Any]) -> UNet2DConditionModel:
    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(dict(config))
    return _filled(file, unet, places_of_unet(unet.state_dict(), config["layers_per_block"]), UNET)


def _vae(file: _File, config: Mapping[str, Any]) -> AutoencoderKL:
    with init_empty_weights():
        vae = AutoencoderKL.from_config(dict(config))
    return _filled(file, vae, places_of_vae(vae.state_dict(), len(config["block_out_channels"])), VAE)


def _add_text(file: _File, base: Base, configs: list[dict[str, Any]]) -> None:
    """Text encoders and tokenizers."""
    found = []
    for second, (prefix, config) in enumerate(zip(TEXT[base.family], configs, strict=True)):
        kind = CLIPTextModelWithProjection if second else CLIPTextModel
        with init_empty_weights():
            encoder = kind(CLIPTextConfig.from_dict(config))
        unused = f"{prefix}transformer.resblocks.{config['num_hidden_layers']}." if base.family == "sd2" else None
        encoder = _filled(file, encoder, places_of_text(encoder.state_dict(), prefix), prefix, unused)
        is_open = prefix.endswith(".model.")
        found += [encoder, find_tokenizer(file.path, words=config["vocab_size"], is_open=is_open, second=bool(second))]
    base.text_encoder, base.tokenizer, base.text_encoder_2, base.tokenizer_2 = (*found, None, None)[:4]


def _filled(file: _File, network: nn.Module, places: Mapping[str, Place], prefix: str, unused: str | None = None) -> Any:
    """The network with its weights.

    Raises:
        UnusableFileError: If one is missing, has no place, or has another shape.
    """
    names = {place.name for place in places.values()}
    stored = {name for name in file.shapes if name.startswith(prefix) and not (unused and name.startswith(unused))}
    extra = [name for name in stored - names if not _NEEDLESS.fullmatch(name.removeprefix(prefix))]
    check_whole(str(file.path), type(network).__name__, sorted(names - stored), sorted(extra))
    weights = {path: place.read(file.read(place.name)) for path, place in places.items()}
    for path, wanted in network.state_dict().items():
        if weights[path].shape != wanted.shape:
            raise UnusableFileError(
                f"the weights of a base must fit each other, {places[path].name} of {file.path} is {tuple(weights[path].shape)} where "
                f"{tuple(wanted.shape)} is needed; it is damaged or of another kind, download or copy it again"
            )
    dtype = _precision(weights, file.path)
    network.load_state_dict({path: weight.to(dtype) for path, weight in weights.items()}, assign=True)
    return still(network)


def _precision(weights: Mapping[str, Tensor], path: Path) -> torch.dtype:
    """The precision that most values have; eight bits are taken up to fp16, which holds them all.

    Raises:
        UnusableFileError: If they are no floating-point numbers.
    """
    counts: Counter[torch.dtype] = Counter()
    for weight in weights.values():
        counts[weight.dtype] += weight.numel()
    dtype = counts.most_common(1)[0][0]
    if not dtype.is_floating_point:
        raise UnusableFileError(f"weights of a base must be floating-point numbers, those of {path} are {dtype}; take an fp16 file of it")
    return torch.float16 if dtype.itemsize == 1 else dtype
