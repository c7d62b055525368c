"""The LoRA file: safetensors with kohya's key names and metadata that say everything.

Per module X there are ``X.lora_down.weight``, ``X.lora_up.weight`` and the scalar ``X.alpha``. The
metadata are those that A1111, Forge, SD.Next and ComfyUI read (``ss_*``, ``modelspec.*``, ``sshs_*``)
and our own ``synthaug.*``: base and its fingerprint, trigger caption, size, every photo seen.

Format: kohya-ss/sd-scripts; model spec: https://github.com/Stability-AI/ModelSpec.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from synthaug.errors import OutputError, SettingError, UnusableFileError, WrongBaseModelError
from synthaug.lora.codec import read_updates
from synthaug.lora.formats import to_diffusers
from synthaug.lora.layers import LoraLayer, fuse
from synthaug.lora.naming import NetworkKind, kohya_name, modules_by_name
from synthaug.lora.updates import Decomposed, Update

__all__ = ["LoraFile", "SeenPhoto"]

FORMAT = "1"
Layout = Literal["kohya", "diffusers"]
"""How a file names its tensors."""


@dataclass(frozen=True, kw_only=True)
class SeenPhoto:
    """A photo that the LoRA was trained on."""

    sha256: str
    """Hash of its upright pixels."""

    group: str
    """The physical part it shows."""


@dataclass(frozen=True, kw_only=True)
class LoraFile:
    """A LoRA: its layers by kohya name, and its metadata.

    Example:
        >>> layer = LoraLayer(down=torch.zeros(2, 4), up=torch.zeros(4, 2), alpha=2.0)
        >>> LoraFile(layers={"lora_unet_x": layer}, metadata={}).rank
        2
    """

    layers: Mapping[str, Update]
    """Update of each module, by kohya name."""

    metadata: Mapping[str, str]
    """As in the file's header, without the hashes that :meth:`write` adds."""

    name: str = "LoRA"
    """Where it came from, for messages."""

    @classmethod
    def of(cls, unet: Mapping[str, Update], text_encoder: Mapping[str, Update], metadata: Mapping[str, str]) -> LoraFile:
        """Gather trained layers by module path."""
        kinds: tuple[tuple[NetworkKind, Mapping[str, Update]], ...] = (("unet", unet), ("text_encoder", text_encoder))
        layers = {kohya_name(path, kind): layer for kind, found in kinds for path, layer in found.items()}
        return cls(layers=layers, metadata=dict(metadata))

    @classmethod
    def read(cls, path: Path | str) -> LoraFile:
        """Read a file.

        Raises:
            UnusableFileError: If it is a pickle, not safetensors, truncated, or holds no LoRA of this kind.
        """
        path = Path(path)
        if path.suffix in (".ckpt", ".pt", ".pth", ".bin", ".pkl"):
            raise UnusableFileError(
                f"a LoRA must be a .safetensors file, {path} is a pickle, which can run any program when it is read; "
                "ask its author for safetensors"
            )
        if not path.is_file():
            raise UnusableFileError(f"there is no LoRA file {path}; train one with: synthaug fit --out {path.name}")
        try:
            with safe_open(path, "pt") as opened:
                metadata = dict(opened.metadata() or {})
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # not a dict
        except (SafetensorError, OSError) as error:
            raise UnusableFileError(
                f"{path} is not a whole safetensors file ({error}); it was cut short or is something else, copy or download it again"
            ) from error
        return cls(layers=read_updates(tensors, metadata, path), metadata=metadata, name=path.name)

    def write(self, path: Path | str, *, dtype: torch.dtype = torch.float16, layout: Layout = "kohya") -> None:
        """Write the file, whole or not at all.

        Args:
            path: Where to; missing folders are made.
            dtype: Type of the matrices; alphas stay fp32, so that any value survives.
            layout: ``kohya`` is read by every tool; ``diffusers`` has PEFT's names with each module's alpha in the metadata.

        Raises:
            OutputError: If it cannot be written.
            UnusableFileError: If an update has no name in the layout.
        """
        path = Path(path)
        groups = {name: _cast(layer.tensors(), dtype) for name, layer in self.layers.items()}
        metadata = dict(self.metadata)
        metadata.pop("lora_adapter_metadata", None)
        if layout == "diffusers":
            tensors, settings = to_diffusers(groups.items())
            flat = {f"{component}.{key}": value for component, found in settings.items() for key, value in found.items()}
            metadata["lora_adapter_metadata"] = json.dumps(flat, sort_keys=True)
        else:
            tensors = {f"{name}.{part}": value for name, parts in groups.items() for part, value in parts.items()}
        body = _data(save(tensors, _only_ss(metadata)))
        metadata["sshs_model_hash"] = hashlib.sha256(body).hexdigest()
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(save(tensors, metadata))
            part.replace(path)
        except OSError as error:
            with suppress(OSError):  # the first failure is the one to tell
                part.unlink(missing_ok=True)
            raise OutputError(f"{path} could not be written ({error.strerror}); free some space or choose another folder") from error

    @property
    def rank(self) -> int:
        """Largest rank of any layer."""
        return max(layer.rank for layer in self.layers.values())

    @property
    def base(self) -> str | None:
        """The base it was trained on, as given to ``fit``; None in other tools' files."""
        return self.metadata.get("synthaug.base")

    @property
    def caption(self) -> str | None:
        """Caption that brings out what was learned."""
        return self.metadata.get("synthaug.caption") or self.metadata.get("modelspec.trigger_phrase")

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the training pictures."""
        if "synthaug.size" in self.metadata:
            height, width = map(int, self.metadata["synthaug.size"].split("x"))
            return height, width
        return None

    @property
    def photos(self) -> tuple[SeenPhoto, ...]:
        """Every photo it has seen; empty in other tools' files."""
        return tuple(SeenPhoto(**row) for row in json.loads(self.metadata.get("synthaug.photos", "[]")))

    @property
    def content_hash(self) -> str:
        """SHA-256 of the tensors, which metadata edits leave alone; what ``Lora hashes`` means in infotext."""
        return self.metadata.get("sshs_model_hash", "")

    def check_base(self, name: str, fingerprint: str) -> None:
        """Refuse a base that the LoRA was not made for.

        Raises:
            WrongBaseModelError: If the fingerprints differ. Files without one are let through; their shapes are checked later.
        """
        made_for = self.metadata.get("synthaug.base_hash")
        if made_for and made_for != fingerprint:
            raise WrongBaseModelError(
                f"{self.name} was made for base {self.base!r} ({made_for[:8]}), but {name!r} ({fingerprint[:8]}) is loaded; "
                f"pass --base {self.base}, or train again"
            )

    def fuse_into(self, networks: Mapping[NetworkKind, nn.Module], weight: float) -> dict[str, Tensor]:
        """Add the LoRA to a base's networks.

        Args:
            networks: ``unet`` and, where the base has one at hand, ``text_encoder``.
            weight: Strength; 1 is as trained.

        Returns:
            What the touched weights were, by kohya name.

        Raises:
            UnusableFileError: If no module, or not every one, is found in the networks, or shapes differ.
        """
        modules = {name: m for kind, network in networks.items() for name, m in modules_by_name(network, kind).items()}
        missing = sorted(set(self.layers) - set(modules))
        if missing:
            found = len(self.layers) - len(missing)
            raise UnusableFileError(
                f"every layer of a LoRA must have its module in the base, {self.name} matches {found} of {len(self.layers)} "
                f"(first without: {missing[0]}); it was made for another kind of base model"
            )
        if weight == 0:
            return {}
        return fuse(modules, self.layers, weight)

    def layers_on(self, network: nn.Module, kind: NetworkKind) -> dict[str, LoraLayer]:
        """The file's layers of one network by module path, to go on training them.

        Raises:
            UnusableFileError: If a layer has no module there, or is no plain LoRA.
        """
        paths = {kohya_name(path, kind): path for path, _ in network.named_modules()}
        prefix = "lora_unet_" if kind == "unet" else "lora_te"
        found: dict[str, LoraLayer] = {}
        for name, layer in self.layers.items():
            if not name.startswith(prefix):
                continue
            if name not in paths:
                raise UnusableFileError(
                    f"every layer of a LoRA must have its module in the base, {self.name} has {name}; take its own base"
                )
            if not isinstance(layer, LoraLayer):
                raise UnusableFileError(
                    f"training goes on from plain LoRAs alone, {self.name} has another kind on {name}; make it one with "
                    "synthaug.lora.algebra.resize"
                )
            found[paths[name]] = layer
        return found

    def summary(self) -> dict[str, object]:
        """What ``synthaug inspect`` prints."""
        ranks = sorted({layer.rank for layer in self.layers.values()})
        norms = [_size(layer) for layer in self.layers.values()]
        return {
            "layers": len(self.layers),
            "ranks": ranks,
            "zero-effect layers": sum(norm == 0 for norm in norms),
            "largest update (norm)": round(max(norms), 4),
            "base": self.base,
            "caption": self.caption,
            "size": self.size,
            "photos seen": len(self.photos),
            "hash": self.content_hash[:12],
        }


def require_caption(lora: LoraFile) -> str:
    """The trigger caption, or a sentence saying how to give a prompt.

    Raises:
        SettingError: If the file has none.
    """
    if not lora.caption:
        raise SettingError(f"{lora.name} does not say which caption brings it out; give a prompt")
    return lora.caption


def _size(update: Update) -> float:
    """Norm of an update; of a DoRA, of its direction, since its length depends on the base."""
    plain = update.direction if isinstance(update, Decomposed) else update
    return float(plain.change(torch.zeros(plain.shape)).norm())


def _cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Matrices in ``dtype``, alphas as they are."""
    return {part: value if part == "alpha" else value.to(dtype).contiguous() for part, value in tensors.items()}


def _only_ss(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key.startswith("ss_")}


def _data(serialised: bytes) -> bytes:
    """What follows the length and the JSON header."""
    (length,) = struct.unpack("<Q", serialised[:8])
    return serialised[8 + length :]
