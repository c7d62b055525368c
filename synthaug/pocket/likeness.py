"""Are drawn images as near to renders as other renders are, without being any of them?

Both sides answer the same captions: those of renders that were kept back. Distances are those of
:mod:`synthaug.curation.features`, each group divided by its median among the renders.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid

from synthaug.curation.features import Features, describe, group_distances
from synthaug.curation.near_copies import copy_distances, thumbnails
from synthaug.pixels import save_png
from synthaug.pocket.pictures import KEPT_BACK, PictureSet

__all__ = ["compare_with_renders", "tone_differences"]

CANDIDATES = 16
"""Nearest renders by features among which copies are looked for."""

COPY = 0.35
"""A copy below this many times the copy distance that held-out renders keep."""


def compare_with_renders(
    pictures: PictureSet, draw: Callable[[list[str]], Tensor], *, count: int, against: int = 3000, sheet: Path | None = None
) -> dict[str, tuple[float, str]]:
    """Figures with what was asked of them.

    Args:
        pictures: Renders; the last thousand are those that nothing was trained on.
        draw: One image for each prompt, uint8 (N, 3, H, W).
        count: How many captions to draw.
        against: With how many training renders to compare.
        sheet: Where to write drawn images beside the renders of the same captions.
    """
    rows = list(range(len(pictures) - count, len(pictures)))
    held_out = _pixels(pictures, rows)
    drawn = draw([str(pictures.facts[row]["captions"][0]) for row in rows])
    trained = _pixels(pictures, list(range(min(against, len(pictures) - KEPT_BACK))))
    known, unit = describe(trained), {}
    half = min(256, len(known) // 2)
    for name, distances in group_distances(_part(known, 0, half), _part(known, half, len(known))).items():
        unit[name] = max(1e-4, float(distances.amin(1).median()))
    near = {name: _nearest(describe(images), known, unit) for name, images in (("drawn", drawn), ("held out", held_out))}
    copies = {
        name: torch.stack(
            [
                copy_distances(thumbnails(image[None]), thumbnails(trained[at])).min()
                for image, at in zip(images, near[name][1], strict=True)
            ]
        )
        for name, images in (("drawn", drawn), ("held out", held_out))
    }
    if sheet is not None:
        pairs = torch.stack([held_out[:32], drawn[:32]], 1).flatten(0, 1)
        save_png(make_grid(pairs, nrow=8, padding=2), sheet)
    limit = COPY * copies["held out"].median()
    figures = {
        "distance to the nearest render over held-out renders' own": (
            float(near["drawn"][0].median() / near["held out"][0].median()),
            "1.3",
        ),
        f"near-copies among {len(trained)} training renders": (float((copies["drawn"] < limit).float().mean()), "1 %"),
    }
    return figures | {name: (value, "10 %") for name, value in tone_differences(drawn, held_out).items()}


def tone_differences(drawn: Tensor, renders: Tensor) -> dict[str, float]:
    """How far brightness and colour are off, mean and spread over the pictures, as shares of the renders' own."""
    found = {}
    for name, of in (("brightness", _brightness), ("colour", _colour)):
        a, b = of(drawn), of(renders)
        found[f"{name} of drawn images against renders, mean"] = float(a.mean() / b.mean() - 1)
        found[f"{name} of drawn images against renders, spread"] = float(a.std() / b.std() - 1)
    return found


def _brightness(images: Tensor) -> Tensor:
    return images.float().mean((1, 2, 3))


def _colour(images: Tensor) -> Tensor:
    """Largest difference between the mean channels of each picture, (N,)."""
    mean = images.float().mean((2, 3))
    return mean.amax(1) - mean.amin(1)


def _pixels(pictures: PictureSet, rows: list[int]) -> Tensor:
    return torch.from_numpy(pictures.pixels(rows)).permute(0, 3, 1, 2).contiguous()


def _part(features: Features, first: int, last: int) -> Features:
    return Features(**{name: value[first:last] for name, value in vars(features).items()})


def _nearest(features: Features, known: Features, unit: dict[str, float]) -> tuple[Tensor, Tensor]:
    """Distance to the nearest known picture, (N,), and the nearest few, (N, CANDIDATES)."""
    groups = group_distances(features, known)
    combined = torch.stack([(groups[name] / unit[name]).square() for name in unit]).mean(0).sqrt()
    nearest = combined.topk(CANDIDATES, dim=1, largest=False)
    return nearest.values[:, 0], nearest.indices
