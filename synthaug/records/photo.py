"""A real picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Photo"]


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A real picture and what is known of it."""

    path: Path
    """Where it lies."""

    caption: str
    """What it shows, trigger word included; never empty."""

    sha256: str
    """Hash of its upright pixels, so that a copy under another name or in another format is found."""

    group: str
    """Photos of one physical part share a group and are never split between training and test."""

    mask: Path | None = None
    """Picture of the defect, bright = defect, if there is one."""
