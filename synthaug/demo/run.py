"""``synthaug demo``: the commands of every stage, one after the other, on the demo's own photos."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from synthaug.curation.run import curate
from synthaug.datasets.run import shards
from synthaug.demo.report import write_report
from synthaug.demo.world import render_world
from synthaug.errors import OutputError, SettingError
from synthaug.evaluation.run import evaluate
from synthaug.generation.run import generate
from synthaug.manifest import Manifest
from synthaug.training.run import fit

__all__ = ["demo"]

MARK = ".synthaug-demo"
"""A file that says the folder is ours and may be emptied."""


def demo(
    *,
    out: Path = Path("demo"),
    recipe: Path = Path("recipes/iriko.yaml"),
    images: int = 160,
    sound: int = 150,
    test: int = 100,
    seeds: int = 5,
    fit_steps: int | None = None,
    seed: int = 0,
) -> None:
    """Show the whole road: photograph iriko, train, draw, screen, write shards, train a detector both ways.

    Args:
        out: Folder for everything; an earlier demo in it is replaced.
        recipe: Settings of the training.
        images: How many images to draw.
        sound: Sound photos for the detector; there are always 23 belly-burst ones.
        test: Test photos of either kind.
        seeds: How often the detector is trained each way.
        fit_steps: Steps of the LoRA's training instead of the recipe's.
        seed: Seed of photos and images.
    """
    if not recipe.is_file():
        raise SettingError(f"the demo needs its recipe, there is no {recipe}; run it in the repository, or give --recipe FILE")
    _empty(out)
    clock = Clock()
    lora = out / "iriko.safetensors"
    with clock.stage("photograph"):
        world = render_world(out, sound=sound, burst=23, test=test, seed=seed)
        print(f"{sound} sound and 23 belly-burst iriko in {out}/photos, {test} and {test} others in {out}/test")
    with clock.stage("train the LoRA"):
        options = ["--config", str(recipe), "--data.photos", str(world.burst), "--out", str(lora)]
        options += [] if fit_steps is None else ["--trainer.max_steps", str(fit_steps)]
        print("$ synthaug fit", shlex.join(options))
        fit(options)
    with clock.stage("draw"):
        _said(generate, lora=lora, out=out / "base", count=8, seed=seed, lora_weight=0.0, label="1")
        _said(generate, lora=lora, out=out / "images", count=images, seed=seed, label="1")
    with clock.stage("screen"):
        _said(curate, samples=out / "base", photos=world.burst, report=out / "base.json")
        _said(curate, samples=out / "images", photos=world.burst, report=out / "images.json")
    if Manifest(out / "images").kept:
        with clock.stage("write shards"):
            _said(shards, source=out / "images", out=out / "shards")
        with clock.stage("train the detector"):
            _said(
                evaluate, good=world.sound, defect=world.burst, test_good=world.test_sound, test_defect=world.test_burst,
                synthetic=out / "images", lora=lora, seeds=seeds, out=out / "gain.json",
            )  # fmt: skip
    else:
        print("\nno image passed the screening, so there is nothing to write or to train on; the report shows why each was rejected")
    with clock.stage("write the report"):
        write_report(out, world, clock.seconds)
    (out / "times.json").write_text(json.dumps(clock.seconds, indent=2) + "\n", encoding="utf-8")
    print("\n" + "\n".join(f"{name:<20}{seconds:7.1f} s" for name, seconds in clock.seconds.items()))
    print(f"{'together':<20}{sum(clock.seconds.values()):7.1f} s\n\nopen {out}/report.html")


class Clock:
    """How long each stage took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        print(f"\n== {name}", flush=True)
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 2)
        print(f"-- {name}: {self.seconds[name]:.1f} s", flush=True)


def _said(command: Callable[..., None], **options: object) -> None:
    """Run a command after printing it as one would type it."""
    words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    print("$ synthaug", command.__name__, shlex.join(words), flush=True)
    command(**options)


def _empty(out: Path) -> None:
    """Make the folder, or empty it when an earlier demo made it.

    Raises:
        SettingError: If it holds something else.
        OutputError: If it cannot be written.
    """
    if out.exists() and not (out / MARK).exists() and any(out.iterdir()):
        raise SettingError(f"the demo empties its folder first, {out} holds something else; give --out another folder")
    try:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        (out / MARK).write_text("made by synthaug demo\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the folder {out} cannot be written ({error.strerror}); give --out another one") from error
