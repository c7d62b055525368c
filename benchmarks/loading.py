"""What does the data set cost beside the drawing? Run ``python benchmarks/loading.py``.

Everything is processor time of the whole process, so that a busy machine disturbs little. Short epochs take turns: the requests
drawn by ``Sampler`` alone; the same through a DataLoader with data set, prefetch thread, transform and collation; the same loader
with a drawing that costs nothing, which is the overhead by itself; and one that reads from a cache in a new data set.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from machine import show
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from synthaug import LoraFile, Plan, Sampler, SyntheticDataset
from synthaug.lora.layers import put_on, trained_layers
from synthaug.models.load import load_base

PROMPT = "a photo of a fish on white paper"
TRANSFORM = v2.Compose([v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="pocket")
    parser.add_argument("--count", type=int, default=64, help="images per epoch")
    parser.add_argument("--epochs", type=int, default=5, help="of each kind")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16, help="of drawing and of the loader")
    parser.add_argument("--quick", action="store_true", help="a few images, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/loading.json"))
    args = parser.parse_args()
    if args.quick:
        args.count, args.epochs, args.batch_size = 16, 2, 8
    with tempfile.TemporaryDirectory() as folder:
        lora = Path(folder) / "random.safetensors"
        write_random_lora(args.base, lora)
        seconds = measure(sources(args, lora, Path(folder) / "cache"), args.epochs)
    drawn, loaded, free, cached = (seconds[name] for name in ("drawn", "loaded", "free", "cached"))
    each = 1000 / args.count
    figures = {
        "images per epoch, epochs, steps, batch": f"{args.count}, {args.epochs}, {args.steps}, {args.batch_size}",
        "drawing alone, ms per image": round(sum(drawn) / args.epochs * each, 2),
        "through the loader, ms per image": round(sum(loaded) / args.epochs * each, 2),
        "loader around a free drawing, ms per image": round(sum(free) / args.epochs * each, 3),
        "read from a cache, ms per image": round(sum(cached) / args.epochs * each, 3),
        "overhead: loader around a free drawing / drawing": f"{sum(free) / sum(drawn):.2%}",
        "overhead: through the loader / drawing - 1, median": f"{median(a / b - 1 for a, b in zip(loaded, drawn, strict=True)):+.2%}",
        "drawing epoch / cached epoch, median (worst)": (
            f"{median(a / b for a, b in zip(loaded, cached, strict=True)):.0f} ({min(loaded) / max(cached):.0f})"
        ),
    }
    show(f"loading from {args.base}, processor time", figures, args.out)


def sources(args: argparse.Namespace, lora: Path, cache: Path) -> dict[str, Callable[[], None]]:
    """The kinds of epochs, by name."""
    sampler = Sampler(args.base)
    plan = Plan.for_lora(lora, prompts=(PROMPT,), steps=args.steps)
    size = plan.size

    def dataset(**settings: object) -> SyntheticDataset:
        return SyntheticDataset(
            lora, prompt=PROMPT, steps=args.steps, count=args.count, draw_batch=args.batch_size, transform=TRANSFORM, fixed=True, **settings
        )  # fmt: skip

    def through(data: SyntheticDataset) -> None:
        seen = sum(len(images) for images, _ in DataLoader(data, batch_size=args.batch_size))
        assert seen == args.count

    def drawn() -> None:
        for first in range(0, args.count, args.batch_size):
            sampler([plan.request(index) for index in range(first, min(first + args.batch_size, args.count))])

    drawing, free = dataset(), dataset()
    free.stream._draw = lambda requests: torch.zeros(len(requests), 3, *size, dtype=torch.uint8)
    through(dataset(cache=cache))
    return {
        "drawn": drawn,
        "loaded": lambda: through(drawing),
        "free": lambda: through(free),
        "cached": lambda: through(dataset(cache=cache)),
    }


def measure(epochs: dict[str, Callable[[], None]], count: int) -> dict[str, list[float]]:
    """Seconds of processor time of each epoch; all kinds take turns, and a first round, which loads the networks, does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(count + 1):
        for name, epoch in epochs.items():
            started = time.process_time()
            epoch()
            if number:
                seconds[name].append(time.process_time() - started)
    return seconds


def write_random_lora(base: str, path: Path) -> None:
    """A LoRA of rank 8 with small random weights."""
    loaded = load_base(base, parts=("unet",))
    assert loaded.unet is not None
    torch.manual_seed(0)
    for weight in put_on(loaded.unet, rank=8, alpha=8.0):
        torch.nn.init.normal_(weight, std=0.01)
    metadata = {"synthaug.base": base, "synthaug.base_hash": loaded.fingerprint}
    LoraFile.of(trained_layers(loaded.unet), {}, metadata).write(path)


if __name__ == "__main__":
    main()
