"""Cards that are not here: what they have, how fast they are known to be, and which PyTorch still serves them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from synthaug.errors import SettingError

__all__ = ["CARDS", "Card", "builds_for", "card_here", "card_of", "memory_size"]

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Card:
    """A graphics card.

    Example:
        >>> card_of("GTX 1080").halves
        'stores halves, computes in fp32'
    """

    name: str
    memory: int
    """MiB; what is free, for a card that is here."""

    capability: tuple[int, int] | None = None
    """CUDA compute capability; None where only the memory was told, which is taken for a card with bf16."""

    rate: float | None = None
    """TFLOP/s that published figures of Stable Diffusion 1.x show, not the maker's peak; None where none was found."""

    @property
    def halves(self) -> str:
        """What it does with half precision, in words."""
        if self.capability is None or self.capability >= (8, 0):
            return "computes in bf16"
        if self.capability[0] < 7:
            return "stores halves, computes in fp32"
        return "answers NaN in fp16, computes in fp32" if "GTX 16" in self.name else "computes in fp16"


_TABLE: dict[str, tuple[int, tuple[int, int], float | None]] = {
    "GTX 1050 Ti": (4096, (6, 1), None), "GTX 1060": (6144, (6, 1), None), "GTX 1070": (8192, (6, 1), 3.15),
    "GTX 1070 Ti": (8192, (6, 1), None), "GTX 1080": (8192, (6, 1), 4.3), "GTX 1080 Ti": (11264, (6, 1), None),
    "P100": (16384, (6, 0), 5.9), "V100": (16384, (7, 0), None), "T4": (15360, (7, 5), 11.1),
    "GTX 1650": (4096, (7, 5), None), "GTX 1660": (6144, (7, 5), None), "GTX 1660 Ti": (6144, (7, 5), None),
    "GTX 1660 Super": (6144, (7, 5), None), "RTX 2060": (6144, (7, 5), None), "RTX 2070": (8192, (7, 5), None),
    "RTX 2080": (8192, (7, 5), None), "RTX 2080 Ti": (11264, (7, 5), None), "RTX 3050": (8192, (8, 6), None),
    "RTX 3060": (12288, (8, 6), 12.5), "RTX 3060 Ti": (8192, (8, 6), None), "RTX 3070": (8192, (8, 6), None),
    "RTX 3070 Ti": (8192, (8, 6), None), "RTX 3080": (10240, (8, 6), None), "RTX 3090": (24576, (8, 6), 42.0),
    "RTX 4060": (8192, (8, 9), None), "RTX 4060 Ti": (8192, (8, 9), None), "RTX 4070": (12288, (8, 9), None),
    "RTX 4080": (16384, (8, 9), None), "RTX 4090": (24576, (8, 9), 82.0), "RTX 5060": (8192, (12, 0), None),
    "RTX 5060 Ti": (16384, (12, 0), None), "RTX 5070": (12288, (12, 0), None), "RTX 5080": (16384, (12, 0), None),
    "RTX 5090": (32768, (12, 0), None), "L4": (23034, (8, 9), None), "A100": (40960, (8, 0), None), "H100": (81559, (9, 0), None),
}  # fmt: skip

CARDS: dict[str, Card] = {
    name: Card(name=name, memory=memory, capability=capability, rate=rate) for name, (memory, capability, rate) in _TABLE.items()
}
"""Cards by name. Rates: drawing with SD 1.x as published for the 1070, P100 (gperdrizet/unit-6-assignments), T4, 3090, 4090 (diffusers
documentation 0.30) and 3060 (diffusers documentation 0.20); that of the 1080 is the 1070's, times the ratio of their clocks and cores."""


def card_of(name: str) -> Card:
    """The card of a name, with or without its maker's words in front.

    Raises:
        SettingError: If it is not in the table.

    Example:
        >>> card_of("NVIDIA GeForce RTX 3060 Ti").memory
        8192
    """
    known = {_key(each): card for each, card in CARDS.items()}
    if _key(name) not in known:
        raise SettingError(f"unknown card {name!r}; give its memory with --vram, such as 8GiB, or choose one of: {', '.join(CARDS)}")
    return known[_key(name)]


def _key(name: str) -> str:
    return re.sub(r"nvidia|geforce|tesla|gtx|rtx|[^a-z0-9]", "", name.lower())


def card_here() -> Card:
    """The first card of this machine with the memory that is free now, since others may use it too.

    Raises:
        SettingError: If PyTorch sees none.
    """
    if not torch.cuda.is_available():
        raise SettingError("there is no card here that PyTorch sees; give --card such as 'GTX 1080', or --vram such as 8GiB")
    facts, (free, _) = torch.cuda.get_device_properties(0), torch.cuda.mem_get_info(0)
    rate = next((card.rate for name, card in CARDS.items() if _key(name) == _key(facts.name)), None)
    return Card(name=facts.name, memory=free // MIB, capability=(facts.major, facts.minor), rate=rate)


def memory_size(text: str) -> int:
    """MiB of a size such as ``8GiB``, ``8 GB`` or ``7500MiB``; a card that is sold with GB has GiB.

    Raises:
        SettingError: If it is no size.

    Example:
        >>> memory_size("8GiB"), memory_size("7.5 GB"), memory_size("6000MiB")
        (8192, 7680, 6000)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([gm])(?:i?b)?\s*", text.lower())
    size = 0 if found is None else round(float(found[1]) * (1024 if found[2] == "g" else 1))
    if size < 1:
        raise SettingError(f"a card's memory must be a number and a unit, such as 8GiB or 7500MiB, got {text!r}")
    return size


def builds_for(capability: tuple[int, int] | None) -> str | None:
    """Which builds of PyTorch serve a card; None where the usual one does.

    Example:
        >>> builds_for((6, 1))
        'torch 2.6 to 2.14 built for CUDA 12.6 (cu126); builds for CUDA 12.8 and later, the usual ones, have no code for this card'
        >>> builds_for((8, 6)) is None
        True
    """
    if capability is None or (7, 5) <= capability < (10, 0):
        return None
    if capability >= (10, 0):
        return "torch 2.7 or later built for CUDA 12.8 or later; builds for CUDA 12.6 have no code for this card"
    return "torch 2.6 to 2.14 built for CUDA 12.6 (cu126); builds for CUDA 12.8 and later, the usual ones, have no code for this card"
