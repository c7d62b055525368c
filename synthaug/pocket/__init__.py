"""The embedded base: scene renderer, pretraining, weights."""

from pathlib import Path

__all__ = ["WEIGHTS"]

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the shipped weights, in diffusers' layout."""
