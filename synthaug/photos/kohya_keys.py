"""Keys of a dataset file of kohya's scripts: where each may stand, what its value is, what becomes of it here.

Format: https://github.com/kohya-ss/sd-scripts/blob/main/docs/config_README-en.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from synthaug.errors import SettingError

__all__ = ["KEYS", "Key", "Level", "check_keys", "unheard"]

Level = Literal["general", "dataset", "subset"]
"""Where a key stands; what is said below overrules what is said above."""

_NAMES: dict[Level, str] = {"general": "[general]", "dataset": "[[datasets]]", "subset": "[[datasets.subsets]]"}


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _two(value: object, of: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(of(part) for part in value)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "true or false": lambda value: isinstance(value, bool),
    "a text": lambda value: isinstance(value, str),
    "a whole number from 0 on": lambda value: _whole(value) and value >= 0,
    "a whole number from 1 on": lambda value: _whole(value) and value >= 1,
    "a number": _number,
    "a share from 0 to 1": lambda value: _number(value) and 0 <= value <= 1,
    "one side or [width, height], multiples of 8": lambda value: all(
        _whole(side) and side >= 8 and side % 8 == 0 for side in (value if _two(value, _whole) else [value])
    ),
    "two numbers": lambda value: _two(value, _number),
    "a table": lambda value: isinstance(value, dict),
    "anything": lambda value: True,  # noqa: ARG005  # has the shape of the others
}
"""What a value must be, in words -> whether it is."""


@dataclass(frozen=True)
class Key:
    """What is known of one key."""

    kind: str
    """What its value must be, a name in the table of kinds."""

    levels: tuple[Level, ...]
    """Where it may stand."""

    without: str = ""
    """Why nothing comes of it here, and what to use instead; "" when it is honoured."""

    off: object = None
    """Value with which it asks for nothing."""


_ALL: tuple[Level, ...] = ("general", "dataset", "subset")
_UPPER: tuple[Level, ...] = ("general", "dataset")
_OWN: tuple[Level, ...] = ("subset",)
_VIEWS = "the views of each photo, --data.views, take its place"

KEYS: dict[str, Key] = {
    "resolution": Key("one side or [width, height], multiples of 8", _UPPER),
    "batch_size": Key("a whole number from 1 on", _UPPER),
    "enable_bucket": Key("true or false", _UPPER),
    "min_bucket_reso": Key("a whole number from 1 on", _UPPER),
    "max_bucket_reso": Key("a whole number from 1 on", _UPPER),
    "bucket_reso_steps": Key("a whole number from 1 on", _UPPER),
    "bucket_no_upscale": Key("true or false", _UPPER),
    "validation_split": Key("a share from 0 to 1", _UPPER),
    "validation_seed": Key("anything", _UPPER, "which photos are kept back follows from --data.seed"),
    "network_multiplier": Key("a number", _UPPER, "the LoRA is trained at full weight and weighted when it is used", off=1),
    "skip_image_resolution": Key("anything", _UPPER, "small photos are named by synthaug prepare; take them out of the folder"),
    "resize_interpolation": Key("a text", _ALL, "photos are always resized with a Lanczos filter"),
    "image_dir": Key("a text", _OWN),
    "is_reg": Key("true or false", _OWN),
    "class_tokens": Key("a text", _ALL),
    "num_repeats": Key("a whole number from 0 on", _ALL),
    "caption_extension": Key("a text", _ALL),
    "shuffle_caption": Key("true or false", _ALL),
    "caption_separator": Key("a text", _ALL),
    "keep_tokens": Key("a whole number from 0 on", _ALL),
    "keep_tokens_separator": Key("a text", _ALL),
    "secondary_separator": Key("a text", _ALL),
    "enable_wildcard": Key("true or false", _ALL),
    "caption_prefix": Key("a text", _ALL),
    "caption_suffix": Key("a text", _ALL),
    "caption_dropout_rate": Key("a share from 0 to 1", _ALL),
    "caption_tag_dropout_rate": Key("a share from 0 to 1", _ALL),
    "flip_aug": Key("true or false", _ALL),
    "alpha_mask": Key("true or false", _ALL),
    "conditioning_data_dir": Key("a text", _OWN),
    "color_aug": Key("true or false", _ALL, _VIEWS, off=False),
    "random_crop": Key("true or false", _ALL, _VIEWS, off=False),
    "face_crop_aug_range": Key("two numbers", _ALL, _VIEWS),
    "caption_dropout_every_n_epochs": Key("a whole number from 0 on", _ALL, "use caption_dropout_rate", off=0),
    "token_warmup_min": Key("a whole number from 0 on", _ALL, "every tag is learned from the first step on", off=1),
    "token_warmup_step": Key("a number", _ALL, "every tag is learned from the first step on", off=0),
    "cache_info": Key("true or false", _ALL, "photos are looked at anew, and nothing is written beside them", off=False),
    "custom_attributes": Key("a table", _ALL, "use --model.loss to keep what the base knows", off={}),
    "metadata_file": Key("a text", _OWN),
}
"""Every key that kohya's scripts know in a dataset file."""


def check_keys(table: Mapping[str, Any], level: Level, place: str) -> None:
    """Check one table of a dataset file.

    Args:
        table: Keys and values, without the lists of tables inside.
        level: What it is.
        place: What to call it in messages.

    Raises:
        SettingError: If a key is unknown, stands where it may not, or has a value of another kind.

    Example:
        >>> check_keys({"num_repeat": 10}, "subset", "subset 1 of fish.toml")
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: unknown key 'num_repeat' in subset 1 of fish.toml; did you mean 'num_repeats'?
    """
    for name, value in table.items():
        if name not in KEYS:
            raise SettingError(f"unknown key {name!r} in {place}; {_nearest(name, level)}")
        key = KEYS[name]
        if level not in key.levels:
            where = " or ".join(_NAMES[other] for other in key.levels)
            raise SettingError(f"the key {name!r} must stand in {where}, it stands in {place}; move it there")
        if not _KINDS[key.kind](value):
            raise SettingError(f"{name} must be {key.kind}, got {value!r} in {place}")


def _nearest(name: str, level: Level) -> str:
    near = get_close_matches(name, KEYS, 1, 0.6)
    known = ", ".join(sorted(known for known, key in KEYS.items() if level in key.levels))
    return f"did you mean {near[0]!r}?" if near else f"take it out, or use one of: {known}"


def unheard(values: Mapping[str, Any]) -> dict[str, str]:
    """Keys that ask for something which nothing comes of here -> why, and what to use instead.

    Example:
        >>> list(unheard({"color_aug": True, "random_crop": False, "num_repeats": 3}))
        ['color_aug']
    """
    return {name: KEYS[name].without for name, value in values.items() if KEYS[name].without and value != KEYS[name].off}
