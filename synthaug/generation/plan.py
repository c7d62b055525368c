"""What to draw, as pure data: request i is a function of the plan and i, on every machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from synthaug.errors import SettingError, UnusableFileError
from synthaug.generation.lora_tags import resolve
from synthaug.generation.request_check import check_request
from synthaug.generation.speed import Speed, speed_of
from synthaug.lora.file import LoraFile, require_caption
from synthaug.models.load import load_base
from synthaug.records import Drawing, LoraUse, Request, plain_fields
from synthaug.seeds import seed_for
from synthaug.templates import fill

__all__ = ["Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan(Drawing):
    """A set of images to draw.

    ``plan[i]`` is request i; it does not depend on ``count``, so a longer plan begins with the shorter one.

    Example:
        >>> plan = Plan(prompts=("a photo of iriko",), count=1000)
        >>> len(plan), plan[3].seed == Plan(prompts=("a photo of iriko",), count=4)[3].seed
        (1000, True)
    """

    prompts: tuple[str, ...]
    """Taken in turn, so that each is drawn equally often; ``{this|that}`` is decided per image, ``<lora:name:weight>`` adds a LoRA.
    A single text is one prompt."""

    count: int = 16
    """How many images."""

    seed: int = 0
    """Seed of the plan, from 0 on; each image's seed is derived from it."""

    image_seed: int | None = None
    """Seed of the first image, from 0 on; each next one has one more, or the same with ``variation_strength``, as A1111 counts. None
    derives seeds from ``seed``."""

    variation_seed: int | None = None
    """Seed of the first image's variation, from 0 on; each next one has one more. None derives it from ``seed``."""

    base: str = "pocket"
    """The base model."""

    lora_files: dict[str, str] = field(default_factory=dict)
    """Files of the LoRAs that prompts may call, by name."""

    wildcards: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Lines that ``__name__`` in a prompt stands for, by name, as :func:`synthaug.templates.read_wildcards` reads them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", _listed(self.prompts))
        if not self.prompts:
            raise SettingError("a plan needs at least one prompt, got none; write one, or use a LoRA file that knows its caption")
        super().__post_init__()

    def _rules(self) -> dict[str, tuple[bool, Any]]:
        seeds = {"seed": self.seed, "image_seed": self.image_seed, "variation_seed": self.variation_seed}
        return {
            "count must not be negative": (self.count >= 0, self.count),
            **{f"{name} must be from 0 on": (seed is None or seed >= 0, seed) for name, seed in seeds.items()},
            **super()._rules(),
        }

    @classmethod
    def for_lora(cls, lora: Path | str, *, weight: float = 1.0, **settings: Any) -> Plan:
        """Plan with everything that is left out read from a LoRA file: base, caption, size.

        Args:
            lora: The file.
            weight: How strongly to wear it.
            **settings: Fields of the plan; None counts as left out.

        Raises:
            UnusableFileError: If the file cannot be used.
            SettingError: If no prompt is given and the file has no caption, or no base is known.
        """
        file = LoraFile.read(lora)
        given = {key: value for key, value in settings.items() if value is not None}
        if "prompts" not in given:
            given["prompts"] = (require_caption(file),)
        if "base" not in given:
            if file.base is None:
                raise SettingError(f"{file.name} does not say which base it was trained on; give the base, such as a diffusers folder")
            given["base"] = file.base
        if "size" not in given and file.size is not None:
            given["size"] = file.size
        return cls(loras=(LoraUse(path=str(lora), weight=weight), *given.pop("loras", ())), **given)

    @classmethod
    def from_file(cls, path: Path | str) -> Plan:
        """Read a plan from YAML or JSON.

        Raises:
            UnusableFileError: If the file cannot be read or holds no settings.
            SettingError: If a field is unknown or of the wrong kind.
        """
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UnusableFileError(f"the plan {path} cannot be read ({error}); check the path and its YAML, in UTF-8") from error
        if not isinstance(data, dict):
            raise UnusableFileError(f"the plan {path} must hold settings such as 'prompts: [a photo of iriko]', it holds {data!r:.60}")
        return cls.from_json(data)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Undo :meth:`to_json`.

        Raises:
            SettingError: If a field is unknown or of the wrong kind.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise SettingError(f"unknown field of a plan: {', '.join(unknown)}; choose from: {', '.join(sorted(known))}")
        plain = {"prompts": (), **plain_fields(data)}
        if isinstance(kept := plain.get("wildcards"), dict):
            plain["wildcards"] = {name: _listed(lines) for name, lines in kept.items()}
        return cls(**plain)

    def at_speed(self, word: Speed) -> Plan:
        """The same plan drawn ``exact``, ``fast`` or as a ``draft``, see :mod:`synthaug.generation.speed`.

        Raises:
            SettingError: If there is no such word, or no such base.

        Example:
            >>> Plan(prompts=("a fish",)).at_speed("fast").reuse
            2
        """
        return self if word == "exact" else speed_of(word, self, base=self.base, family=load_base(self.base, parts=()).family)

    def to_json(self) -> dict[str, Any]:
        """Plain data, the same for equal plans."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]  # json says Any

    def request(self, index: int) -> Request:
        """Request number ``index``, also beyond ``count``.

        Raises:
            SettingError: If a placeholder of the prompt, or a LoRA that it calls, is unknown, or the image could not be drawn, as
                :func:`synthaug.generation.request_check.check_request` finds.
        """
        words = fill(self.prompts[index % len(self.prompts)], {}, seed=seed_for(self.seed, "prompt", index), wildcards=self.wildcards)
        prompt, called = resolve(words, self.lora_files)
        shared = {each.name: getattr(self, each.name) for each in fields(Drawing)}
        seed = seed_for(self.seed, "image", index) >> 10  # 53 bits survive JSON in any language
        if self.image_seed is not None:
            seed = self.image_seed + (0 if self.variation_strength else index)
        other = seed_for(self.seed, "variation", index) >> 10 if self.variation_seed is None else self.variation_seed + index
        request = Request(prompt=prompt, seed=seed, variation_seed=other, index=index, **{**shared, "loras": (*self.loras, *called)})
        check_request(request)
        return request

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Request:
        if not 0 <= index < self.count:
            raise IndexError(f"a plan of {self.count} has requests 0 to {self.count - 1}, got {index}")
        return self.request(index)

    def __iter__(self) -> Iterator[Request]:
        return (self.request(index) for index in range(self.count))


def _listed(given: Any) -> Any:
    """Texts as a tuple, of one or of a list; anything else as it is."""
    return (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given
