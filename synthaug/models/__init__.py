"""The base: load it, choose its precision, keep its numbers sound."""

from synthaug.models.ldm import write_ldm
from synthaug.models.load import Base, load_base
from synthaug.models.numerics import Precision, choose_precision, decode_latents

__all__ = ["Base", "Precision", "choose_precision", "decode_latents", "load_base", "write_ldm"]
