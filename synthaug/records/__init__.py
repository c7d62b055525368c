"""The nouns that stages hand to each other: frozen, checked by themselves, written as JSON.

A photo goes in, a request says what to draw, a sample comes out, a verdict says whether to keep it.
"""

from synthaug.records.drawing import ControlUse, Drawing, Hires, LoraUse, plain_fields
from synthaug.records.infotext import Infotext, lora_hash, parse_infotext
from synthaug.records.infotext_fields import base_of, infotext, left_over
from synthaug.records.photo import Photo
from synthaug.records.request import Request
from synthaug.records.sample import Sample, Verdict

__all__ = [
    "ControlUse",
    "Drawing",
    "Hires",
    "Infotext",
    "LoraUse",
    "Photo",
    "Request",
    "Sample",
    "Verdict",
    "base_of",
    "infotext",
    "left_over",
    "lora_hash",
    "parse_infotext",
    "plain_fields",
]
