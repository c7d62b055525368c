"""The demo's photos: sound iriko, belly-burst iriko, and a test set of other fish that nothing is trained on."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from synthaug.pocket.iriko import BURST, SOUND, iriko_photo
from synthaug.seeds import seed_for

__all__ = ["World", "render_world"]


@dataclass(frozen=True, kw_only=True)
class World:
    """Folders of photos, JPEG, one fish each."""

    sound: Path
    """Sound fish to train the detector on."""

    burst: Path
    """The few belly-burst fish there are: for the LoRA, and for the detector."""

    test_sound: Path
    """Other sound fish, for the test alone."""

    test_burst: Path
    """Other belly-burst fish, for the test alone."""


def render_world(folder: Path, *, sound: int, burst: int, test: int, seed: int) -> World:
    """Photograph the fish.

    Args:
        folder: Gets ``photos`` and ``test``, each with ``sound`` and ``belly-burst``.
        sound: Number of sound fish to train on.
        burst: Number of belly-burst fish to train on.
        test: Number of test photos of either kind.
        seed: Seed of the world; every fish has its own, derived from it.
    """
    wanted = [("photos", SOUND, sound), ("photos", BURST, burst), ("test", SOUND, test), ("test", BURST, test)]
    jobs = []
    for part, kind, count in wanted:
        (folder / part / kind).mkdir(parents=True, exist_ok=True)
        jobs += [
            (folder / part / kind / f"{kind}_{index:04d}.jpg", seed_for(seed, "demo", part, kind, index), kind) for index in range(count)
        ]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_photograph, jobs, chunksize=16))
    return World(
        sound=folder / "photos" / SOUND, burst=folder / "photos" / BURST,
        test_sound=folder / "test" / SOUND, test_burst=folder / "test" / BURST,
    )  # fmt: skip


def _photograph(job: tuple[Path, int, str]) -> None:
    path, seed, kind = job
    Image.fromarray(iriko_photo(seed, kind).pixels).save(path, "JPEG", quality=95)
