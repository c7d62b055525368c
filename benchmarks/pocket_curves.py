"""Draw the learning curves of pocket's pretraining.

Run ``python benchmarks/pocket_curves.py --run runs/pocket --out docs/pocket/learning.png``.
Reads the ``metrics.csv`` files that pretraining left in its folder; a run that was resumed has several.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT, LEFT, BELOW = 760, 320, 70, 40
COLOURS = {"train/loss": (150, 170, 200), "val/loss": (190, 60, 40), "val/psnr": (190, 60, 40)}


def points(folder: Path, column: str) -> list[tuple[int, float]]:
    """Step and value of every row of a column, over all parts of a run; a later part replaces what it repeats."""
    found: dict[int, float] = {}
    for file in sorted(folder.glob("log/version_*/metrics.csv"), key=lambda path: int(path.parent.name.rpartition("_")[2])):
        with file.open(encoding="utf-8") as opened:
            found.update({int(row["step"]): float(row[column]) for row in csv.DictReader(opened) if row.get(column)})
    return sorted(found.items())


def smoothed(line: list[tuple[int, float]], width: int) -> list[tuple[int, float]]:
    """Running mean over ``width`` values."""
    values = [value for _, value in line]
    return [(step, sum(part) / len(part)) for at, (step, _) in enumerate(line) if (part := values[max(0, at - width) : at + width + 1])]


def panel(folder: Path, columns: tuple[str, ...], title: str, samples: int) -> Image.Image:
    """One picture of some columns over the pictures seen, on a logarithmic scale for losses."""
    lines = {column: points(folder, column) for column in columns}
    lines["train/loss"] = smoothed(lines.get("train/loss", []), 5)
    everything = [point for line in lines.values() for point in line]
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    draw.text((LEFT, 8), title, fill="black")
    if not everything:
        return image
    last, losses = max(step for step, _ in everything), "val/psnr" not in columns
    scale = math.log if losses else float
    low, high = min(scale(value) for _, value in everything), max(scale(value) for _, value in everything)

    def place(step: int, value: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - 20) * step / max(1, last)
        return across, 30 + (HEIGHT - BELOW - 30) * (1 - (scale(value) - low) / max(1e-9, high - low))

    for part in range(5):
        height = low + (high - low) * part / 4
        y = 30 + (HEIGHT - BELOW - 30) * (1 - part / 4)
        draw.line([(LEFT, y), (WIDTH - 20, y)], fill=(230, 230, 230))
        draw.text((8, y - 6), f"{math.exp(height) if losses else height:.3f}", fill="black")
        draw.text((LEFT + (WIDTH - LEFT - 60) * part / 4, HEIGHT - 24), f"{last * samples * part / 4000:.0f} k", fill="black")
    for column, line in lines.items():
        if len(line) > 1:
            draw.line([place(*point) for point in line], fill=COLOURS[column], width=2)
    return image


def main() -> None:
    """Draw the two panels into one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/pocket"))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("docs/pocket/learning.png"))
    args = parser.parse_args()
    panels = [
        panel(args.run / "denoiser", ("train/loss", "val/loss"), "denoiser: loss over pictures seen (grey: training, red: held out)",
              args.batch_size),
        panel(args.run / "decoder", ("val/psnr",), "decoder: PSNR of held-out renders in dB over crops seen", 16),
    ]  # fmt: skip
    whole = Image.new("RGB", (WIDTH, HEIGHT * len(panels)), "white")
    for row, image in enumerate(panels):
        whole.paste(image, (0, row * HEIGHT))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    whole.save(args.out)


if __name__ == "__main__":
    main()
