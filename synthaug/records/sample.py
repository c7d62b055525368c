"""One drawn image and what is thought of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from synthaug.records.request import Request

__all__ = ["Sample", "Verdict"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Keep or reject, and why."""

    keep: bool
    """Whether the sample may be used."""

    reason: str = ""
    """In words; empty when there is nothing to say against it."""

    scores: dict[str, float] = field(default_factory=dict)
    """Score by name, each 0 to 1, higher = keep."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One drawn image on disk: its file, its request, its verdict."""

    file: str
    """Name relative to the folder of the manifest."""

    request: Request
    """What was asked for."""

    sha256: str
    """Hash of the pixels."""

    seconds: float = 0.0
    """Time its drawing took, its share of the batch."""

    repairs: tuple[str, ...] = ()
    """What had to be repaired while it was drawn, such as ``VAE in fp32``, or is odd about it, such as ``blank``."""

    verdict: Verdict | None = None
    """None until it has been screened."""
