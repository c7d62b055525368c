"""Photos encoded with tiny bases, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from synthaug.models.load import load_base
from synthaug.photos.buckets import Buckets
from synthaug.training.photo_data import PhotoData

__all__ = ["Drawer", "buckets", "encoded", "masked", "mixed_folder", "no_encoders", "rows_of"]


def encoded(folder: Path, base: Path, **settings) -> PhotoData:
    data = PhotoData(folder, base=str(base), **settings)
    data.setup("fit")
    return data


def rows_of(batch: dict[str, torch.Tensor]) -> list[tuple[float, ...]]:
    return [tuple(row.flatten().tolist()) for row in batch["mean"]]


def masked(folder, marks):
    """Give photos masks: the given boxes (left, top, right, bottom) are white."""
    (folder / "mask").mkdir()
    for path, box in zip(sorted(folder.glob("*.jpg")), marks, strict=False):
        with Image.open(path) as photo:
            mask = Image.new("L", photo.size)
        mask.paste(255, box)
        mask.save(folder / "mask" / f"{path.stem}.png")
    return folder


def mixed_folder(photo_folder) -> Path:
    """Five photos lying, three standing."""
    folder = photo_folder(5, size=(48, 96))
    for path in photo_folder(3, name="standing", size=(96, 48), seed=7).iterdir():
        path.rename(folder / f"standing_{path.name}")
    return folder


SMALL_BUCKETS = {"enabled": True, "step": 8, "smallest": 16, "largest": 64}


def buckets(**settings):
    return Buckets(**{**SMALL_BUCKETS, **settings})


def no_encoders(monkeypatch) -> None:
    """From here on, no encoder can be loaded."""

    def load(name, *, parts=()):
        assert not parts, f"{parts} were loaded"
        return load_base(name, parts=parts)

    monkeypatch.setattr("synthaug.training.encoders.load_base", load)


class Drawer:
    """Draws nothing but notes what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []

    def draw_regular(self, base, **wanted):
        self.asked.append((base, wanted))
        return self.folder
