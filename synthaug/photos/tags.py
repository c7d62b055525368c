"""How captions are varied from step to step."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CaptionRules"]


@dataclass(frozen=True, kw_only=True)
class CaptionRules:
    """What may be done to a caption."""

    prefix: str = ""
    """Put before it."""

    suffix: str = ""
    """Put after it."""

    @property
    def varies(self) -> bool:
        """Whether different seeds can give different captions."""
        return False

    def variant(self, caption: str, seed: int) -> str:  # noqa: ARG002  # these rules draw nothing
        """The caption under these rules.

        Args:
            caption: As it was read.
            seed: Decides what is drawn.
        """
        return " ".join(part for part in (self.prefix, caption, self.suffix) if part)
