"""One image to draw."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from synthaug.errors import SettingError
from synthaug.records.drawing import Drawing, plain_fields
from synthaug.records.infotext import finder_in, parse_infotext
from synthaug.records.infotext_fields import fields_of

__all__ = ["Request"]


@dataclass(frozen=True, kw_only=True)
class Request(Drawing):
    """One image to draw; equal requests give equal pixels on one machine.

    Example:
        >>> Request(prompt="a photo of iriko", seed=7).size
        (128, 128)
    """

    prompt: str
    """Text given to the model in A1111's language, with every placeholder already filled in."""

    seed: int
    """Seed of the starting noise, 0 to 2**63 - 1."""

    variation_seed: int = 0
    """Seed towards whose noise ``variation_strength`` turns, 0 to 2**63 - 1."""

    index: int = 0
    """Place in its plan."""

    def _place(self) -> str:
        return f" for prompt {str(self.prompt)[:60]!r} (request {self.index})"

    def _rules(self) -> dict[str, tuple[bool, Any]]:
        return {
            "seed must be 0 to 2**63 - 1": (0 <= self.seed < 2**63, self.seed),
            "variation_seed must be 0 to 2**63 - 1": (0 <= self.variation_seed < 2**63, self.variation_seed),
            **super()._rules(),
        }

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
            synthaug.errors.SettingError: unknown field of a request: step; choose from: clip_skip, ...
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise SettingError(f"unknown field of a request: {', '.join(unknown)}; choose from: {', '.join(sorted(known))}")
        try:
            return cls(**plain_fields(data))
        except TypeError as error:  # a value of another kind, or none where there must be one
            raise SettingError(f"a request needs a prompt, a seed and values of the right kind ({error}), got {data}") from error

    @classmethod
    def from_infotext(cls, text: str, *, lora_folders: Sequence[Path | str] = ()) -> Request:
        r"""Read what A1111, Forge, or we wrote into an image; see :func:`synthaug.records.infotext`.

        Args:
            text: What stands under ``parameters`` in a PNG, or as user comment in a JPEG or WebP.
            lora_folders: Where the files of ``<lora:name:weight>`` and of embeddings lie, at any depth. Whether they are the files that
                were meant is for the caller to find out, by ``Lora hashes``.

        Raises:
            SettingError: If there is no seed, a value cannot be used, or a LoRA lies in none of the folders.

        Example:
            >>> text = "a fish\nNegative prompt: blur\nSteps: 9, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x32, Clip skip: 2"
            >>> request = Request.from_infotext(text)
            >>> request.negative_prompt, request.size, request.clip_skip, request.noise
            ('blur', (32, 64), 2, 'GPU')
        """
        read = fields_of(parse_infotext(text), finder_in(tuple(lora_folders)))
        if unknown := sorted(set(read) - {each.name for each in fields(cls)}):
            raise SettingError(f"unknown setting 'synthaug {unknown[0]}' of infotext; a newer version may have written it")
        try:
            return cls(**read)
        except TypeError as error:  # a value of our own keys is of another kind
            raise SettingError(f"the settings of infotext must be of the right kind ({error}), got {text[-200:]!r}") from error

    @property
    def digest(self) -> str:
        """Sixteen hex digits that tell this request from every other one."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]
