"""Does pocket keep real photos, and does it draw what it is asked for?

Run ``python benchmarks/pocket.py --data DIR --pictures runs/pocket/pictures``.
``--data`` holds ``fish_on_white`` and ``paper_defects``. ``--pictures`` are renders as pretraining makes them (a
few thousand are rendered if there are none); a classifier is trained on them and must know at least 95 % of held-out
renders before its opinion of drawn images counts.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import torch
from machine import show
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.utils import make_grid

from synthaug.generation import Plan, Sampler
from synthaug.models.load import load_base
from synthaug.pixels import SUFFIXES, framed, read_image, save_png, to_float
from synthaug.pocket.pictures import PictureSet, render_set
from synthaug.pocket.scenes import OBJECTS
from synthaug.seeds import seed_for

CLASSES = sorted(OBJECTS)
SIDE = 64


def kept(folder: Path) -> dict[str, float]:
    """PSNR in dB of photos after encoding and decoding, mean over a folder."""
    vae = load_base("pocket", parts=("vae",)).vae
    assert vae is not None
    vae.float()
    found = {}
    for name in ("fish_on_white", "paper_defects/grey/good", "paper_defects/brown/good"):
        files = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES)
        values = []
        for path in files:
            x = to_float(framed(read_image(path), (128, 128)))[None]
            with torch.inference_mode():
                y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
            values.append(10 * torch.log10(4 / (y - x).square().mean()))
        found[f"VAE, {name}, {len(files)} photos, PSNR dB"] = round(float(torch.stack(values).mean()), 2)
    return found


def small(pixels: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) to float (N, 3, SIDE, SIDE) in [-1, 1]."""
    return F.interpolate(to_float(pixels), (SIDE, SIDE), mode="area")


def classifier() -> nn.Module:
    """A small convolutional network, about 0.7 million weights."""
    widths = (24, 48, 96, 192)
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 5, stride=2, padding=2), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.Conv2d(after, after, 3, padding=1)]
        layers += [nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(widths[-1], len(CLASSES)))


def trained(pictures: PictureSet, *, epochs: int, limit: int) -> tuple[nn.Module, float]:
    """The classifier and its accuracy on renders it has not seen, the last thousand of the set."""
    rows = [row for row, facts in enumerate(pictures.facts) if facts["thing"]]
    held_out = [row for row in rows if row >= len(pictures) - 1000]
    seen = [row for row in rows if row < len(pictures) - 1000][:limit]
    x, y = _batch(pictures, seen)
    network = classifier().to(memory_format=torch.channels_last)
    steps = epochs * (len(seen) // 64)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        pick = torch.randint(len(seen), (64,))
        batch = _jittered(small(x[pick]))
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(batch.contiguous(memory_format=torch.channels_last)), y[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if (step + 1) % 500 == 0:
            print(f"classifier: step {step + 1} of {steps}, loss {loss.item():.3f}", flush=True)
    network.eval()
    test, truth = _batch(pictures, held_out)
    return network, float((guess(network, test) == truth).float().mean())


@torch.inference_mode()
def guess(network: nn.Module, pixels: Tensor) -> Tensor:
    """Class of each picture, (N,)."""
    return torch.cat([network(small(part)).argmax(1) for part in pixels.split(200)])


def _batch(pictures: PictureSet, rows: list[int]) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(pictures.pixels(rows)).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor([CLASSES.index(pictures.facts[row]["thing"]) for row in rows])


def _jittered(batch: Tensor) -> Tensor:
    """Turn, mirror, shift and soften: what a drawn image may differ in without being another thing."""
    if torch.rand(()) < 0.5:
        batch = batch.flip(3)
    batch = torch.rot90(batch, int(torch.randint(4, ())), (2, 3))
    batch = torch.roll(batch, (int(torch.randint(-4, 5, ())), int(torch.randint(-4, 5, ()))), (2, 3))
    if torch.rand(()) < 0.3:
        batch = F.avg_pool2d(F.pad(batch, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return batch + 0.03 * torch.randn_like(batch)


def followed(network: nn.Module, *, each: int, out: Path | None) -> dict[str, float]:
    """Share of drawn images that the classifier takes for what their prompt names, by class."""
    sampler, shares, sheets = Sampler("pocket"), {}, []
    for name in CLASSES:
        article = "an" if name[0] in "aeiou" else "a"
        plan = Plan(prompts=(f"a photo of {article} {name} on paper",), count=each, seed=seed_for(0, name) % 1000)
        images = torch.cat([sampler([plan[i] for i in range(at, min(at + 16, each))]) for at in range(0, each, 16)])
        shares[name] = float((guess(network, images) == CLASSES.index(name)).float().mean())
        sheets.append(images[:8])
        print(f"prompt 'a photo of {article} {name} on paper': {shares[name]:.0%} recognised", flush=True)
    if out is not None:
        save_png(make_grid(torch.cat(sheets), nrow=8, padding=2), out)
    return shares


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with fish_on_white and paper_defects; left out, photos are not measured")
    parser.add_argument("--pictures", type=Path, default=Path("runs/pocket/pictures"))
    parser.add_argument("--limit", type=int, default=20_000, help="renders to train the classifier on")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--each", type=int, default=16, help="images per class")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/pocket.json"))
    args = parser.parse_args()
    torch.manual_seed(0)
    figures: dict[str, object] = {}
    if args.data is not None:
        figures.update(kept(args.data))
    if not list(args.pictures.glob("pictures-*.npy")):
        render_set(args.pictures, count=args.limit, seed=0)
    network, accuracy = trained(PictureSet(args.pictures), epochs=args.epochs, limit=args.limit)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    shares = followed(network, each=args.each, out=args.out.with_suffix(".png"))
    figures["classifier on held-out renders"] = round(accuracy, 4)
    figures["drawn images recognised, mean over classes"] = round(sum(shares.values()) / len(shares), 4)
    figures.update({f"  {name}": share for name, share in shares.items()})
    show("pocket", figures, args.out)


if __name__ == "__main__":
    main()
