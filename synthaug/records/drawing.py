"""How an image is drawn, whatever its words and its seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from synthaug.errors import SettingError, require
from synthaug.records.kinds import check_kinds

__all__ = ["ControlUse", "Drawing", "Hires", "LoraUse", "plain_fields"]


@dataclass(frozen=True, kw_only=True)
class LoraUse:
    """A LoRA file and how strongly to wear it."""

    path: str
    """The file."""

    weight: float = 1.0
    """On the UNet: 1 is as trained, 0 is off."""

    text_weight: float | None = None
    """On the text encoders; None is the same as on the UNet."""

    def __post_init__(self) -> None:
        check_kinds(self, of=" of a LoRA")
        for weight in (self.weight, self.text_weight):
            require({"the weight of a LoRA must be a number": (weight is None or math.isfinite(weight), weight)})


@dataclass(frozen=True, kw_only=True)
class ControlUse:
    """A network that steers the UNet by a picture, such as a ControlNet."""

    class_path: str
    """Import path of a class of the kind of ``synthaug.generation.control.Control``."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class, such as the folder of its weights."""

    image: str | None = None
    """The picture it looks at, framed to the size that is drawn; None is the photo that the request starts from."""

    weight: float = 1.0
    """1 is as trained, 0 is off."""

    interval: tuple[float, float] = (0.0, 1.0)
    """Share of the run in which it steers."""

    def __post_init__(self) -> None:
        check_kinds(self, of=" of a control")
        require({"the weight of a control must be a number": (math.isfinite(self.weight), self.weight)})


@dataclass(frozen=True, kw_only=True)
class Hires:
    """A second pass at a larger size."""

    scale: float = 2.0
    """Sides of the second pass over those of the first, above 1 to 4; cut to multiples of 8."""

    strength: float = 0.7
    """Share of the second run that is done, in (0, 1]."""

    steps: int = 0
    """Steps of the second run, 0 to 1000; 0 is as many as in the first."""

    upscaler: str = "Latent"
    """How the first pass is enlarged, as A1111 names it."""

    def __post_init__(self) -> None:
        check_kinds(self, of=" of a hires pass")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How to draw, whatever the words and the seed; what a request and a plan have in common."""

    negative_prompt: str = ""
    """What to keep away from."""

    label: int | str = 0
    """Class that the image stands for; travels with it, is not drawn from."""

    sampler: str = "DPM++ 2M"
    """Name of the sampler, as people type it; its schedule may follow, as in ``DPM++ 2M Karras``."""

    schedule: str = "Automatic"
    """Name of the noise schedule; Automatic is the sampler's own."""

    steps: int = 20
    """Denoising steps, 1 to 1000."""

    guidance: float = 4.0
    """Scale of classifier-free guidance; 1 leaves the negative prompt out and halves the cost."""

    guidance_rescale: float | None = None
    """Share of what guidance adds to the spread of the answer that is taken back, 0 to 1; None leaves it to the base: 0.6 where its
    schedule ends in noise alone, 0 elsewhere."""

    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Share of the run in which guidance is given, as (from, to); outside it the prompt is followed alone, at half the cost."""

    eta: float | None = None
    """Share of fresh noise in each step, 0 to 1, for samplers that have such a share; None is the sampler's own."""

    size: tuple[int, int] = (128, 128)
    """Height and width in pixels, multiples of 8."""

    loras: tuple[LoraUse, ...] = ()
    """LoRAs to wear, in this order."""

    embeddings: tuple[str, ...] = ()
    """Files of textual inversion; each is called in a prompt by the stem of its name."""

    clip_skip: int = 1
    """Which of the text encoder's last layers is read, 1 to 12, for both prompts; 1 is the last."""

    emphasis: Literal["Original", "No norm", "Ignore", "None"] = "Original"
    """What ``(word:1.2)`` does: weigh and keep the mean, weigh alone, nothing, or nothing and the brackets are text."""

    noise: Literal["CPU", "GPU", "NV"] = "CPU"
    """Where starting noise comes from: the CPU's generator, the device's own, or that of an NVIDIA card, computed anywhere."""

    variation_strength: float = 0.0
    """How far the noise is turned towards that of another seed, 0 to 1."""

    image: str | None = None
    """Photo to start from; None starts from noise alone."""

    strength: float = 1.0
    """Share of the run that is redone when there is a photo, in (0, 1]; 1 ignores the photo."""

    exact_steps: bool = False
    """Whether a run that starts from a photo takes all of its steps, and not their share ``strength``."""

    mask: str | None = None
    """Picture that says where the photo is redrawn: bright is redrawn, dark stays as it is, bit for bit."""

    mask_blur: int = 4
    """Standard deviation in pixels by which the mask's edge is softened, 0 to 64."""

    masked_content: Literal["fill", "original", "latent noise", "latent nothing"] = "original"
    """What the masked place starts from: colours of its surroundings, the photo, noise, or nothing."""

    only_masked: bool = False
    """Whether the surroundings of the mask are enlarged to the whole size and drawn by themselves."""

    mask_padding: int = 32
    """Pixels around the mask that are shown to the network with ``only_masked``, 0 to 256."""

    hires: Hires | None = None
    """A second pass at a larger size."""

    tiling: bool = False
    """Whether the left edge goes on at the right one and the upper at the lower one."""

    controls: tuple[ControlUse, ...] = ()
    """Networks that steer by a picture."""

    decoder: Literal["full", "tiny"] = "full"
    """Which autoencoder makes pixels: the base's own, or a tiny one of its family, which softens fine texture."""

    reuse: int = 1
    """Every how many steps the inner UNet is run anew, 1 to 10; between, what it said is used again (DeepCache). 1 is always."""

    def __post_init__(self) -> None:
        check_kinds(self, place=self._place())
        for rule, (holds, value) in self._rules().items():
            if not holds:
                raise SettingError(f"{rule}, got {value!r}{self._place()}")

    def _place(self) -> str:
        """Where a broken rule was met, for its sentence."""
        return ""

    def _rules(self) -> dict[str, tuple[bool, Any]]:
        """Rule in words -> whether it holds, and for what value."""
        height, width = self.size if len(self.size) == 2 else (0, 0)
        return {
            "steps must be 1 to 1000": (1 <= self.steps <= 1000, self.steps),
            "strength must be in (0, 1]; 0 would hand back the photo unchanged": (0 < self.strength <= 1, self.strength),
            "guidance must be a number from 0 on": (0 <= self.guidance < math.inf, self.guidance),
            "guidance_rescale must be from 0 to 1": (
                self.guidance_rescale is None or 0 <= self.guidance_rescale <= 1, self.guidance_rescale,
            ),
            "guidance_interval must be (from, to) with 0 <= from <= to <= 1": (
                _is_interval(self.guidance_interval), self.guidance_interval,
            ),
            "eta must be from 0 to 1": (self.eta is None or 0 <= self.eta <= 1, self.eta),
            "size must be (height, width), each a multiple of 8": (
                all(side >= 8 and side % 8 == 0 for side in (height, width)), _Nearest(self.size),
            ),
            "clip_skip must be 1 to 12": (1 <= self.clip_skip <= 12, self.clip_skip),
            "variation_strength must be from 0 to 1": (0 <= self.variation_strength <= 1, self.variation_strength),
            "mask_blur must be 0 to 64": (0 <= self.mask_blur <= 64, self.mask_blur),
            "mask_padding must be 0 to 256": (0 <= self.mask_padding <= 256, self.mask_padding),
            "a mask needs a photo: give image, too": (self.mask is None or self.image is not None, self.mask),
            "reuse must be 1 to 10": (1 <= self.reuse <= 10, self.reuse),
        } | (_rules_of(self.hires) if self.hires else {})  # fmt: skip


def plain_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """Undo what JSON made of records and tuples: lists and mappings.

    Raises:
        SettingError: If a value is of another kind.
    """
    plain = dict(data)
    for name, (build, shape) in _SHAPES.items():
        if plain.get(name) is not None:
            try:
                plain[name] = build(plain[name])
            except TypeError:
                raise SettingError(f"{shape}, got {plain[name]!r}") from None
    return plain


def _list_of(given: Any) -> tuple[Any, ...]:
    if not isinstance(given, list | tuple):
        raise TypeError
    return tuple(given)


_SHAPES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "size": (_list_of, "size must be [height, width]"),
    "guidance_interval": (_list_of, "guidance_interval must be [from, to]"),
    "embeddings": (_list_of, "embeddings must be a list of files"),
    "loras": (lambda given: tuple(LoraUse(**use) for use in _list_of(given)), "each of loras must be {path: FILE, weight: NUMBER}"),
    "hires": (lambda given: Hires(**given), "hires must be {scale: NUMBER, strength: NUMBER}"),
    "controls": (
        lambda given: tuple(ControlUse(**{**use, "interval": tuple(use.get("interval", (0.0, 1.0)))}) for use in _list_of(given)),
        "each of controls must be {class_path: NAME, settings: {...}, image: FILE}",
    ),
}
"""Field -> how it is built from JSON, and the rule in words."""


class _Nearest:
    """A size in a sentence, with the one to take instead."""

    def __init__(self, size: tuple[int, ...]) -> None:
        self._size = size

    def __repr__(self) -> str:
        nearest = tuple(max(8, round(side / 8) * 8) for side in self._size)
        return f"{self._size} (the nearest is {nearest})" if len(nearest) == 2 else repr(self._size)


def _is_interval(given: tuple[float, float]) -> bool:
    return len(given) == 2 and 0 <= given[0] <= given[1] <= 1


def _rules_of(hires: Hires) -> dict[str, tuple[bool, Any]]:
    return {
        "the scale of a hires pass must be above 1 and at most 4": (1 < hires.scale <= 4, hires.scale),
        "the strength of a hires pass must be in (0, 1]": (0 < hires.strength <= 1, hires.strength),
        "the steps of a hires pass must be 0 to 1000": (0 <= hires.steps <= 1000, hires.steps),
    }
