"""The text that A1111 writes into its images, so that its tools and Civitai read ours and we read theirs.

First the prompt, then ``Negative prompt: ...`` if there is one, then one line of settings, ``Key: value, ...``. A value that holds
a comma, a colon or a line break is quoted like JSON. LoRAs stand in the prompt as ``<lora:name:weight>``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from synthaug.errors import SettingError

__all__ = ["Finder", "Infotext", "LoraTag", "finder_in", "hashes_in", "lora_hash", "number", "parse_infotext", "take_lora_tags"]

_SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_NEGATIVE = "Negative prompt:"
_FEWEST = 3
"""A last line with fewer settings than this is the end of the prompt."""

Finder = Callable[[str, str], str]
"""Path of a file, from what it is (``LoRA`` or ``embedding``) and its name without ending."""

_SUFFIXES = {"LoRA": (".safetensors",), "embedding": (".safetensors", ".pt", ".bin")}
_TAG = re.compile(r"[ \t]*<(\w+):([^<>]*)>")


@dataclass(frozen=True, kw_only=True)
class LoraTag:
    """One ``<lora:name:weight>``."""

    name: str
    """Stem of the file."""

    weight: float = 1.0
    """On the UNet."""

    text_weight: float | None = None
    """On the text encoders; None is the same as on the UNet."""

    def __str__(self) -> str:
        both = (self.weight,) if self.text_weight is None else (self.text_weight, self.weight)
        return f"<lora:{self.name}:{':'.join(number(weight) for weight in both)}>"


@dataclass(frozen=True, kw_only=True)
class Infotext:
    """Infotext, taken apart."""

    prompt: str
    """LoRA tags included."""

    negative_prompt: str = ""
    """May have several lines, as the prompt may."""

    values: dict[str, str] = field(default_factory=dict)
    """Settings as they stand there, without their quotes; empty if the text has none."""

    def __str__(self) -> str:
        lines = [self.prompt]
        if self.negative_prompt:
            lines.append(f"{_NEGATIVE} {self.negative_prompt}")
        lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in self.values.items()))
        return "\n".join(lines)


def parse_infotext(text: str) -> Infotext:
    r"""Take infotext apart; ``str`` of the result puts it together again.

    Args:
        text: What stands under ``parameters`` in a PNG.

    Example:
        >>> found = parse_infotext("a fish\non paper\nNegative prompt: blur\nSteps: 20, Sampler: Euler a, Seed: 7, Size: 64x32")
        >>> found.prompt, found.negative_prompt, found.values["Sampler"]
        ('a fish\non paper', 'blur', 'Euler a')
    """
    *lines, last = text.strip().split("\n")
    pairs = _SETTING.findall(last)
    if len(pairs) < _FEWEST:
        lines, pairs = [*lines, last], []
    stripped = [line.strip() for line in lines]
    start = next((at for at, line in enumerate(stripped) if line.startswith(_NEGATIVE)), len(stripped))
    negative = [line.removeprefix(_NEGATIVE).strip() for line in stripped[start:]]
    return Infotext(
        prompt="\n".join(stripped[:start]).strip("\n"),
        negative_prompt="\n".join(negative).strip("\n"),
        values={key: _unquoted(value) for key, value in pairs},
    )


def take_lora_tags(prompt: str) -> tuple[str, tuple[LoraTag, ...]]:
    """Take ``<lora:...>`` out of a prompt.

    Args:
        prompt: With tags ``<lora:name>``, ``<lora:name:weight>`` or ``<lora:name:text weight:unet weight>``; the weights may be
            named, ``te=`` and ``unet=``; ``<lyco:...>`` is the same.

    Returns:
        The prompt without the tags and the blanks before them, and the tags in their order.

    Raises:
        SettingError: If a weight is no number, or the tag asks for something else.

    Example:
        >>> take_lora_tags("a fish <lora:iriko:0.8>, on paper")
        ('a fish, on paper', (LoraTag(name='iriko', weight=0.8, text_weight=None),))
    """
    tags = tuple(_tag(match[1], match[2]) for match in _TAG.finditer(prompt))
    return (_TAG.sub("", prompt).strip(" ") if tags else prompt), tags


def finder_in(folders: tuple[Path | str, ...]) -> Finder:
    """Looks files up by name, in folders and the folders in them.

    Example:
        >>> finder_in(())("LoRA", "iriko")
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: the LoRA 'iriko' must lie in one of the given folders as iriko.safetensors, got no folder; name ...
    """

    def find(kind: str, name: str) -> str:
        files = sorted(
            {str(path) for folder in folders for path in Path(folder).rglob("*") if path.stem == name and path.suffix in _SUFFIXES[kind]}
        )
        rule = f"the {kind} {name!r} must lie in one of the given folders as {' or '.join(name + end for end in _SUFFIXES[kind])}"
        if not files:
            raise SettingError(f"{rule}, got {', '.join(map(str, folders)) or 'no folder'}; name the folder it lies in (--lora_folder)")
        if len(files) > 1:
            raise SettingError(f"{rule}, once, got {', '.join(files)}; take the ones away that are not meant")
        return files[0]

    return find


def lora_hash(text: str, stem: str) -> str | None:
    r"""Hash of the LoRA of this name in infotext; None if it is not there.

    Example:
        >>> lora_hash('a fish\nSteps: 9, Seed: 1, Size: 8x8, Lora hashes: "iriko: cdcdcdcdcdcd"', "iriko")
        'cdcdcdcdcdcd'
    """
    listed = parse_infotext(text).values.get("Lora hashes", "")
    return hashes_in(listed).get(stem)


def hashes_in(listed: str) -> dict[str, str]:
    """Name -> hash of a value such as ``iriko: cdcdcdcdcdcd, rust: efefefefefef``.

    Example:
        >>> hashes_in("iriko: cdcd, rust: efef")
        {'iriko': 'cdcd', 'rust': 'efef'}
    """
    return {name.strip(): value.strip() for part in listed.split(",") for name, colon, value in [part.rpartition(":")] if colon}


def number(value: float) -> str:
    """A number as people write it, and no digit less than it takes to read the same one.

    Example:
        >>> number(7.0), number(0.1 + 0.2)
        ('7', '0.30000000000000004')
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _tag(kind: str, inner: str) -> LoraTag:
    name, *rest = inner.split(":")
    plain = [part for part in rest if "=" not in part]
    named: Mapping[str, str] = dict(part.split("=", 1) for part in rest if "=" in part)
    if kind not in ("lora", "lyco"):
        raise SettingError(f"only LoRAs can be called by a tag, got <{kind}:{inner}>; take it out of the prompt")
    if "dyn" in named or len(plain) == 3:  # text, UNet, rank
        raise SettingError(f"ranks are not cut while drawing, got <{kind}:{inner}>; cut the file itself with synthaug.lora.algebra.resize")
    if len(plain) > 2 or set(named) - {"te", "unet"} or not name.strip():  # text and UNet
        raise SettingError(f"a LoRA is called as <lora:name:weight> or <lora:name:text weight:unet weight>, got <{kind}:{inner}>")
    text = named.get("te", plain[0] if plain else None)
    unet = named.get("unet", plain[1] if len(plain) == 2 else None)
    try:
        weights = [None if given is None else float(given) for given in (text, unet)]
    except ValueError:
        weights = [math.nan]
    if not all(weight is None or math.isfinite(weight) for weight in weights):
        raise SettingError(f"the weight of a LoRA must be a number, got <{kind}:{inner}>; write <lora:{name}:1>")
    both, own = weights
    if own is None:
        return LoraTag(name=name, weight=1.0 if both is None else both)
    return LoraTag(name=name, weight=own, text_weight=both)


def _quoted(value: str) -> str:
    unsafe = any(mark in value for mark in ",:") or not value.isprintable() or value != value.strip() or value[:1] in ("", '"')
    return json.dumps(value, ensure_ascii=False) if unsafe else value


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            pass  # another tool's quotes, which are then part of the value
    return value.strip()
