"""From twenty photos to ten thousand labelled synthetic images, inside an ordinary PyTorch input pipeline.

    from torch.utils.data import DataLoader
    from synthaug import SyntheticDataset

    loader = DataLoader(SyntheticDataset(lora="iriko.safetensors"), batch_size=16)

Names are loaded when they are first used, so that ``import synthaug`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synthaug.datasets.shard_reading import ShardDataset
    from synthaug.datasets.shards import write_shards
    from synthaug.datasets.synthetic import SyntheticDataset
    from synthaug.datasets.variation import SyntheticVariation
    from synthaug.defects.transform import SyntheticDefect
    from synthaug.evaluation import evaluate_gain
    from synthaug.generation import Plan, Sampler
    from synthaug.lora import LoraFile
    from synthaug.records import Request
    from synthaug.training import LoraTraining, PhotoData

__all__ = [
    "LoraFile",
    "LoraTraining",
    "PhotoData",
    "Plan",
    "Request",
    "Sampler",
    "ShardDataset",
    "SyntheticDataset",
    "SyntheticDefect",
    "SyntheticVariation",
    "evaluate_gain",
    "write_shards",
]

_HOME = {
    "LoraFile": "lora",
    "LoraTraining": "training",
    "PhotoData": "training",
    "Plan": "generation",
    "Request": "records",
    "Sampler": "generation",
    "ShardDataset": "datasets.shard_reading",
    "SyntheticDataset": "datasets.synthetic",
    "SyntheticDefect": "defects.transform",
    "SyntheticVariation": "datasets.variation",
    "evaluate_gain": "evaluation",
    "write_shards": "datasets.shards",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'synthaug' has no attribute {name!r}")
    return getattr(import_module(f"synthaug.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
