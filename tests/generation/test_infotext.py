from __future__ import annotations

import json
import re

from synthaug.generation.infotext import infotext
from synthaug.records import Request


def settings_of(line):
    """Read the last line as A1111 does."""
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', line)
    return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}


def described(hashes=None, **fields):
    request = Request(**{"prompt": "a photo of iriko", "seed": 7, **fields})
    return infotext(request, base="pocket", base_hash="ab" * 32, lora_hashes=hashes or {}).split("\n")


def test_a_negative_prompt_has_a_line_of_its_own():
    assert described(negative_prompt="blurred, dark")[:2] == ["a photo of iriko", "Negative prompt: blurred, dark"]
    assert len(described()) == 2


def test_the_settings_are_read_back_as_a1111_reads_them():
    found = settings_of(described(sampler="DPM++ 2M Karras", steps=9, guidance=3.5, size=(96, 128))[-1])

    assert found["Sampler"] == "DPM++ 2M"
    assert found["Schedule type"] == "Karras"
    assert (found["Steps"], found["CFG scale"], found["Seed"], found["Size"]) == ("9", "3.5", "7", "128x96")
    assert found["Model hash"] == "ab" * 5


def test_values_with_commas_are_quoted():
    found = settings_of(described({"iriko": "cd" * 32, "other": "ef" * 32})[-1])

    assert found["Lora hashes"] == f"iriko: {'cd' * 6}, other: {'ef' * 6}"


def test_strength_is_told_only_when_a_photo_was_redrawn():
    assert settings_of(described(strength=0.6)[-1])["Denoising strength"] == "0.6"
    assert "Denoising strength" not in settings_of(described()[-1])
