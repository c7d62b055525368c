"""A LoRA on the disk: one safetensors file, or a folder as PEFT writes them."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from synthaug.errors import OutputError, UnusableFileError

__all__ = ["Content", "read_content", "write_networks", "write_tensors"]

_MODEL, _CONFIG, _DIFFUSERS = "adapter_model.safetensors", "adapter_config.json", "pytorch_lora_weights.safetensors"
_NETWORKS = ("unet", "text_encoder", "text_encoder_2")
_CLASSES = {"UNet2DConditionModel": "unet", "CLIPTextModel": "text_encoder", "CLIPTextModelWithProjection": "text_encoder_2"}


@dataclass(frozen=True, kw_only=True)
class Content:
    """What lies on the disk."""

    tensors: dict[str, Tensor]
    """By the names that they have there; those of a PEFT folder begin with their network."""

    metadata: dict[str, str]
    """Of the file; of a folder's first file."""

    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """PEFT's settings by network."""


def read_content(path: Path) -> Content:
    """Read a file, or a folder that PEFT or diffusers wrote.

    Raises:
        UnusableFileError: If there is none, or it is a pickle, not safetensors, or cut short.
    """
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin", ".pkl"):
        raise UnusableFileError(
            f"a LoRA must be a .safetensors file, {path} is a pickle, which can run any program when it is read; "
            "ask its author for safetensors"
        )
    if path.is_dir() and (path / _DIFFUSERS).is_file():
        path = path / _DIFFUSERS
    if path.is_dir():
        return _folder(path)
    if path.name == _MODEL and path.with_name(_CONFIG).is_file():
        return _network(path.parent)
    if not path.is_file():
        raise UnusableFileError(f"there is no LoRA file {path}; train one with: synthaug fit --out {path.name}")
    tensors, metadata = _tensors(path)
    flat = _json(metadata.get("lora_adapter_metadata", "{}"), f"lora_adapter_metadata of {path}")
    settings: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        network, _, setting = key.partition(".")
        settings.setdefault(network, {})[setting] = value
    return Content(tensors=tensors, metadata=metadata, settings=settings)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file with the hash of its tensors, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    only_ss = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    body = _data(save(dict(tensors), only_ss))
    _write(path, save(dict(tensors), {**metadata, "sshs_model_hash": hashlib.sha256(body).hexdigest()}))


def write_networks(
    folder: Path, networks: Mapping[Any, tuple[Mapping[str, Tensor], Mapping[str, Any]]], metadata: Mapping[str, str]
) -> None:  # fmt: skip
    """Write a sub-folder for each network, as PEFT reads them.

    Raises:
        OutputError: If one cannot be written, or the folder has one of an earlier LoRA that would be left.
    """
    for name in _NETWORKS:
        if name not in networks and (folder / name / _MODEL).exists():
            raise OutputError(f"a LoRA must not mix with an earlier one, {folder} has a {name} that this one lacks; choose a new folder")
    for name, (tensors, settings) in networks.items():
        _write(folder / name / _CONFIG, (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode())
        write_tensors(folder / name / _MODEL, tensors, metadata)


def _folder(path: Path) -> Content:
    """All networks of a folder."""
    if (path / _MODEL).is_file():
        return _network(path)
    found = {name: path / name for name in _NETWORKS if (path / name / _MODEL).is_file()}
    if not found:
        raise UnusableFileError(
            f"a LoRA's folder must hold {_MODEL}, {_DIFFUSERS}, or folders {', '.join(_NETWORKS)} with PEFT's files, "
            f"{path} has none of them; give the .safetensors file itself"
        )
    contents = [_network(folder, name) for name, folder in found.items()]
    return Content(
        tensors={key: tensor for content in contents for key, tensor in content.tensors.items()},
        metadata=contents[0].metadata,
        settings={name: settings for content in contents for name, settings in content.settings.items()},
    )


def _network(folder: Path, name: str | None = None) -> Content:
    """What PEFT saved of one network: the folder's name says which, or the class in its settings, or the keys."""
    tensors, metadata = _tensors(folder / _MODEL)
    config = folder / _CONFIG
    if not config.is_file():
        raise UnusableFileError(f"PEFT's weights must have their settings beside them, there is no {config}; copy it too")
    settings = _json(config.read_bytes(), str(config))
    if settings.get("peft_type", "LORA") != "LORA":
        raise UnusableFileError(f"of PEFT's kinds only LORA is read, {config} has {settings['peft_type']}; merge it into its base with PEFT")
    mapping = settings.get("auto_mapping") or {}
    name = name or (folder.name if folder.name in _NETWORKS else _CLASSES.get(mapping.get("base_model_class", "")))
    if name is None:
        return Content(tensors=tensors, metadata=metadata, settings=dict.fromkeys(_NETWORKS, settings))
    return Content(tensors={f"{name}.{key}": tensor for key, tensor in tensors.items()}, metadata=metadata, settings={name: settings})


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as opened:
            metadata = dict(opened.metadata() or {})
            return {key: opened.get_tensor(key) for key in opened.keys()}, metadata  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError) as error:
        raise UnusableFileError(
            f"{path} is not a whole safetensors file ({error}); it was cut short or is something else, copy or download it again"
        ) from error


def _json(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UnusableFileError(f"PEFT's settings must be JSON, {where} is not ({error}); copy or download it again") from error
    if not isinstance(found, dict):
        raise UnusableFileError(f"PEFT's settings must be a table, {where} is a {type(found).__name__}; copy or download it again")
    return found


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # the first failure is the one to tell
            part.unlink(missing_ok=True)
        raise OutputError(f"{path} could not be written ({error.strerror}); free some space or choose another folder") from error


def _data(serialised: bytes) -> bytes:
    """What follows the length and the JSON header."""
    (length,) = struct.unpack("<Q", serialised[:8])
    return serialised[8 + length :]
