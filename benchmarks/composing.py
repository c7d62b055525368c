"""How many images a second get a defect? Run ``python benchmarks/composing.py``.

Everything is processor time of one thread, with labels, masks and boxes changed along, as ``SyntheticDefect`` does it. All sources
take turns on the same images, so that a busy machine disturbs all alike; anomalib's generator of Perlin anomalies joins in where it
is installed.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from machine import show
from torch import Tensor
from torchvision import tv_tensors

from synthaug import SyntheticDefect
from synthaug.defects import HANDMADE, Bank, Pasting
from synthaug.defects.bank_run import bank as make_bank
from synthaug.defects.compose import BLENDINGS
from synthaug.pixels import save_mask, save_png

THEIRS = "anomalib's Perlin"
ABSENT = "not measured: anomalib is not installed here (pip install anomalib)"
Put = Callable[[Tensor], bool]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=None, help="a bank; made-up stains when left out")
    parser.add_argument("--side", type=int, default=256, help="of the images")
    parser.add_argument("--count", type=int, default=40, help="images per round")
    parser.add_argument("--rounds", type=int, default=7, help="of each source; a first one does not count")
    parser.add_argument("--quick", action="store_true", help="a few images, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/composing.json"))
    args = parser.parse_args()
    if args.quick:
        args.count, args.rounds = 4, 2
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        defects = Bank(args.bank or stains(Path(folder), args.side))
    images = [paper(index, args.side) for index in range(args.count)]
    puts = sources(defects)
    theirs = anomalib_perlin()
    seconds, share = measure({**puts, **({THEIRS: theirs} if theirs else {})}, images, args.rounds)
    rows: dict[str, object] = {"side, images per round, rounds, cut-outs": f"{args.side}, {args.count}, {args.rounds}, {len(defects)}"}
    for name, each in seconds.items():
        rows[f"{name}, images/s"] = f"{args.count / median(each):.0f} (worst {args.count / max(each):.0f}, {share[name]:.0%} got a defect)"
    rows[f"bank / {THEIRS}, median"] = (
        f"{median(b / a for a, b in zip(seconds['bank'], seconds[THEIRS], strict=True)):.1f}" if theirs else ABSENT
    )
    show("putting in defects, processor time of one thread", rows, args.out)


def sources(defects: Bank) -> dict[str, Put]:
    """The kinds of defects, by name; each says whether it put one in."""
    made = {"bank": SyntheticDefect(defects, p=1.0)}
    made |= {f"bank, {name}": SyntheticDefect(defects, p=1.0, pasting=Pasting(blending=name)) for name in BLENDINGS}
    made |= {f"hand-made {name}": SyntheticDefect(recipe(), p=1.0) for name, recipe in HANDMADE.items()}
    return {name: _put(transform) for name, transform in made.items()}


def _put(transform: SyntheticDefect) -> Put:
    def put(image: Tensor) -> bool:
        side = image.shape[-1]
        sample = {
            "image": tv_tensors.Image(image),
            "mask": tv_tensors.Mask(torch.zeros(side, side, dtype=torch.uint8)),
            "boxes": tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=(side, side)),
            "label": 0,
        }
        return bool(transform(sample)["label"])

    return put


def anomalib_perlin() -> Put | None:
    """Theirs, without a folder of textures; it takes float images."""
    try:
        module = importlib.import_module("anomalib.data.utils.generators.perlin")
    except ImportError:
        return None
    generator = module.PerlinAnomalyGenerator(probability=1.0)

    def put(image: Tensor) -> bool:
        _, mask = generator(image.float() / 255)
        return bool(mask.any())

    return put


def measure(puts: dict[str, Put], images: list[Tensor], rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of processor time per round, and the share of images that got a defect; all take turns, a first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in puts}
    got = dict.fromkeys(puts, 0)
    for number in range(rounds + 1):
        for name, put in puts.items():
            started = time.process_time()
            hits = sum(put(image) for image in images)
            if number:
                seconds[name].append(time.process_time() - started)
                got[name] += hits
    return seconds, {name: hits / (rounds * len(images)) for name, hits in got.items()}


def paper(seed: int, side: int) -> Tensor:
    """Fine grain on grey, uint8 (3, side, side)."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy((150 + rng.normal(0, 5, (3, side, side))).clip(0, 255).astype(np.uint8))


def stains(folder: Path, side: int) -> Path:
    """A bank of 24 stains of 0.2 to 3 % of their pictures."""
    (folder / "photos" / "mask").mkdir(parents=True)
    y, x = np.mgrid[:side, :side]
    for index in range(24):
        rng = np.random.default_rng(1000 + index)
        row, column = rng.uniform(0.3, 0.7, 2) * side
        high, wide = rng.uniform(0.025, 0.1, 2) * side
        inside = ((y - row) / high) ** 2 + ((x - column) / wide) ** 2 <= 1 + 0.3 * np.sin(4 * np.arctan2(y - row, x - column))
        image = paper(index, side).numpy()
        image[:, inside] = rng.integers(20, 120, (1, int(inside.sum())))
        save_png(torch.from_numpy(image), folder / "photos" / f"{index}.png")
        save_mask(torch.from_numpy(inside.astype(np.uint8)), folder / "photos" / "mask" / f"{index}.png")
    make_bank(out=folder / "bank", photos=folder / "photos")
    return folder / "bank"


if __name__ == "__main__":
    main()
