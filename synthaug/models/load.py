"""Load a base: ``"pocket"``, a diffusers folder, a hub id, or one ``.safetensors`` file.

Only safetensors are read: a pickle can run anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ConfigMixin, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from transformers.utils import logging as transformers_logging

from synthaug.errors import SettingError, SynthaugError, UnusableFileError
from synthaug.models.base import Base, Part, Prediction, check_whole, family_of, fingerprint, inpaints, still
from synthaug.models.single_file import read_configs, read_single_file
from synthaug.models.stated import agreed_prediction
from synthaug.models.tokenizers import read_tokenizer
from synthaug.pocket import FEW_STEPS, WEIGHTS
from synthaug.pocket.checksums import check_weights

__all__ = ["Base", "Part", "Prediction", "configs_of", "few_step_lora", "fingerprint", "load_base", "resolve"]

_FILES: dict[Part, tuple[str, ...]] = {"unet": ("unet",), "vae": ("vae",), "text": ("text_encoder", "tokenizer")}
_FOLDERS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_SECOND = ("text_encoder_2", "tokenizer_2")


def resolve(name: str) -> str:
    """Turn what the user wrote into a folder, a file or a hub id.

    Raises:
        UnusableFileError: If it is a pickle, or a folder that lacks something.
        SettingError: If it is the name of a file that is not there.
    """
    path = Path(name)
    if name == "pocket":
        return str(WEIGHTS)
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin", ".pkl"):
        raise UnusableFileError(
            f"a base must be safetensors, {name} is a pickle, which can run any program when it is read; "
            "save it again as safetensors on a machine you can spare"
        )
    if path.suffix == ".safetensors" and not path.is_file():
        raise SettingError(f"there is no base file {name}; check the path, or give 'pocket', a diffusers folder or a hub id")
    if path.is_dir():
        _check_folder(name, _FOLDERS)
    return name


def load_base(
    name: str,
    *,
    parts: Collection[Part] = ("unet", "vae", "text"),
    prediction: Prediction | None = None,
    dtype: torch.dtype | None = None,
) -> Base:
    """Load a base, or some parts of it, in evaluation mode and without gradients.

    A local folder or file never needs the network, but for the tokenizer of a file: a folder ``tokenizer`` beside it is
    taken first, then the hub's cache, then the hub.

    Args:
        name: ``"pocket"``, a diffusers folder, a hub id such as ``"stable-diffusion-v1-5/stable-diffusion-v1-5"``, or one
            ``.safetensors`` file of SD 1.x, SD 2.x or SDXL.
        parts: Which parts to load; training wants them one after the other.
        prediction: What the UNet predicts, for files that do not say (most of SD 2.x); None believes the base.
        dtype: Precision of every part, without a copy in another one in between; None leaves it to the files.

    Returns:
        The base, on the CPU. Without ``dtype`` one file comes in its own precision, and of a folder UNet and VAE come in fp32.

    Raises:
        UnusableFileError: If it is a pickle, damaged, or of another kind; with the weights that are missing or too many.
        SettingError: If nothing of this name can be found, or the base predicts something else.

    Example:
        >>> load_base("pocket", parts=()).prediction_type
        'v_prediction'
    """
    place = resolve(name)
    if name == "pocket":
        check_weights(WEIGHTS, {folder for part in parts for folder in _FILES[part]})
    with _explained(name, place):
        if Path(place).is_file():
            base = read_single_file(Path(place), name, parts=parts, prediction=prediction)
            return base.to("cpu", dtype) if dtype else base
        return _from_folder(place, name, parts, prediction, dtype)


def configs_of(name: str) -> tuple[dict[str, Any], dict[str, Any], tuple[dict[str, Any], ...]]:
    """Settings of a base's UNet, autoencoder and text encoders; its weights are not read.

    Args:
        name: As :func:`load_base` takes it.

    Raises:
        UnusableFileError: If it is a pickle, damaged, or of another kind.
        SettingError: If nothing of this name can be found.

    Example:
        >>> unet, vae, texts = configs_of("pocket")
        >>> unet["block_out_channels"], vae["latent_channels"], len(texts)
        ([96, 192], 16, 1)
    """
    place = resolve(name)
    with _explained(name, place):
        if Path(place).is_file():
            return read_configs(Path(place))
        unet, vae = UNet2DConditionModel.load_config(place, subfolder="unet"), AutoencoderKL.load_config(place, subfolder="vae")
        folders = ("text_encoder", "text_encoder_2") if family_of(unet) == "sdxl" else ("text_encoder",)
        texts = tuple(CLIPTextConfig.from_pretrained(place, subfolder=folder).to_dict() for folder in folders)
        return dict(unet), dict(vae), texts


@contextmanager
def _explained(name: str, place: str) -> Iterator[None]:
    """Say in a sentence what is wrong with a base, whichever library found it.

    Raises:
        UnusableFileError: If it is there and cannot be read.
        SettingError: If it is not.
    """
    try:
        with _quiet():
            yield
    except SynthaugError:
        raise
    except (OSError, ValueError, LookupError, RuntimeError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        if Path(place).exists():
            raise UnusableFileError(f"the base {name} cannot be loaded: {first}; download or copy it again") from error
        raise SettingError(
            f"no base {name!r} was found here or on the hub ({first}); give 'pocket', a diffusers folder, one .safetensors file, or a "
            "hub id while online"
        ) from error


def few_step_lora(name: str) -> Path | None:
    """The LoRA that a base ships with, by which four steps of DDIM without guidance do; pocket has one, others have none.

    Raises:
        UnusableFileError: If the file is damaged.

    Example:
        >>> few_step_lora("stable-diffusion-v1-5/stable-diffusion-v1-5") is None
        True
    """
    if name != "pocket" or not FEW_STEPS.is_file():
        return None
    check_weights(FEW_STEPS.parent, {FEW_STEPS.name})
    return FEW_STEPS


def _from_folder(place: str, name: str, parts: Collection[Part], prediction: Prediction | None, dtype: torch.dtype | None) -> Base:
    """A base in diffusers' layout, here or on the hub."""
    schedule = dict(DDIMScheduler.load_config(place, subfolder="scheduler"))
    unet, vae = UNet2DConditionModel.load_config(place, subfolder="unet"), AutoencoderKL.load_config(place, subfolder="vae")
    family = family_of(unet)
    if family == "sdxl" and Path(place).is_dir():
        _check_folder(name, (*_FOLDERS, *_SECOND))
    agreed_prediction(name, {"its scheduler": schedule.get("prediction_type", "epsilon")}, prediction, family)
    base = Base(
        name=name, schedule=schedule, size=_size(unet, vae), family=family, inpaints=inpaints(unet, vae, name),
        nothing_is_zeros=family == "sdxl" and _nothing_is_zeros(place),
    )  # fmt: skip
    if "unet" in parts:
        base.unet = _network(UNet2DConditionModel, place, "unet", name, dtype)
        base.fingerprint = fingerprint(base.unet)
    if "vae" in parts:
        base.vae = _network(AutoencoderKL, place, "vae", name, dtype)
    if "text" in parts:
        base.text_encoder = _network(CLIPTextModel, place, "text_encoder", name, dtype)
        base.tokenizer = read_tokenizer(place, subfolder="tokenizer")
        if family == "sdxl":
            base.text_encoder_2 = _network(CLIPTextModelWithProjection, place, "text_encoder_2", name, dtype)
            base.tokenizer_2 = read_tokenizer(place, subfolder="tokenizer_2")
    return base


_WITHIN = "text_model."
"""What stands before the weights of CLIP's text encoder up to transformers 5.5."""


class _Index(ConfigMixin):  # type: ignore[misc]  # diffusers ships no types
    """What a base says of itself as a whole."""

    config_name = "model_index.json"


def _nothing_is_zeros(place: str) -> bool:
    """What the base's pipeline is told to do without a negative prompt; zeros where it does not say, as diffusers and A1111 do."""
    try:
        return bool(_Index.load_config(place).get("force_zeros_for_empty_prompt", True))
    except OSError:  # an index is not needed for anything else
        return True


def _network(kind: Any, place: str, folder: str, name: str, dtype: torch.dtype | None) -> Any:
    """One network of a folder, with every weight it has and no other."""
    files = [path.name for path in Path(place, folder).glob("*.safetensors*")]
    only_half = bool(files) and all(".fp16." in file for file in files)
    settings: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True}
    if only_half:
        settings["variant"] = "fp16"
    if dtype is not None:
        settings["dtype" if folder.startswith("text") else "torch_dtype"] = dtype
    network, info = kind.from_pretrained(place, subfolder=folder, **settings)
    if info["missing_keys"] and {_WITHIN + key for key in info["unexpected_keys"]} == set(info["missing_keys"]):
        # written by transformers 5.6 or later, which has one module less around a text encoder, and read by an earlier one
        network, info = kind.from_pretrained(place, subfolder=folder, key_mapping={"^": _WITHIN}, **settings)
    extra = [key for key in info["unexpected_keys"] if not key.endswith("position_ids")]
    check_whole(name, folder, sorted(info["missing_keys"]), extra)
    return still(network)


def _check_folder(name: str, wanted: Collection[str]) -> None:
    if missing := [part for part in wanted if not Path(name, part).is_dir()]:
        raise UnusableFileError(
            f"a base folder must hold {', '.join(wanted)}, {name} has no {missing[0]}; check the path, or copy it again"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the reports and bars of both libraries: what is wrong with a base is said once, by an error."""
    before = [(library, library.get_verbosity()) for library in (transformers_logging, diffusers_logging)]
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for library, _ in before:
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, level in before:
            library.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()


def _size(unet: dict[str, Any], vae: dict[str, Any]) -> tuple[int, int]:
    """Height and width: the UNet's, in latents, or where it says nothing, the autoencoder's."""
    latent, factor = unet.get("sample_size"), 2 ** (len(vae["block_out_channels"]) - 1)
    side = latent or [vae["sample_size"] // factor] * 2
    height, width = side if isinstance(side, list | tuple) else (side, side)
    return int(height) * factor, int(width) * factor
