"""The LoRA file: safetensors with kohya's key names and metadata that say everything.

Per module X there are ``X.lora_down.weight``, ``X.lora_up.weight`` and the scalar ``X.alpha``. The
metadata are those that A1111, Forge, SD.Next and ComfyUI read (``ss_*``, ``modelspec.*``, ``sshs_*``)
and our own ``synthaug.*``: base and its fingerprint, trigger caption, size, every photo seen.

Converting is reading and writing; every way leads to the same updates, to fp32 rounding:

    LoraFile.read("kohya.safetensors").write("for_peft", layout="peft")
    LoraFile.read("for_peft").write("diffusers.safetensors", layout="diffusers")

Format: kohya-ss/sd-scripts; model spec: https://github.com/Stability-AI/ModelSpec.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from synthaug.errors import SettingError, UnusableFileError, WrongBaseModelError, choose
from synthaug.lora.codec import BUNDLED, read_updates
from synthaug.lora.describe import describe
from synthaug.lora.disk import read_content, write_networks, write_tensors
from synthaug.lora.family import family_of
from synthaug.lora.layers import LoraLayer, fuse
from synthaug.lora.layouts import to_diffusers, to_kohya, to_peft
from synthaug.lora.naming import NetworkKind, kohya_name, modules_of, network_of, numbered
from synthaug.lora.updates import Update

__all__ = ["LoraFile", "SeenPhoto"]

FORMAT = "1"
Layout = Literal["kohya", "diffusers", "peft"]
"""How a file names its tensors."""

_SDXL = {"ss_base_model_version": "sdxl_base_v1-0", "modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}
"""What tells other programs that a file is for SDXL, where its layers' names do not."""


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

    bundled: Mapping[str, Tensor] = field(default_factory=dict)
    """Words that the file brings along, vectors of textual inversion under the keys they have there."""

    @classmethod
    def of(
        cls,
        unet: Mapping[str, Update],
        text_encoder: Mapping[str, Update],
        metadata: Mapping[str, str],
        *,
        text_encoder_2: Mapping[str, Update] | None = None,
        two_encoders: bool = False,
    ) -> LoraFile:
        """Gather trained layers by module path.

        Args:
            unet: Layers of the UNet.
            text_encoder: Layers of the text encoder, or the first of two.
            metadata: For the header; with two encoders it is added that the file is for SDXL, unless something is said.
            text_encoder_2: Layers of the second text encoder.
            two_encoders: Whether the base has two text encoders, so that the names number them.
        """
        two = two_encoders or bool(text_encoder_2)
        found: dict[NetworkKind, Mapping[str, Update]] = {
            "unet": unet, "text_encoder": text_encoder, "text_encoder_2": text_encoder_2 or {},
        }  # fmt: skip
        layers = {kohya_name(path, kind, two_encoders=two): layer for kind, on in found.items() for path, layer in on.items()}
        return cls(layers=layers, metadata={**(_SDXL if two else {}), **metadata})

    @classmethod
    def read(cls, path: Path | str) -> LoraFile:
        """Read a file of any tool and layout, or a folder that PEFT or diffusers wrote.

        Raises:
            UnusableFileError: If it is a pickle, not safetensors, truncated, or holds no LoRA of this kind.
        """
        path = Path(path)
        content = read_content(path)
        layers = read_updates(content.tensors, content.metadata, path, content.settings)
        bundled = {key: tensor for key, tensor in content.tensors.items() if key.startswith(BUNDLED)}
        return cls(layers=layers, metadata=content.metadata, name=path.name, bundled=bundled)

    def write(self, path: Path | str, *, dtype: torch.dtype = torch.float16, layout: Layout = "kohya") -> None:
        """Write the file, whole or not at all.

        Args:
            path: Where to; missing folders are made.
            dtype: Type of the matrices; alphas stay fp32, so that any value survives.
            layout: ``kohya`` is read by every tool and carries every kind of update; for SDXL it numbers the UNet's blocks as
                the original does, as kohya's scripts want it. ``diffusers`` has PEFT's names with each module's alpha in the
                metadata. ``peft`` makes ``path`` a folder with a sub-folder for each network, for ``PeftModel.from_pretrained``.

        Raises:
            OutputError: If it cannot be written.
            SettingError: If there is no such layout, or the path does not suit it.
            UnusableFileError: If an update has no name in the layout.

        Example:
            >>> import tempfile
            >>> name = "lora_unet_mid_block_attentions_0_proj_in"
            >>> lora = LoraFile(layers={name: LoraLayer(down=torch.ones(2, 4), up=torch.ones(4, 2), alpha=0.5)}, metadata={})
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     lora.write(f"{folder}/peft", layout="peft")
            ...     LoraFile.read(f"{folder}/peft").layers[name].alpha
            0.5
        """
        path = Path(path)
        choose("layout", layout, dict.fromkeys(get_args(Layout)))
        groups = {name: _cast(layer.tensors(), dtype) for name, layer in self.layers.items()}
        metadata = {key: value for key, value in self.metadata.items() if key != "lora_adapter_metadata"}
        if self.bundled and layout != "kohya":
            raise UnusableFileError(f"only kohya's layout holds bundled words, {self.name} brings {len(self.bundled)}; write that layout")
        if layout == "peft":
            if path.suffix == ".safetensors":
                raise SettingError(f"PEFT's layout is a folder for each network, got the name of a file, {path}; give a folder")
            write_networks(path, to_peft(groups), metadata)
        elif layout == "diffusers":
            tensors, settings = to_diffusers(groups)
            flat = {f"{network}.{key}": value for network, found in settings.items() for key, value in found.items()}
            write_tensors(path, tensors, {**metadata, "lora_adapter_metadata": json.dumps(flat, sort_keys=True)})
        else:
            write_tensors(path, {**to_kohya(groups, numbered=self.family == "sdxl"), **self.bundled}, metadata)

    @property
    def rank(self) -> int:
        """Largest rank of any layer."""
        return max(layer.rank for layer in self.layers.values())

    @property
    def family(self) -> str | None:
        """``sd1``, ``sd2`` or ``sdxl``, as the layers show or the metadata say; ``flux``, ``sd3`` for strangers; None if neither tells."""
        return family_of(self.layers, self.metadata)

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

    def check_base(self, name: str, fingerprint: str, family: str | None = None) -> None:
        """Refuse a base that the LoRA was not made for.

        Args:
            name: Of the base.
            fingerprint: Of its UNet.
            family: Of the base, where it is known: ``sd1``, ``sd2`` or ``sdxl``.

        Raises:
            WrongBaseModelError: If the families or the fingerprints differ. Files that know neither are let through; their
                shapes are checked later.
        """
        if family and self.family and self.family != family:
            raise WrongBaseModelError(
                f"a LoRA must be for the base's family, {self.name} is for {self.family}, {name!r} is {family}; take another base"
            )
        made_for = self.metadata.get("synthaug.base_hash")
        if made_for and made_for != fingerprint:
            raise WrongBaseModelError(
                f"{self.name} was made for base {self.base!r} ({made_for[:8]}), but {name!r} ({fingerprint[:8]}) is loaded; "
                f"pass --base {self.base}, or train again"
            )

    def on(self, networks: Mapping[NetworkKind, nn.Module]) -> tuple[dict[str, Update], dict[str, nn.Module]]:
        """The file's updates and the networks' modules, both by the names that these networks give them.

        Args:
            networks: ``unet`` and, where the base has them at hand, ``text_encoder`` and ``text_encoder_2``.
        """
        two = "text_encoder_2" in networks
        return {numbered(name, two_encoders=two): update for name, update in self.layers.items()}, modules_of(networks)

    def fuse_into(self, networks: Mapping[NetworkKind, nn.Module], weight: float) -> dict[str, Tensor]:
        """Add the LoRA to a base's networks.

        Args:
            networks: ``unet`` and, where the base has them at hand, ``text_encoder`` and ``text_encoder_2``.
            weight: Strength; 1 is as trained.

        Returns:
            What the touched weights were, by kohya name; two text encoders are numbered.

        Raises:
            UnusableFileError: If no module, or not every one, is found in the networks, or shapes differ.
        """
        layers, modules = self.on(networks)
        if missing := sorted(set(layers) - set(modules)):
            found = len(layers) - len(missing)
            raise UnusableFileError(
                f"every layer of a LoRA must have its module in the base, {self.name} matches {found} of {len(layers)} "
                f"(first without: {missing[0]}); it was made for another kind of base model{f', {self.family}' if self.family else ''}"
            )
        if weight == 0:
            return {}
        return fuse(modules, layers, weight)

    def layers_on(self, network: nn.Module, kind: NetworkKind) -> dict[str, LoraLayer]:
        """The file's layers of one network by module path, to go on training them.

        Raises:
            UnusableFileError: If a layer has no module there, or is no plain LoRA.
        """
        paths = {kohya_name(path, kind): path for path, _ in network.named_modules()}
        found: dict[str, LoraLayer] = {}
        for name, layer in self.layers.items():
            if network_of(name) != kind:
                continue
            path = paths.get(numbered(name, two_encoders=False))
            if path is None:
                raise UnusableFileError(
                    f"every layer of a LoRA must have its module in the base, {self.name} has {name}; take its own base"
                )
            if not isinstance(layer, LoraLayer):
                raise UnusableFileError(
                    f"training goes on from plain LoRAs alone, {self.name} has another kind on {name}; make it one with "
                    "synthaug.lora.algebra.resize"
                )
            found[path] = layer
        return found

    def summary(self) -> dict[str, object]:
        """What ``synthaug inspect`` shows; see :func:`synthaug.lora.describe.describe`."""
        return describe(self.layers, self.metadata)


def require_caption(lora: LoraFile) -> str:
    """The trigger caption, or a sentence saying how to give a prompt.

    Raises:
        SettingError: If the file has none.
    """
    if not lora.caption:
        raise SettingError(f"{lora.name} does not say which caption brings it out; give a prompt")
    return lora.caption


def _cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Matrices in ``dtype``, alphas as they are."""
    return {part: value if part == "alpha" else value.to(dtype, copy=True).contiguous() for part, value in tensors.items()}
