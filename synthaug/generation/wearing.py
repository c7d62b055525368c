"""LoRAs on a base's networks: fused into the weights, and taken off again bit for bit."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from synthaug.errors import UnusableFileError
from synthaug.generation.networks import Networks
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import unfuse
from synthaug.lora.naming import NetworkKind, modules_by_name
from synthaug.records import LoraUse

__all__ = ["Wardrobe"]


class Wardrobe:
    """Puts LoRAs on and takes them off.

    Args:
        networks: Wear them.
    """

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._worn: tuple[tuple[LoraUse, tuple[int, ...]], ...] = ()
        self._bare: dict[str, Tensor] = {}

    def wear(self, loras: tuple[LoraUse, ...]) -> None:
        """Fuse these LoRAs into the weights, after taking off the ones that are worn.

        Raises:
            WrongBaseModelError: If a LoRA was made for another base.
            UnusableFileError: If a file cannot be read, or fits no module.
        """
        wanted = tuple((use, _stamp(use.path)) for use in loras)
        if wanted == self._worn:
            return
        base = self._networks.base
        assert base.unet is not None
        assert base.text_encoder is not None
        files = [LoraFile.read(use.path) for use in loras]
        for file in files:
            file.check_base(base.name, base.fingerprint, base.family)
        networks: dict[NetworkKind, nn.Module] = {"unet": base.unet, "text_encoder": base.text_encoder}
        modules = {name: module for kind, network in networks.items() for name, module in modules_by_name(network, kind).items()}
        unfuse(modules, self._bare)
        self._worn, self._bare = (), {}
        try:
            for use, file in zip(loras, files, strict=True):
                self._bare = {**file.fuse_into(networks, use.weight), **self._bare}
        except UnusableFileError:
            unfuse(modules, self._bare)  # the bare base again, not half a costume
            self._bare = {}
            raise
        finally:
            self._networks.texts.forget()
        self._worn = wanted


def _stamp(path: str) -> tuple[int, ...]:
    """Tells a file from a later one of the same name; () when there is none."""
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino
