"""What a figure was measured on, and a table of figures on the screen and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["machine", "show"]


def machine() -> dict[str, object]:
    """Processor, cores, card and versions."""
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "synthaug": version("synthaug"),
        "date": datetime.now(UTC).date().isoformat(),
    }


def show(title: str, rows: Mapping[str, object], out: Path | None) -> None:
    """Print figures, one a line, and write them as JSON when a file is given."""
    where = machine()
    print(f"{title} ({where['cpu']}, {where['cores']} cores, {where['gpu'] or 'no GPU'}, torch {where['torch']})")
    for name, value in rows.items():
        print(f"  {name:<46} {value}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"title": title, "machine": where, "figures": dict(rows)}, indent=2) + "\n", encoding="utf-8")


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
