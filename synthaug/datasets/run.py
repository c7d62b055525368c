"""``synthaug shards``: a folder of images, or a plan, as WebDataset shards."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from synthaug.datasets.shard_index import ImageFormat
from synthaug.datasets.shards import write_shards

if TYPE_CHECKING:
    from synthaug.generation import Plan

__all__ = ["shards"]

_SECONDS_BETWEEN_LINES = 5.0


def shards(
    *, source: Path, out: Path, per_shard: int = 1000, image_format: ImageFormat = "png", draw_batch: int = 16, device: str = "auto"
) -> None:  # fmt: skip
    """Write images as WebDataset shards; a second run goes on where the first stopped.

    Args:
        source: Folder written by ``synthaug generate``, of which only the kept images are taken once it has been
            screened; or the YAML or JSON file of a plan, which is then drawn.
        out: Folder of the shards.
        per_shard: Images per shard.
        image_format: ``png`` keeps every pixel; ``jpg`` is smaller and does not.
        draw_batch: Images of a plan drawn at a time.
        device: Where a plan is drawn: ``auto``, ``cpu``, ``cuda`` …
    """
    started = last = time.perf_counter()

    def tell(done: int, of: int) -> None:
        nonlocal last
        if time.perf_counter() - last >= _SECONDS_BETWEEN_LINES:
            last = time.perf_counter()
            print(f"written {done} of {of}", flush=True)

    index = write_shards(
        _plan(source) if source.is_file() else source,
        out, per_shard=per_shard, image=image_format, draw_batch=draw_batch, device=device, tell=tell,
    )  # fmt: skip
    seconds, size = time.perf_counter() - started, sum(shard.bytes for shard in index.shards)
    print(f"{index.count} images in {len(index.shards)} shards, {size:,} bytes, in {out} ({seconds:.1f} s)")


def _plan(path: Path) -> Plan:
    from synthaug.generation import Plan  # loads the networks' libraries, which a folder does not need

    return Plan.from_file(path)
