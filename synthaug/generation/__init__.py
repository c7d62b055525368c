"""Drawing: a plan says what, a sampler draws it, a folder keeps it."""

from synthaug.generation.base_check import base_fingerprint, check_base
from synthaug.generation.plan import Plan
from synthaug.generation.preview import Preview
from synthaug.generation.regular import RegularImages
from synthaug.generation.sampler import Sampler
from synthaug.generation.speed import Speed

__all__ = ["Plan", "Preview", "RegularImages", "Sampler", "Speed", "base_fingerprint", "check_base"]
