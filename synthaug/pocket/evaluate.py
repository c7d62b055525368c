"""Does pocket draw what it is asked for? ``python -m synthaug.pocket.evaluate --data DIR``.

Everything is measured on the shipped weights, in under fifteen minutes on two cores: what the autoencoder keeps of
real photos, which prompts are followed, how near drawn images are to renders, and what a LoRA makes of it.
``--data`` holds ``fish_on_white`` and ``paper_defects``; without it the parts that need photos are left out and
named. Pictures for the eye go beside the figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid

from synthaug.curation.run import curate
from synthaug.errors import PhotoFolderError, SynthaugError, require
from synthaug.generation.plan import Plan
from synthaug.generation.run import generate
from synthaug.generation.sampler import Sampler
from synthaug.manifest import Manifest
from synthaug.models.load import load_base
from synthaug.pixels import SUFFIXES, framed, read_image, save_png, to_float
from synthaug.pocket.autoencoder import psnr
from synthaug.pocket.judge import judge_from
from synthaug.pocket.likeness import compare_with_renders
from synthaug.pocket.pictures import KEPT_BACK, PictureSet, render_set
from synthaug.pocket.scenes import GROUND_FLAWS, OBJECTS
from synthaug.pocket.spot_check import FIGURES, spot_check
from synthaug.training.run import fit

__all__ = ["main"]

RECIPE = Path("recipes/iriko.yaml")
PARTS = ("spot", "autoencoder", "prompts", "renders", "beside", "loras")
ASKED_GROUNDS = ("paper", "metal", "wood", "fabric", "leather", "tile", "concrete", "plastic")
FLAWED = ("coin", "biscuit", "tablet", "button")
"""Objects large and plain enough to show a defect."""


@dataclass(frozen=True, kw_only=True)
class PhotoTask:
    """Photos that a LoRA is trained on."""

    name: str
    photos: str
    trigger: str
    caption: str
    limit: int | None = None
    """Use so many of the photos, spread over the folder."""


TASKS = (
    PhotoTask(name="fish", photos="fish_on_white", trigger="dotfish", caption="a photo of a {trigger} fish on white paper"),
    PhotoTask(
        name="paper",
        photos="paper_defects/grey/defect",
        trigger="dotgrit",
        caption="a photo of grey paper with a {trigger} speck",
        limit=12,
    ),
)


@dataclass(kw_only=True)
class Findings:
    """Figures as they come in, each with what was asked, printed at once."""

    out: Path
    figures: dict[str, float | str] = field(default_factory=dict)

    def add(self, name: str, value: float | str, asked: str = "") -> None:
        """Note one figure."""
        self.figures[name] = value if isinstance(value, str) else round(value, 4)
        print(f"  {name:<64} {self.figures[name]:>10} {asked and f'(asked: {asked})'}", flush=True)

    def write(self) -> None:
        """Keep everything as JSON."""
        (self.out / "figures.json").write_text(json.dumps(self.figures, indent=2) + "\n", encoding="utf-8")


def pictures_in(folder: Path) -> list[Path]:
    """The image files of a folder, sorted.

    Raises:
        PhotoFolderError: If there is no such folder.
    """
    if not folder.is_dir():
        raise PhotoFolderError(
            f"--data must hold fish_on_white and paper_defects, there is no {folder}; check the path, or leave --data out"
        )
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def keeps(found: Findings, data: Path) -> None:
    """What the autoencoder keeps of real photos: mean PSNR in dB at 128 x 128."""
    vae = load_base("pocket").vae
    assert vae is not None
    vae.float()
    for name, asked in (("fish_on_white", "29"), ("paper_defects/grey/good", "33"), ("paper_defects/brown/good", "33")):
        values = []
        for path in pictures_in(data / name):
            x = to_float(framed(read_image(path), (128, 128)))[None]
            with torch.inference_mode():
                values.append(float(psnr(vae.decode(vae.encode(x).latent_dist.mean).sample, x)))
        found.add(f"autoencoder, {name}, {len(values)} photos, PSNR in dB", sum(values) / len(values), asked)


def draw(sampler: Sampler, prompts: list[str], *, seed: int) -> Tensor:
    """One image per prompt, uint8 (N, 3, 128, 128)."""
    plan = Plan(prompts=tuple(prompts), count=len(prompts), seed=seed)
    return torch.cat([sampler([plan[i] for i in range(at, min(at + 16, len(plan)))]) for at in range(0, len(plan), 16)])


def article(noun: str) -> str:
    """``a coin``, ``an almond``."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def follows(found: Findings, pictures: PictureSet, sampler: Sampler, args: argparse.Namespace) -> None:
    """Share of drawn images that the judge takes for what their prompt names; its own accuracy is stated first."""
    each = args.each
    judge, accuracy = judge_from(args.judge, pictures, count=args.renders)
    for question, share in accuracy.items():
        found.add(f"judge on held-out renders, {question}", share)
    wanted = [(thing, ASKED_GROUNDS[k % len(ASKED_GROUNDS)]) for thing in sorted(OBJECTS) for k in range(each)]
    started = time.perf_counter()
    images = draw(sampler, [f"a photo of {article(thing)} on {ground}" for thing, ground in wanted], seed=11)
    rate = len(images) / (time.perf_counter() - started)
    given = judge.answers(images)
    save_png(make_grid(images[:: max(1, each // 8)], nrow=8, padding=2), found.out / "prompts.png")
    for question, place in (("thing", 0), ("ground", 1)):
        right = [answer == pair[place] for answer, pair in zip(given[question], wanted, strict=True)]
        found.add(f"prompts followed, {question}", sum(right) / len(right), "85 %")
        for name in sorted({pair[place] for pair in wanted}):
            of_it = [hit for hit, pair in zip(right, wanted, strict=True) if pair[place] == name]
            found.add(f"    {name}", sum(of_it) / len(of_it))
    found.add("images per second, 20 steps with guidance, batch 16", rate, "2")
    flaws = sorted(set(GROUND_FLAWS))
    asked = [(flaw, k) for flaw in flaws for k in range(each)]
    prompts = [
        f"a photo of {ASKED_GROUNDS[k % len(ASKED_GROUNDS)]} with a {flaw}"
        if k % 2
        else f"a photo of {article(FLAWED[k // 2 % len(FLAWED)])} with a {flaw} on paper"
        for flaw, k in asked
    ]
    images = draw(sampler, prompts, seed=12)
    shown = images.reshape(len(flaws), each, *images.shape[1:])[:, :8].flatten(0, 1)  # objects and grounds in turn
    save_png(make_grid(shown, nrow=min(8, each), padding=2), found.out / "flaws.png")
    right = [answer == flaw for answer, (flaw, _) in zip(judge.answers(images)["flaw"], asked, strict=True)]
    found.add("prompts followed, defect", sum(right) / len(right), "85 %")
    for flaw in flaws:
        of_it = [hit for hit, (name, _) in zip(right, asked, strict=True) if name == flaw]
        found.add(f"    {flaw}", sum(of_it) / len(of_it))


def learns(found: Findings, task: PhotoTask, data: Path) -> None:
    """Train a LoRA with the demo's recipe on real photos, draw 32 images and compare them with the photos."""
    photos, folder = data / task.photos, found.out / task.name
    files = pictures_in(photos)
    for earlier in (folder, found.out / f"{task.name}-photos"):
        shutil.rmtree(earlier, ignore_errors=True)
    if task.limit is not None:
        photos = found.out / f"{task.name}-photos"
        photos.mkdir()
        for path in files[:: max(1, len(files) // task.limit)][: task.limit]:
            (photos / path.name).symlink_to(path.resolve())
    lora = found.out / f"{task.name}.safetensors"
    options = ["--config", str(RECIPE), "--data.photos", str(photos), "--out", str(lora)]
    started = time.perf_counter()
    fit([*options, "--data.trigger", task.trigger, "--data.caption", task.caption])
    found.add(f"LoRA on {task.name}, seconds of training", time.perf_counter() - started, "180")
    generate(lora=lora, out=folder, count=32)
    curate(samples=folder, photos=photos, report=found.out / f"{task.name}.json")
    whole = json.loads((found.out / f"{task.name}.json").read_text(encoding="utf-8"))
    found.add(f"LoRA on {task.name}, distance ratio to the photos", whole["distance_ratio"], "1.8" if task.name == "fish" else "")
    found.add(f"LoRA on {task.name}, near-copies of a photo", whole["copy_share"])
    images = torch.stack([read_image(folder / sample.file) for sample in Manifest(folder).samples])
    save_png(make_grid(images, nrow=8, padding=2), found.out / f"{task.name}.png")


def beside(found: Findings, pictures: PictureSet, data: Path) -> None:
    """A contact sheet of photos, each row over a row of renders that should look like them."""
    rows = []
    for photos, thing, ground in (("fish_on_white", "fish", "paper"), ("paper_defects/grey/defect", None, "paper")):
        files = pictures_in(data / photos)
        rows += [framed(read_image(path), (128, 128)) for path in files[:: max(1, len(files) // 8)][:8]]
        alike = [
            at for at, facts in enumerate(pictures.facts) if facts["thing"] == thing and facts["ground"] == ground and facts["count"] < 2
        ]
        rows += list(torch.from_numpy(pictures.pixels(alike[:8])).permute(0, 3, 1, 2))
    save_png(make_grid(torch.stack(rows), nrow=8, padding=2), found.out / "beside.png")


def learn(found: Findings, data: Path) -> None:
    """Every LoRA in turn."""
    for task in TASKS:
        learns(found, task, data)


def spots(found: Findings, sampler: Sampler, *, keep: bool) -> None:
    """The part that CI repeats, see :mod:`synthaug.pocket.spot_check`."""
    figures = spot_check(lambda prompts: draw(sampler, prompts, seed=10))
    for name, value in figures.items():
        found.add(name, value)
    if keep:
        FIGURES.write_text(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2) + "\n", encoding="utf-8")


def resembles(found: Findings, pictures: PictureSet, sampler: Sampler, *, count: int) -> None:
    """Drawn images beside renders of the same captions."""
    figures = compare_with_renders(pictures, lambda prompts: draw(sampler, prompts, seed=13), count=count, sheet=found.out / "alike.png")
    for name, (value, asked) in figures.items():
        found.add(name, value, asked)


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with fish_on_white and paper_defects")
    parser.add_argument("--pictures", type=Path, default=Path("runs/pocket/pictures"), help="renders; made when there are none")
    parser.add_argument("--renders", type=int, default=10_000, help="how many to render when there are none, and to train the judge on")
    parser.add_argument("--judge", type=Path, help="file to keep the trained judge in, or to take it from")
    parser.add_argument("--each", type=int, default=16, help="images per object and per defect")
    parser.add_argument("--alike", type=int, default=128, help="images to compare with renders")
    parser.add_argument("--write-figures", action="store_true", help="keep the spot check's figures as those of the shipped weights")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--out", type=Path, default=Path("out/pocket"))
    args = parser.parse_args()
    if args.data is None:
        print("no --data given: the autoencoder on photos, the sheet beside photos and the LoRAs are left out")
        args.parts = [part for part in args.parts if part not in ("autoencoder", "beside", "loras")]
    require({
        f"the LoRAs need their recipe {RECIPE}; run this in the repository, or leave them out with --parts": (
            "loras" not in args.parts or RECIPE.is_file(), str(Path.cwd()),
        ),
        "--each must be at least 1": (args.each >= 1, args.each),
        f"--alike must be 2 to {KEPT_BACK}, as many as are kept back": (2 <= args.alike <= KEPT_BACK, args.alike),
    })  # fmt: skip
    return args


def main() -> None:
    """Measure, print, and write figures and contact sheets; what the user can put right is said in a sentence."""
    try:
        _run(options())
    except SynthaugError as error:
        raise SystemExit(f"error: {error}") from None


def _run(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    found, sampler, started = Findings(out=args.out), Sampler("pocket"), time.perf_counter()
    if {"prompts", "renders", "beside"} & set(args.parts):
        if not list(args.pictures.glob("pictures-*.npy")):
            render_set(args.pictures, count=args.renders, seed=0)
        pictures = PictureSet(args.pictures)
    parts: dict[str, Callable[[], None]] = {
        "spot": lambda: spots(found, sampler, keep=args.write_figures),
        "autoencoder": lambda: keeps(found, args.data),
        "prompts": lambda: follows(found, pictures, sampler, args),
        "renders": lambda: resembles(found, pictures, sampler, count=args.alike),
        "beside": lambda: beside(found, pictures, args.data),
        "loras": lambda: learn(found, args.data),
    }
    for name in args.parts:
        parts[name]()
    found.add("minutes in all", (time.perf_counter() - started) / 60, "15")
    found.write()


if __name__ == "__main__":
    main()
