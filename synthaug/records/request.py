"""One image to draw."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from synthaug.errors import SettingError
from synthaug.records.drawing import Drawing, plain_fields

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
        return f" for prompt {self.prompt[:60]!r} (request {self.index})"

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
            synthaug.errors.SettingError: unknown field of a request: step; choose from: guidance, ...
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise SettingError(f"unknown field of a request: {', '.join(unknown)}; choose from: {', '.join(sorted(known))}")
        try:
            return cls(**plain_fields(data))
        except TypeError as error:  # a value of another kind, or none where there must be one
            raise SettingError(f"a request needs a prompt, a seed and values of the right kind ({error}), got {data}") from error

    @property
    def digest(self) -> str:
        """Sixteen hex digits that tell this request from every other one."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]
