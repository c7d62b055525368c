"""Placeholders of captions and prompts: ``{trigger}``, and ``{a|b}`` for a choice.

One small language for both, so that a caption template works as a prompt.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

from synthaug.errors import SettingError

__all__ = ["choose_words", "fill"]

_BRACES = re.compile(r"\{([^{}]*)\}")
_SIGNS = {"{": "\ue000", "}": "\ue001", "|": "\ue002"}
"""What stands in for signs that mean themselves while choices are made: letters that no text uses."""


def fill(template: str, values: Mapping[str, str], *, seed: int = 0) -> str:
    """Fill in a template.

    Args:
        template: Text with ``{name}`` for a value and ``{this|that}`` for one of several.
        values: What the names stand for; braces in them are nothing but braces.
        seed: Decides the choices; equal seeds give equal texts.

    Returns:
        The text, spaces tidied.

    Raises:
        SettingError: If a name has no value; the message lists the names there are.

    Example:
        >>> fill("a photo of {trigger}", {"trigger": "iriko"})
        'a photo of iriko'
        >>> fill("a {big|small} fish", {}, seed=1) in {"a big fish", "a small fish"}
        True
    """
    rng = random.Random(seed)  # noqa: S311  # choices of words, not secrets

    def replace(match: re.Match[str]) -> str:
        inner: str = match.group(1)
        if "|" in inner:
            return rng.choice(inner.split("|"))
        if inner not in values:
            known = ", ".join(f"{{{name}}}" for name in sorted(values)) or "none"
            raise SettingError(f"unknown placeholder {{{inner}}} in {template!r}; choose from: {known}, or write {{this|that}}")
        return _hidden(values[inner])

    return " ".join(_shown(_from_inside(template, replace)).split())


def choose_words(text: str, *, seed: int) -> str:
    """Choose one of each ``{this|that}`` in a caption; ``{{`` and ``}}`` are the braces themselves.

    Args:
        text: A caption; a single thing in braces stays without them.
        seed: Decides the choices; equal seeds give equal texts.

    Example:
        >>> choose_words("a {big|big} fish, {{ironic}}", seed=3)
        'a big fish, {ironic}'

    Wildcards as kohya-ss/sd-scripts has them: https://github.com/kohya-ss/sd-scripts/blob/main/docs/config_README-en.md.
    """
    rng = random.Random(seed)  # noqa: S311  # choices of words, not secrets
    marked = text.replace("{{", _SIGNS["{"]).replace("}}", _SIGNS["}"])
    return _shown(_from_inside(marked, lambda match: rng.choice(match.group(1).split("|"))))


def _from_inside(text: str, replace: Callable[[re.Match[str]], str]) -> str:
    """Replace braces, those inside others first."""
    while _BRACES.search(text):
        text = _BRACES.sub(replace, text)
    return text


def _hidden(text: str) -> str:
    for sign, letter in _SIGNS.items():
        text = text.replace(sign, letter)
    return text


def _shown(text: str) -> str:
    for sign, letter in _SIGNS.items():
        text = text.replace(letter, sign)
    return text
