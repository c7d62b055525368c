"""``synthaug inspect``: what a LoRA file says about itself."""

from __future__ import annotations

from pathlib import Path

from synthaug.lora.file import LoraFile

__all__ = ["inspect"]


def inspect(*, file: Path, all: bool = False) -> None:  # noqa: A002  # the option reads --all
    """Print what is in a LoRA file.

    Args:
        file: The LoRA file.
        all: Print every metadata entry too.
    """
    lora = LoraFile.read(file)
    rows = {**lora.summary(), **(dict(sorted(lora.metadata.items())) if all else {})}
    width = max(map(len, rows))
    for key, value in rows.items():
        print(f"{key:<{width}}  {value}")
