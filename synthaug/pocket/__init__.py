"""The embedded base: scene renderer, pretraining, weights."""

from pathlib import Path

__all__ = ["FEW_STEPS", "WEIGHTS"]

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the shipped weights, in diffusers' layout."""

FEW_STEPS = WEIGHTS / "few_steps.safetensors"
"""LoRA with which four steps without guidance do; made by ``python -m synthaug.pocket.distill``."""
