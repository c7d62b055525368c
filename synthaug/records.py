"""The nouns that stages hand to each other: frozen, checked by themselves, written as JSON.

A photo goes in, a request says what to draw, a sample comes out, a verdict says whether to keep it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from synthaug.errors import SettingError

__all__ = ["LoraUse", "Photo", "Request", "Sample", "Verdict"]


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


@dataclass(frozen=True, kw_only=True)
class LoraUse:
    """A LoRA file and how strongly to wear it."""

    path: str
    """The file."""

    weight: float = 1.0
    """1 is as trained, 0 is off."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One image to draw; equal requests give equal pixels on one machine.

    Example:
        >>> Request(prompt="a photo of iriko", seed=7).size
        (128, 128)
    """

    prompt: str
    """Text given to the model, with every placeholder already filled in."""

    seed: int
    """Seed of the starting noise, 0 to 2**63 - 1."""

    negative_prompt: str = ""
    """What to keep away from."""

    label: int | str = 0
    """Class that the image stands for; travels with it, is not drawn from."""

    sampler: str = "DPM++ 2M"
    """Name of the sampler, as people type it."""

    steps: int = 20
    """Denoising steps, 1 to 1000."""

    guidance: float = 4.0
    """Scale of classifier-free guidance; 1 leaves the negative prompt out and halves the cost."""

    guidance_rescale: float | None = None
    """Share of what guidance adds to the spread of the answer that is taken back, 0 to 1; None leaves it to the base: 0.6 where its
    schedule ends in noise alone, 0 elsewhere."""

    size: tuple[int, int] = (128, 128)
    """Height and width in pixels, multiples of 8."""

    loras: tuple[LoraUse, ...] = ()
    """LoRAs to wear, in this order."""

    image: str | None = None
    """Photo to start from; None starts from noise alone."""

    strength: float = 1.0
    """Share of the run that is redone when there is a photo, in (0, 1]; 1 ignores the photo."""

    index: int = 0
    """Place in its plan."""

    def __post_init__(self) -> None:
        rules = {
            "steps must be 1 to 1000": (1 <= self.steps <= 1000, self.steps),
            "seed must be 0 to 2**63 - 1": (0 <= self.seed < 2**63, self.seed),
            "strength must be in (0, 1]; 0 would hand back the photo unchanged": (0 < self.strength <= 1, self.strength),
            "guidance must be a number from 0 on": (0 <= self.guidance < math.inf, self.guidance),
            "guidance_rescale must be from 0 to 1": (
                self.guidance_rescale is None or 0 <= self.guidance_rescale <= 1, self.guidance_rescale,
            ),
            "size must be (height, width), each a multiple of 8": (
                len(self.size) == 2 and all(s >= 8 and s % 8 == 0 for s in self.size), self.size,
            ),
        }  # fmt: skip
        for rule, (holds, value) in rules.items():
            if not holds:
                raise SettingError(f"{rule}, got {value!r} for prompt {self.prompt[:60]!r} (request {self.index})")

    def to_json(self) -> dict[str, Any]:
        """Plain data, the same for equal requests."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]  # json says Any

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Request:
        """Undo :meth:`to_json`.

        Raises:
            SettingError: If a field is unknown, is missing, or has a value that cannot be used.

        Example:
            >>> Request.from_json({"prompt": "a fish", "seed": 1, "step": 20})
            Traceback (most recent call last):
            ...
            synthaug.errors.SettingError: unknown field of a request: step; choose from: guidance, ...
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise SettingError(f"unknown field of a request: {', '.join(unknown)}; choose from: {', '.join(sorted(known))}")
        plain = dict(data)
        try:
            plain["loras"] = tuple(LoraUse(**use) for use in plain.get("loras", ()))
            if "size" in plain:
                plain["size"] = tuple(plain["size"])
            return cls(**plain)
        except TypeError as error:  # a value of another kind, or none where there must be one
            raise SettingError(f"a request needs a prompt, a seed and values of the right kind ({error}), got {data}") from error

    @property
    def digest(self) -> str:
        """Sixteen hex digits that tell this request from every other one."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


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

    verdict: Verdict | None = None
    """None until it has been screened."""
