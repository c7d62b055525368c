"""Is the recovered mask where the defect is? Run ``python benchmarks/masks.py``.

The truth is known because both pictures are rendered: one scene with a flaw and without. What a filled image would be is made as filling
makes it: the flawed picture, with other sensor noise and in part compressed, goes through pocket's autoencoder, and is laid with a soft
edge on the normal one inside a ragged region around the flaw. Beside each stands one whose redrawn place has no flaw, which must be
rejected.
"""

from __future__ import annotations

import argparse
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from machine import show
from PIL import Image
from torch import Tensor

from synthaug.defects.fill import confined
from synthaug.defects.recover import count_kinds, judge_filled, recover_mask
from synthaug.defects.shapes import perlin
from synthaug.generation.finishing import pixels_of
from synthaug.generation.inpainting import composite, softened
from synthaug.generation.jobs import Paste
from synthaug.generation.networks import Networks
from synthaug.photos.regions import grown
from synthaug.pixels import to_float
from synthaug.pocket.pairs import render_pair
from synthaug.pocket.scenes import OBJECTS, Scene, random_scene

SURFACE = ("scratch", "crack", "stain", "hole", "dent", "speck")
INVISIBLE = 3.0
"""Grey levels of the clean difference in the flaw below which an eye finds nothing."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One rendered pair, filled."""

    flaw: str
    contrast: float
    normal: Tensor
    flawed: Tensor
    empty: Tensor
    truth: Tensor
    asked: Tensor
    reach: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="pairs")
    parser.add_argument("--first", type=int, default=10_000, help="seed of the first; below 1000 are those that limits were chosen on")
    parser.add_argument("--quick", action="store_true", help="a few pairs, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/masks.json"))
    args = parser.parse_args()
    count = 14 if args.quick else args.count
    found, asked, by_flaw, as_jpeg = list[float](), list[float](), defaultdict(list), list[float]()
    real, empty, invisible = [], [], 0
    for case in cases(range(args.first, args.first + count)):
        changed = recover_mask(case.normal, case.flawed, case.asked, reach=case.reach)
        real.append(judge_filled(case.flawed, changed))
        empty.append(judge_filled(case.empty, recover_mask(case.normal, case.empty, case.asked, reach=case.reach)))
        if not real[-1].keep:
            continue
        invisible += case.contrast < INVISIBLE
        found.append(overlap(changed.mask, case.truth))
        asked.append(overlap(case.asked, case.truth))
        by_flaw[case.flaw].append(found[-1])
        saved = compressed(confined(case.flawed, case.normal, changed.mask), 90)
        as_jpeg.append(overlap(recover_mask(case.normal, saved, case.asked, reach=case.reach).mask, case.truth))
    accepted = len(found) + sum(verdict.keep for verdict in empty)
    wrong = invisible + sum(verdict.keep for verdict in empty)
    figures = {
        "pairs with a flaw, as many without": len(real),
        "accepted with a flaw": f"{len(found) / len(real):.1%}",
        "accepted without (or with an invisible one)": wrong,
        "share of the accepted without a visible flaw": f"{wrong / max(1, accepted):.2%}",
        "recovered mask, IoU: median, tenth percentile": f"{median(found):.3f}, {np.quantile(found, 0.1):.3f}",
        "asked-for mask, IoU: median, tenth percentile": f"{median(asked):.3f}, {np.quantile(asked, 0.1):.3f}",
        "recovered after saving as JPEG 90, IoU: median": f"{median(as_jpeg):.3f}",
        "rejected with a flaw": count_kinds(real),
        "rejected without a flaw": count_kinds(empty),
        "IoU by flaw": {name: round(median(values), 2) for name, values in sorted(by_flaw.items())},
    }
    show("masks of rendered defects", figures, args.out)


@torch.inference_mode()
def cases(seeds: range) -> Iterator[Case]:
    """Rendered pairs with their flaw, filled and empty."""
    networks = Networks("pocket", device=torch.device("cpu"))
    for seed in seeds:
        rng = np.random.default_rng(seed)
        scene = scene_of(seed)
        pair = render_pair(scene, seed, noise=float(rng.uniform(0, 0.02)))
        truth = torch.from_numpy(pair.mask)
        if int(truth.sum()) < 8:  # a bite beside the object, a flaw behind it
            continue
        asked, blur = region_around(truth, rng), int(rng.integers(1, 5))
        quality = int(rng.integers(60, 96)) if rng.random() < 0.4 else 0
        normal = _tensor(pair.normal)
        paste = Paste(photo=normal, cover=(2 * softened(asked, blur)).clamp(max=1), box=(0, 0, *asked.shape))

        def laid(picture: np.ndarray, paste: Paste = paste, quality: int = quality) -> Tensor:
            drawn = compressed(_tensor(picture), quality) if quality else _tensor(picture)
            return composite(pixels_of(networks.encode(to_float(drawn)[None]), networks)[0], paste)

        yield Case(
            flaw=scene.flaw or "", contrast=pair.contrast, normal=normal, flawed=laid(pair.flawed), empty=laid(pair.again), truth=truth,
            asked=asked, reach=int(2.5 * blur + 0.5),
        )  # fmt: skip


def scene_of(seed: int) -> Scene:
    """A scene with one object or none, and a flaw, all kinds as often."""
    scene = random_scene(seed)
    kinds = SURFACE if scene.thing is None else OBJECTS[scene.thing].flaws
    return replace(scene, flaw=kinds[seed % len(kinds)], poses=scene.poses[:1])


def region_around(truth: Tensor, rng: np.random.Generator) -> Tensor:
    """A ragged region that holds the flaw, uint8 (H, W), as a shape that was asked for would."""
    reach = int(rng.integers(3, 9))
    rough = torch.from_numpy(perlin((truth.shape[0], truth.shape[1]), scale=(8, 8), rng=rng)) > -0.25
    return ((grown(truth.float(), reach) > 0) & (rough | (grown(truth.float(), 2) > 0))).to(torch.uint8)


def overlap(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two masks."""
    return float(((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum().clamp_min(1))


def compressed(picture: Tensor, quality: int) -> Tensor:
    """A picture, uint8 (3, H, W), as it comes back from a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
    return _tensor(np.array(Image.open(buffer)))


def _tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


if __name__ == "__main__":
    main()
