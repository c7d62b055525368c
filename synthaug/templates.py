"""Placeholders of captions and prompts: ``{trigger}``, and ``{a|b}`` for a choice.

One small language for both, so that a caption template works as a prompt.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from synthaug.errors import SettingError

__all__ = ["fill"]

_BRACES = re.compile(r"\{([^{}]*)\}")


def fill(template: str, values: Mapping[str, str], *, seed: int = 0) -> str:
    """Fill in a template.

    Args:
        template: Text with ``{name}`` for a value and ``{this|that}`` for one of several.
        values: What the names stand for.
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
        return values[inner]

    while _BRACES.search(template):
        template = _BRACES.sub(replace, template)
    return " ".join(template.split())
