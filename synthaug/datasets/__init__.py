"""Data sets for a training loop: drawn on demand, varied from photos, mixed with real ones, written to and read from shards.

Names are loaded when they are first used: reading shards needs no diffusion model and loads none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synthaug.datasets.mixing import MixedDataset
    from synthaug.datasets.pool import Pool

__all__ = ["MixedDataset", "Pool"]

_HOME = {"MixedDataset": "mixing", "Pool": "pool"}


def __getattr__(name: str) -> Any:
    """Load a name from its module (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'synthaug.datasets' has no attribute {name!r}")
    return getattr(import_module(f"synthaug.datasets.{_HOME[name]}"), name)
