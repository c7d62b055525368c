"""The line that A1111 writes into its images, so that its tools and Civitai can read ours.

Three lines: prompt, ``Negative prompt: ...`` if there is one, and settings as ``Key: value, ...``. A
value is quoted like JSON when it holds a comma, a colon or a line break.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from synthaug.records import Request

__all__ = ["infotext", "lora_hash"]


def infotext(request: Request, *, base: str, base_hash: str, lora_hashes: Mapping[str, str]) -> str:
    """Describe an image the way A1111 does.

    Args:
        request: What was drawn.
        base: Name of the base model.
        base_hash: Its fingerprint.
        lora_hashes: Content hash of each LoRA, by the stem of its file.

    Example:
        >>> print(infotext(Request(prompt="iriko", seed=7), base="pocket", base_hash="ab" * 32, lora_hashes={"iriko": "cd" * 32}))
        iriko
        Steps: 20, Sampler: DPM++ 2M, Schedule type: Automatic, CFG scale: 4, Seed: 7, Size: 128x128, Model hash: ababababab,\
 Model: pocket, RNG: CPU, Lora hashes: "iriko: cdcdcdcdcdcd", Version: synthaug
    """
    name, schedule = _split(request.sampler)
    height, width = request.size
    values: dict[str, object] = {
        "Steps": request.steps,
        "Sampler": name,
        "Schedule type": schedule,
        "CFG scale": f"{request.guidance:g}",
        "Seed": request.seed,
        "Size": f"{width}x{height}",
        "Model hash": base_hash[:10],
        "Model": base,
    }
    if request.strength < 1:
        values["Denoising strength"] = f"{request.strength:g}"
    values["RNG"] = "CPU"
    if lora_hashes:
        values["Lora hashes"] = ", ".join(f"{stem}: {value[:12]}" for stem, value in lora_hashes.items())
    values["Version"] = "synthaug"
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in values.items()))
    return "\n".join(lines)


def lora_hash(text: str, stem: str) -> str | None:
    """Hash of the LoRA of this name, as :func:`infotext` wrote it; None if it is not there.

    Example:
        >>> text = infotext(Request(prompt="iriko", seed=7), base="pocket", base_hash="ab", lora_hashes={"iriko": "cd" * 32})
        >>> lora_hash(text, "iriko"), lora_hash(text, "rust")
        ('cdcdcdcdcdcd', None)
    """
    settings = text.rpartition("\n")[2]
    found = re.search(rf'Lora hashes: "(?:[^"]*, )?{re.escape(stem)}: ([0-9a-f]+)', settings)
    return found[1] if found else None


def _split(sampler: str) -> tuple[str, str]:
    """``DPM++ 2M Karras`` is the sampler DPM++ 2M on the schedule Karras."""
    if sampler.endswith(" Karras"):
        return sampler.removesuffix(" Karras"), "Karras"
    return sampler, "Automatic"


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text
