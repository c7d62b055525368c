"""``synthaug evaluate``: train detectors without and with synthetic images, and say whether they helped."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from synthaug.errors import OutputError
from synthaug.evaluation.gain import FEWEST_SEEDS, evaluate_gain

__all__ = ["evaluate"]


def evaluate(  # noqa: PLR0913  # every argument is an option of the command line
    *,
    good: Path,
    defect: Path,
    test_good: Path,
    test_defect: Path,
    synthetic: Path,
    lora: Path | None = None,
    shows: Literal["defect", "good"] = "defect",
    seeds: int = FEWEST_SEEDS,
    steps: int = 150,
    side: int = 64,
    group: str = "",
    out: Path | None = None,
) -> None:
    """Measure what synthetic images do for a defect detector, on photos that nothing was trained on.

    Args:
        good: Folder of real good photos to train on.
        defect: Folder of real photos of defects to train on.
        test_good: Folder of good photos held out.
        test_defect: Folder of photos of defects held out.
        synthetic: Folder of synthetic images; those that ``synthaug curate`` kept are used.
        lora: LoRA file that drew them; files that the folder's manifest names are found by themselves.
        shows: What the synthetic images show, ``defect`` or ``good``.
        seeds: Pairs of detectors to train, at least 5.
        steps: Optimiser steps of every training.
        side: Pictures are cropped to the middle square and resized to this many pixels.
        group: How file names give the group of photos of one part: ``--group=-1`` cuts off the last part after an underscore.
        out: JSON file for all figures.
    """
    started = time.perf_counter()
    gain = evaluate_gain(
        good=good, defect=defect, test_good=test_good, test_defect=test_defect, synthetic=synthetic, lora=lora, shows=shows,
        seeds=seeds, steps=steps, side=side, group=group, tell=lambda line: print(line, flush=True),
    )  # fmt: skip
    print(f"\n{gain.table()}\n\n{gain.sentence}\n\n{2 * seeds} detectors in {time.perf_counter() - started:.1f} s")
    if out is not None:
        _write(json.dumps(gain.to_json(), indent=2, ensure_ascii=False) + "\n", out)
        print(f"{out} written")


def _write(text: str, path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise OutputError(f"{path} could not be written ({error.strerror}); free some space or choose another file") from error
