"""Options of a short run of ``synthaug fit`` on a tiny base."""

from __future__ import annotations

from pathlib import Path


def options(base: Path, folder: Path, out: Path, *more: str, steps: int = 4) -> list[str]:
    """What follows ``synthaug fit``."""
    return [
        "--model.base", str(base), "--data.photos", str(folder), "--data.batch_size", "2", "--model.shape.rank", "2",
        "--trainer.accelerator", "cpu", "--trainer.max_steps", str(steps), "--trainer.precision", "32-true", "--data.cache", "none",
        "--check_photos", "false",
        "--out", str(out), *more,
    ]  # fmt: skip
