"""Did the synthetic images help? Two detectors per seed, alike in everything but the synthetic images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from synthaug.errors import SettingError
from synthaug.evaluation.detector import train_detector
from synthaug.evaluation.intervals import over_photos, over_seeds
from synthaug.evaluation.leakage import check_unseen, seen_by
from synthaug.evaluation.metrics import auroc, average_precision
from synthaug.evaluation.pictures import PhotoSource, Pictures, SyntheticSource, read_photos, read_synthetic
from synthaug.evaluation.report import Arm, Gain

__all__ = ["FEWEST_SEEDS", "evaluate_gain"]

FEWEST_SEEDS = 5
"""With fewer, the interval is so wide that nothing can be said."""


def evaluate_gain(  # noqa: PLR0913  # the options of the command and someone to tell
    *,
    good: PhotoSource,
    defect: PhotoSource,
    test_good: PhotoSource,
    test_defect: PhotoSource,
    synthetic: SyntheticSource,
    lora: Path | str | Sequence[Path | str] | None = None,
    shows: Literal["defect", "good"] = "defect",
    seeds: int = FEWEST_SEEDS,
    steps: int = 150,
    side: int = 64,
    group: str = "",
    tell: Callable[[str], None] = lambda _line: None,
) -> Gain:
    """Measure what synthetic images do for a detector that is tested on real photos only.

    For each seed one detector is trained on the real photos and one on the real photos and the synthetic
    images, from the same first weights, with as many steps, half of every batch good and half defect; in
    the second, real and synthetic pictures of the class that the images show take turns evenly. The last
    weights are tested; nothing is chosen by the test photos. Equal arguments give equal figures on one
    machine with one number of threads.

    Args:
        good: Real good photos to train on: a folder, photos, or a tensor uint8 (N, 3, H, W).
        defect: Real photos of defects to train on.
        test_good: Good photos held out, never seen by the LoRA.
        test_defect: Photos of defects held out, never seen by the LoRA.
        synthetic: The images: a folder, of which those kept by screening are used, or a tensor.
        lora: LoRA files that drew them, beside those that the folder's manifest names.
        shows: What the synthetic images show.
        seeds: How many pairs of detectors, at least 5.
        steps: Optimiser steps of every training.
        side: Pictures are cropped to the middle square and resized to this many pixels.
        group: How file names give the group, as in :func:`synthaug.photos.read_folder`; "" if every photo shows another part.
        tell: Called with a line after each seed.

    Raises:
        SettingError: If there are fewer than 5 seeds, a test photo has been seen, no synthetic image was kept, or a setting is unusable.
        PhotoFolderError: If a folder holds no usable photo.
        UnusableFileError: If the LoRA file, a photo or an image cannot be read.
        NumericsError: If the loss of a detector is not finite.

    Example:
        >>> def plain(count, grey):
        ...     return torch.full((count, 3, 16, 16), grey, dtype=torch.uint8)
        >>> photos = {"good": plain(2, 200), "defect": plain(2, 60), "test_good": plain(2, 190), "test_defect": plain(2, 70)}
        >>> gain = evaluate_gain(**photos, synthetic=plain(2, 65), steps=2, side=16)
        >>> len(gain.mixed.auroc), gain.verdict
        (5, 'unclear')

    Why comparisons are paired, and what a t interval over repeated trainings covers: Dietterich 1998,
    https://doi.org/10.1162/089976698300017197.
    """
    if seeds < FEWEST_SEEDS:
        raise SettingError(f"at least {FEWEST_SEEDS} seeds are needed for an interval that means something, got {seeds}; leave seeds out")
    train = [read_photos(source, kind, side=side, group=group) for source, kind in ((good, "good training"), (defect, "defect training"))]
    test = [read_photos(source, kind, side=side, group=group) for source, kind in ((test_good, "good test"), (test_defect, "defect test"))]
    drawn = read_synthetic(synthetic, side=side)
    loras = [] if lora is None else [lora] if isinstance(lora, Path | str) else list(lora)
    seen = seen_by(loras, drawn)
    check_unseen(test, [*train, drawn], seen)
    data = _Data.of(train, test, drawn, shows)
    scores = torch.stack([data.scores_of_seed(seed, steps, side, tell) for seed in range(seeds)], 1)
    real, mixed = (Arm(auroc=_each(auroc, arm, data.answers), ap=_each(average_precision, arm, data.answers)) for arm in scores)
    return Gain(
        real=real, mixed=mixed, auroc=over_seeds(real.auroc, mixed.auroc), ap=over_seeds(real.ap, mixed.ap),
        over_photos=over_photos(scores[0], scores[1], data.answers), steps=steps,
        counts={pictures.kind: len(pictures) for pictures in (*train, drawn, *test)},
        cautions=(*seen.cautions, *_skipped([*train, *test, drawn])),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Data:
    """Pictures as the detector takes them; the synthetic ones come last."""

    images: Tensor
    labels: Tensor
    synthetic: Tensor
    test: Tensor
    answers: Tensor

    @classmethod
    def of(cls, train: Sequence[Pictures], test: Sequence[Pictures], drawn: Pictures, shows: Literal["defect", "good"]) -> _Data:
        sizes = torch.tensor([*map(len, train), len(drawn)])
        return cls(
            images=torch.cat([pictures.images for pictures in (*train, drawn)]),
            labels=torch.tensor([0, 1, int(shows == "defect")]).repeat_interleave(sizes),
            synthetic=torch.tensor([False, False, True]).repeat_interleave(sizes),
            test=torch.cat([pictures.images for pictures in test]),
            answers=torch.arange(2).repeat_interleave(torch.tensor([len(pictures) for pictures in test])),
        )

    def scores_of_seed(self, seed: int, steps: int, side: int, tell: Callable[[str], None]) -> Tensor:
        """Scores of the test photos without and with synthetic images, (2, N)."""
        arms = []
        for use in (~self.synthetic, torch.ones_like(self.synthetic)):
            chosen = (self.images[use], self.labels[use])
            arms.append(train_detector(*chosen, synthetic=self.synthetic[use], seed=seed, steps=steps, side=side).scores(self.test))
        before, after = (auroc(scores, self.answers) for scores in arms)
        tell(f"seed {seed}: AUROC {before:.3f} on real photos alone, {after:.3f} with synthetic images")
        return torch.stack(arms)


def _each(metric: Callable[[Tensor, Tensor], float], scores: Tensor, answers: Tensor) -> tuple[float, ...]:
    return tuple(metric(row, answers) for row in scores)


def _skipped(all_pictures: Sequence[Pictures]) -> list[str]:
    return [f"{p.skipped} {p.kind} files could not be read and were left out." for p in all_pictures if p.skipped]
