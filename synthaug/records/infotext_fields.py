"""Which setting of A1111's infotext is which field of a request, both ways.

What A1111 has no key for stands in keys of our own, such as ``synthaug guidance rescale: 0.6``, which its parser lets through. They
also carry what its form would change, such as blanks at the end of a prompt, so that a request comes back as it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from synthaug.errors import SettingError, choose
from synthaug.records.drawing import Hires, LoraUse, plain_fields
from synthaug.records.infotext import Finder, Infotext, LoraTag, hashes_in, number, parse_infotext, take_lora_tags

if TYPE_CHECKING:
    from synthaug.records.request import Request

__all__ = ["base_of", "fields_of", "infotext", "left_over", "split_schedule"]

SCHEDULES = (
    "Uniform", "Karras", "Exponential", "Polyexponential", "SGM Uniform", "KL Optimal", "Align Your Steps", "Simple", "Normal", "DDIM",
    "Beta",
)  # fmt: skip
"""Schedules that may follow the name of a sampler, as A1111 wrote them before it had a key for them."""

OURS = "synthaug "
_NO_FIELDS = ("base", "image_hash", "mask_hash")
"""Keys of our own that stand for no field of a request."""

_NOT_TOLD = ("label", "index", "variation_seed")
"""No part of the picture; a variation seed has a key of A1111's where it changes something."""

_TEXTS = ("prompt", "negative_prompt", "sampler", "schedule", "emphasis", "noise", "image", "mask", "masked_content", "decoder")


def infotext(
    request: Request, *, base: str, base_hash: str, lora_hashes: Mapping[str, str], embedding_hashes: Mapping[str, str] | None = None,
    picture_hashes: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """Describe an image the way A1111 does.

    Args:
        request: What was drawn. Its label and its place in a plan are not told, nor is a variation seed that changes nothing.
        base: Name of the base model, or its path.
        base_hash: Its fingerprint.
        lora_hashes: Content hash of each LoRA, by the stem of its file.
        embedding_hashes: Hash of each embedding, by the stem of its file.
        picture_hashes: SHA-256 of the file of the photo (``image``) and of the mask (``mask``). A1111's ``Init image hash`` is another one.

    Example:
        >>> from synthaug.records import Request
        >>> print(infotext(Request(prompt="iriko", seed=7), base="pocket", base_hash="ab" * 32, lora_hashes={"iriko": "cd" * 32}))
        iriko
        Steps: 20, Sampler: DPM++ 2M, Schedule type: Automatic, CFG scale: 4, Seed: 7, Size: 128x128, Model hash: ababababab,\
 Model: pocket, RNG: CPU, Lora hashes: "iriko: cdcdcdcdcdcd", Version: synthaug
    """
    sampler, schedule = split_schedule(request.sampler, request.schedule)
    request = replace(request, sampler=sampler, schedule=schedule)
    values = _values(request, base, base_hash)
    for key, hashes in (("Lora hashes", lora_hashes), ("TI hashes", embedding_hashes or {})):
        if hashes:
            values[key] = ", ".join(f"{stem}: {value[:12]}" for stem, value in hashes.items())
    if request.emphasis != "Original":
        values["Emphasis"] = request.emphasis
    tags = [LoraTag(name=PurePath(use.path).stem, weight=use.weight, text_weight=use.text_weight) for use in request.loras]
    told = Infotext(prompt=" ".join([request.prompt, *map(str, tags)]), negative_prompt=request.negative_prompt, values=values)
    extras = _what_gets_lost(told, request)
    extras |= {f"{OURS}{kind} hash": value[:12] for kind, value in (picture_hashes or {}).items()}
    if base != values["Model"]:
        extras[f"{OURS}base"] = base
    return str(replace(told, values={**values, **extras, "Version": "synthaug"}))


def fields_of(found: Infotext, find: Finder) -> dict[str, Any]:
    """Fields of a request, read from infotext; what is not there is as A1111 has it then.

    Args:
        found: The infotext.
        find: Looks up the files of LoRAs and embeddings.

    Raises:
        SettingError: If a value cannot be read, there is no seed, or a file is not found.
    """
    values = found.values
    if "Seed" not in values and f"{OURS}seed" not in values:
        raise SettingError(f"infotext must have settings with a Seed in its last line, got {str(found)[-60:]!r}; it may have been cut off")
    ours = {key.removeprefix(OURS).replace(" ", "_"): value for key, value in values.items() if key.startswith(OURS)}
    plain: dict[str, Any] = {
        name: value if name in _TEXTS else _json(name, value) for name, value in ours.items() if name not in _NO_FIELDS
    }
    told = {name: read(values) for name, read in _READ.items()}
    if "loras" in plain:
        tags = tuple(LoraTag(**tag) for tag in plain.pop("loras"))
        told["prompt"] = found.prompt
    else:
        told["prompt"], tags = take_lora_tags(found.prompt)
    told["loras"] = tuple(LoraUse(path=find("LoRA", tag.name), weight=tag.weight, text_weight=tag.text_weight) for tag in tags)
    names = plain.pop("embeddings", hashes_in(values.get("TI hashes", "")))
    told["embeddings"] = tuple(find("embedding", name) for name in names)
    return {**told, "negative_prompt": found.negative_prompt, **plain_fields(plain)}


def left_over(found: Infotext) -> dict[str, str]:
    r"""Settings of infotext that no field of a request stands for, such as ``Face restoration``: an image drawn again lacks them.

    Example:
        >>> left_over(parse_infotext("a fish\nSteps: 20, Seed: 7, Size: 64x32, Face restoration: CodeFormer, Version: v1.10.1"))
        {'Face restoration': 'CodeFormer'}
    """
    return {key: value for key, value in found.values.items() if key not in _KNOWN and not key.startswith(OURS)}


def base_of(found: Infotext) -> str | None:
    """Name or path of the base; None if it is not told."""
    return found.values.get(f"{OURS}base", found.values.get("Model"))


def split_schedule(sampler: str, schedule: str) -> tuple[str, str]:
    """Sampler and schedule, of which the first may name both.

    Example:
        >>> split_schedule("DPM++ 2M Karras", "Automatic"), split_schedule("Euler a", "Karras"), split_schedule("DDIM", "Automatic")
        (('DPM++ 2M', 'Karras'), ('Euler a', 'Karras'), ('DDIM', 'Automatic'))
    """
    for name in sorted(SCHEDULES, key=len, reverse=True):
        if schedule == "Automatic" and sampler.endswith(f" {name}"):
            return sampler.removesuffix(f" {name}"), name
    return sampler, schedule


def _values(request: Request, base: str, base_hash: str) -> dict[str, str]:
    """What A1111 has keys for, in its order, up to the hashes of LoRAs."""
    height, width = request.size
    hires = request.hires
    drawn_over = request.image is not None or request.strength < 1
    denoising = number(request.strength) if drawn_over else number(hires.strength) if hires else ""
    values = {
        "Steps": str(request.steps),
        "Sampler": request.sampler,
        "Schedule type": request.schedule,
        "CFG scale": number(request.guidance),
        "Seed": str(request.seed),
        "Size": f"{width}x{height}",
        "Model hash": base_hash[:10],
        "Model": base.replace("\\", "/").rstrip("/").rpartition("/")[2].removesuffix(".safetensors") or base,
        "Variation seed": str(request.variation_seed) if request.variation_strength else "",
        "Variation seed strength": number(request.variation_strength) if request.variation_strength else "",
        "Denoising strength": denoising,
        "Clip skip": str(request.clip_skip) if request.clip_skip > 1 else "",
        "RNG": request.noise if request.noise != "GPU" else "",
        "Tiling": "True" if request.tiling else "",
        "Eta DDIM" if request.sampler == "DDIM" else "Eta": "" if request.eta is None else number(request.eta),
        "Hires upscale": number(hires.scale) if hires else "",
        "Hires steps": str(hires.steps) if hires and hires.steps else "",
        "Hires upscaler": hires.upscaler if hires else "",
    }
    if request.mask is not None:
        values["Mask blur"] = str(request.mask_blur)
        values["Inpaint area"] = "Only masked" if request.only_masked else "Whole picture"
        values["Masked area padding"] = str(request.mask_padding) if request.only_masked else ""
        values["Masked content"] = request.masked_content
    return {key: value for key, value in values.items() if value}


def _what_gets_lost(told: Infotext, request: Request) -> dict[str, str]:
    """Keys of our own for every field that would not come back."""
    known = {("LoRA", PurePath(use.path).stem): use.path for use in request.loras}
    known |= {("embedding", PurePath(path).stem): path for path in request.embeddings}
    back: dict[str, Any] = {"prompt": None, "loras": None}  # where the prompt looks like tags that no LoRA can be called by
    with suppress(SettingError):
        back = fields_of(parse_infotext(str(told)), lambda kind, name: known.get((kind, name), name))
    lost = {}
    for each in fields(request):
        wanted = getattr(request, each.name)
        usual = each.default if each.default is not MISSING else None
        if each.name in _NOT_TOLD or back.get(each.name, usual) == wanted:
            continue
        lost[f"{OURS}{each.name.replace('_', ' ')}"] = _written(each.name, wanted)
    return lost


def _written(name: str, value: Any) -> str:
    """A value of our own keys, as :func:`fields_of` reads it."""
    if name in _TEXTS and isinstance(value, str):
        return value
    if name == "loras":
        tags = [LoraTag(name=PurePath(use.path).stem, weight=use.weight, text_weight=use.text_weight) for use in value]
        return json.dumps([asdict(tag) for tag in tags], ensure_ascii=False)
    if name == "embeddings":
        return json.dumps([PurePath(path).stem for path in value], ensure_ascii=False)
    plain = [asdict(each) for each in value] if name == "controls" else asdict(value) if isinstance(value, Hires) else value
    return json.dumps(plain, ensure_ascii=False)


def _json(name: str, value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise SettingError(
            f"the setting 'synthaug {name}' of infotext must be JSON ({error}), got {value!r}; it may have been cut"
        ) from None


def _reader(key: str, kind: Callable[[str], Any], usual: Any) -> Callable[[Mapping[str, str]], Any]:
    """Reads one setting of A1111's."""

    def read(values: Mapping[str, str]) -> Any:
        if key not in values:
            return usual
        try:
            return kind(values[key])
        except ValueError as error:
            raise SettingError(f"the setting {key} of infotext cannot be read, got {values[key]!r} ({error})") from None

    return read


def _one_of(what: str, *names: str) -> Callable[[str], str]:
    return lambda value: choose(what, value, {name: name for name in names})


def _sides(text: str) -> tuple[int, int]:
    """Height and width of ``WIDTHxHEIGHT``."""
    width, height = text.split("x")
    return int(height), int(width)


def _hires(values: Mapping[str, str]) -> Hires | None:
    if "Hires upscale" not in values and "Hires resize" not in values:
        return None
    scale = _reader("Hires upscale", float, None)(values)
    if scale is None:
        height, width = _READ["size"](values)
        tall, wide = _reader("Hires resize", _sides, None)(values)
        scale = tall / height
        if not math.isclose(scale, wide / width, rel_tol=0.02):
            raise SettingError(
                f"a hires pass must keep the shape of the image, got Hires resize {values['Hires resize']} of {width}x{height}"
            )
    return Hires(
        scale=scale,
        strength=_reader("Denoising strength", float, 0.7)(values),
        steps=_reader("Hires steps", int, 0)(values),
        upscaler=values.get("Hires upscaler", "Latent"),
    )


def _strength(values: Mapping[str, str]) -> Any:
    """Of a photo that is drawn over; with a hires pass the number belongs to that one."""
    return 1.0 if _hires(values) else _reader("Denoising strength", float, 1.0)(values)


_READ: dict[str, Callable[[Mapping[str, str]], Any]] = {
    "seed": _reader("Seed", int, None),
    "steps": _reader("Steps", int, 20),
    "sampler": _reader("Sampler", str, "DPM++ 2M"),
    "schedule": _reader("Schedule type", str, "Automatic"),
    "guidance": _reader("CFG scale", float, 7.0),
    "size": _reader("Size", _sides, (512, 512)),
    "variation_seed": _reader("Variation seed", int, 0),
    "variation_strength": _reader("Variation seed strength", float, 0.0),
    "strength": _strength,
    "clip_skip": _reader("Clip skip", int, 1),
    "noise": _reader("RNG", _one_of("RNG", "CPU", "GPU", "NV"), "GPU"),
    "tiling": _reader("Tiling", lambda text: text == "True", usual=False),
    "eta": lambda values: _reader("Eta DDIM", float, _reader("Eta", float, None)(values))(values),
    "hires": _hires,
    "mask_blur": _reader("Mask blur", int, 4),
    "only_masked": _reader("Inpaint area", lambda text: text == "Only masked", usual=False),
    "mask_padding": _reader("Masked area padding", int, 32),
    "masked_content": _reader(
        "Masked content", _one_of("Masked content", "fill", "original", "latent noise", "latent nothing"), "original"
    ),
    "emphasis": _reader("Emphasis", _one_of("Emphasis", "Original", "No norm", "Ignore", "None"), "Original"),
}
"""Field -> how it is read from the settings; what stands there when its key is missing is A1111's default."""

_KNOWN = {
    "Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model hash", "Model", "Variation seed", "Variation seed strength",
    "Denoising strength", "Clip skip", "RNG", "Tiling", "Eta", "Eta DDIM", "Hires upscale", "Hires resize", "Hires steps",
    "Hires upscaler", "Mask blur", "Inpaint area", "Masked area padding", "Masked content", "Lora hashes", "TI hashes", "Emphasis",
    "Version", "User",
}  # fmt: skip
"""Keys that are read, and those that change no pixel."""
