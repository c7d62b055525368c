"""How a caption differs from one showing of its photo to the next: order of its tags, tags left out, words to choose from.

The rules and their names are those of kohya-ss/sd-scripts: https://github.com/kohya-ss/sd-scripts/blob/main/docs/config_README-en.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from synthaug.errors import require
from synthaug.seeds import seed_for
from synthaug.templates import choose_words

__all__ = ["CaptionRules"]


@dataclass(frozen=True, kw_only=True)
class CaptionRules:
    """What may change in a caption, and what must stay; as it is, nothing changes.

    Example:
        >>> rules = CaptionRules(shuffle=True, keep=1, prefix="a photo of")
        >>> rules.variant("iriko, burst, close", seed=1) in {"a photo of iriko, burst, close", "a photo of iriko, close, burst"}
        True
    """

    shuffle: bool = False
    """Whether the tags, the parts between separators, come in another order each time."""

    separator: str = ","
    """What stands between tags."""

    keep: int = 0
    """How many tags at the beginning, prefix included, stay where they are and are never left out."""

    keep_separator: str = ""
    """Sign such as ``|||`` that may stand in captions: what is before the first one and behind the second stays; "" for none."""

    group_separator: str = ""
    """Sign such as ``;;;`` that glues several tags into one; "" for none."""

    drop_tags: float = 0.0
    """Share of the tags that are left out each time, 0 to 1."""

    prefix: str = ""
    """Text to put before, set off by a space."""

    suffix: str = ""
    """Text to put behind, set off by a space unless it begins with the separator."""

    wildcards: bool = False
    """Whether one of ``{this|that}`` is chosen each time, and one line of a caption of several."""

    def __post_init__(self) -> None:
        require({
            "separator must be one sign or more; a comma is usual": (bool(self.separator.strip()), self.separator),
            "keep must be 0 tags or more": (self.keep >= 0, self.keep),
            "drop_tags must be from 0 to 1; 0 leaves none out": (0 <= self.drop_tags <= 1, self.drop_tags),
        })  # fmt: skip

    @property
    def varies(self) -> bool:
        """Whether different seeds can give different texts."""
        return self.shuffle or self.drop_tags > 0 or self.wildcards

    def variant(self, caption: str, seed: int) -> str:
        """The text for one showing of the photo: a pure function of rules, caption and seed.

        Args:
            caption: As it stands beside the photo; of several lines only the first counts without ``wildcards``.
            seed: 0 to 2**63 - 1; without effect unless the rules vary.

        Returns:
            One line, spaces tidied; empty only if every tag was left out.
        """
        rng = Random(seed_for(seed, "caption"))  # noqa: S311  # order of words, not secrets
        lines = [line for line in caption.splitlines() if line.strip()] or [""]
        text = self._joined(rng.choice(lines) if self.wildcards else lines[0])
        if self.wildcards:
            text = choose_words(text, seed=seed_for(seed, "caption", "words"))
        text = self._rearranged(text, rng)
        if self.group_separator:
            text = text.replace(self.group_separator, f"{self.separator} ")
        return " ".join(text.split())

    def _joined(self, text: str) -> str:
        """Prefix, text and suffix in a row."""
        suffix = self.suffix.strip()
        return f"{self.prefix} {text.strip()}{'' if suffix.startswith(self.separator) else ' '}{suffix}"

    def _rearranged(self, text: str, rng: Random) -> str:
        """Tags in another order, some left out; a text without anything to rearrange stays letter by letter."""
        marked = bool(self.keep_separator) and self.keep_separator in text
        if not (self.shuffle or self.drop_tags or marked):
            return text
        head, loose, tail = self._parts(text, marked=marked)
        if self.shuffle:
            rng.shuffle(loose)
        loose = [tag for tag in loose if rng.random() >= self.drop_tags]
        return f"{self.separator} ".join([*head, *loose, *tail])

    def _parts(self, text: str, *, marked: bool) -> tuple[list[str], list[str], list[str]]:
        """Tags that stay at the beginning, tags that may move, tags that stay at the end."""
        if marked:
            head, loose, tail = (self._tags(part) for part in [*text.split(self.keep_separator, 2), ""][:3])
            return head, loose, tail
        tags = self._tags(text)
        return tags[: self.keep], tags[self.keep :], []

    def _tags(self, text: str) -> list[str]:
        return [tag for part in text.split(self.separator) if (tag := part.strip())]
