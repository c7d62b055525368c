"""``<lora:name:0.8>`` in a prompt: which LoRA files an image wears.

The tags are those of the AUTOMATIC1111 WebUI (https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features#lora). It takes them
from the first prompt of a batch; here each image has its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

from synthaug.errors import SettingError

__all__ = ["LoraTag", "Wearable", "tags_of", "take_tags"]

_TAG = re.compile(r"<(\w+):([^>]+)>")
_KINDS = ("lora", "lyco")
_ORDER = ("te", "unet", "dyn")


@dataclass(frozen=True)
class LoraTag:
    """A LoRA that a prompt calls by name."""

    name: str
    """Stem of the file, or the name that the file gives itself."""

    text_weight: float = 1.0
    """On the text encoders."""

    unet_weight: float = 1.0
    """On the UNet."""


class Wearable(Protocol):
    """A LoRA file and how strongly it is worn, as :class:`synthaug.records.LoraUse` says it."""

    @property
    def path(self) -> str:
        """The file."""

    @property
    def weight(self) -> float:
        """On the UNet."""

    @property
    def text_weight(self) -> float | None:
        """On the text encoders; None is the same as on the UNet."""


def take_tags(prompt: str) -> tuple[str, tuple[LoraTag, ...]]:
    """Take the tags out of a prompt.

    ``<lora:name>`` wears a file as it is, ``<lora:name:0.8>`` weaker, ``<lora:name:0.5:0.8>`` on the text encoders and on the UNet; so do
    ``<lora:name:te=0.5:unet=0.8>`` and ``<lyco:...>``.

    Args:
        prompt: Any text.

    Returns:
        The text without tags, nothing else changed, and the tags in order.

    Raises:
        SettingError: If a tag is of another kind, has no name, too many values, a value that is no finite number, or cuts ranks (``dyn``).

    Example:
        >>> take_tags("a photo of iriko<lora:iriko:0.8>")
        ('a photo of iriko', (LoraTag(name='iriko', text_weight=0.8, unet_weight=0.8),))
    """
    found = tuple(_read(match[0], match[1], match[2].split(":")) for match in _TAG.finditer(prompt))
    return _TAG.sub("", prompt), found


def tags_of(uses: Iterable[Wearable]) -> str:
    """Write LoRAs as tags, so that a prompt says what was worn.

    Raises:
        SettingError: If the name of a file cannot be written in a tag.

    Example:
        >>> from types import SimpleNamespace as Use
        >>> tags_of([Use(path="runs/iriko.safetensors", weight=0.8, text_weight=None), Use(path="scratch", weight=1.0, text_weight=0.5)])
        '<lora:iriko:0.8> <lora:scratch:0.5:1>'
    """
    tags = []
    for use in uses:
        name = _stem(use.path)
        if set(name) & {":", ">"} or not name.strip():
            raise SettingError(
                f"the name of a LoRA in a prompt must have letters, and no ':' or '>', got {name!r}; rename the file {use.path}"
            )
        both = use.text_weight is None or use.text_weight == use.weight
        weights = (use.weight,) if both else (use.text_weight, use.weight)
        tags.append(":".join(["<lora", name, *(_written(weight) for weight in weights if weight is not None)]) + ">")
    return " ".join(tags)


def _stem(path: str) -> str:
    """Name without the folder and without ``.safetensors``; other dots belong to the name."""
    return PurePath(path.replace("\\", "/")).name.removesuffix(".safetensors")


def _written(weight: float) -> str:
    return repr(float(weight)).removesuffix(".0")


def _read(tag: str, kind: str, values: list[str]) -> LoraTag:
    if kind not in _KINDS:
        raise SettingError(f"a tag must be <lora:name:weight>, got {tag}; take it out of the prompt, nothing else can be called by a tag")
    name, *rest = values
    if not name.strip():
        raise SettingError(f"a tag must name a LoRA, got {tag}; write <lora:name:0.8>")
    given: dict[str, str] = {}
    for place, value in enumerate(value for value in rest if "=" not in value):
        if place >= len(_ORDER):
            raise SettingError(f"a tag has a name and at most two weights, got {tag}; write <lora:name:0.5:0.8>")
        given[_ORDER[place]] = value
    for value in rest:
        key, sign, number = value.partition("=")
        if sign and key.strip() not in _ORDER:
            raise SettingError(f"a tag knows te= and unet=, got {key.strip()}= in {tag}; write <lora:name:te=0.5:unet=0.8>")
        if sign:
            given[key.strip()] = number
    if "dyn" in given:
        raise SettingError(f"ranks are not cut while drawing, got dyn in {tag}; cut the file itself with synthaug.lora.algebra.resize")
    text_weight = _number(given.get("te", "1"), tag)
    return LoraTag(name.strip(), text_weight, _number(given["unet"], tag) if "unet" in given else text_weight)


def _number(text: str, tag: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SettingError(f"the weight of a LoRA is a number, got {text!r} in {tag}; write <lora:name:0.8>")
    return number
