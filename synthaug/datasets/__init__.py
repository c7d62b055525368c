"""Data sets for a training loop: drawn on demand, varied from photos, written to and read from shards.

Names are loaded when they are first used: reading shards needs no diffusion model and loads none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synthaug.datasets.shard_reading import ShardDataset
    from synthaug.datasets.shards import write_shards
    from synthaug.datasets.stream import RequestStream, SyntheticDataset
    from synthaug.datasets.variation import SyntheticVariation

__all__ = ["RequestStream", "ShardDataset", "SyntheticDataset", "SyntheticVariation", "write_shards"]

_HOME = {
    "RequestStream": "stream",
    "ShardDataset": "shard_reading",
    "SyntheticDataset": "stream",
    "SyntheticVariation": "variation",
    "write_shards": "shards",
}


def __getattr__(name: str) -> Any:
    """Load a name from its module (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'synthaug.datasets' has no attribute {name!r}")
    return getattr(import_module(f"synthaug.datasets.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
