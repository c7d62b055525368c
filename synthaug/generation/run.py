"""``synthaug generate``: draw a plan into a folder; a second run goes on where the first stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from synthaug.errors import SettingError
from synthaug.generation.again import difference, read_original
from synthaug.generation.folder import draw_into
from synthaug.generation.grid import NO_GRID, Grid, cells
from synthaug.generation.grid_sheet import grid_sheet
from synthaug.generation.guard import repairs_said
from synthaug.generation.lora_tags import lora_files
from synthaug.generation.plan import Plan
from synthaug.generation.progress import telling
from synthaug.generation.prompt_file import read_prompt_file, requests_of
from synthaug.generation.request_check import require_photo
from synthaug.generation.sampler import Sampler
from synthaug.generation.speed import Speed
from synthaug.manifest import Manifest
from synthaug.models.numerics import PrecisionName
from synthaug.pixels import ImageFormat, read_image, save_png
from synthaug.records import Drawing, Request
from synthaug.templates import grid_of, read_wildcards

__all__ = ["draw_into", "generate"]


def generate(  # noqa: PLR0913  # every argument is an option of the command line
    *,
    out: Path,
    lora: Path | None = None,
    plan: Path | None = None,
    from_: Path | None = None,
    prompts_from_file: Path | None = None,
    grid: Grid = NO_GRID,
    prompt: str | None = None,
    count: int | None = None,
    base: str | None = None,
    lora_weight: float | None = None,
    lora_folder: Path | None = None,
    wildcards: Path | None = None,
    combinations: bool = False,
    speed: Speed | None = None,
    tiny_decoder: Path | None = None,
    label: str | None = None,
    size: tuple[int, int] | str | None = None,
    seed: int | None = None,
    image_seed: int | None = None,
    variation_seed: int | None = None,
    format: ImageFormat = "png",  # noqa: A002  # the word for it on a command line
    batch_size: int = 16,
    device: str = "auto",
    precision: PrecisionName = "auto",
    **drawing: Any,
) -> None:
    """Draw images into a folder, each a picture that says how it was made.

    A second run with the same settings draws only what is missing.

    Args:
        out: Folder for the images and their manifest.
        lora: LoRA file; base, prompt and size are read from it when left out.
        plan: YAML or JSON file with a whole plan, instead of the settings of a drawing.
        from_: Picture of ours or of A1111's that is drawn again from what it says of itself, instead of the settings of a drawing; with
            ``image`` and ``mask`` as it was drawn from, where it does not hold them.
        prompts_from_file: Text file with a prompt per line, or A1111's options, such as ``--prompt "a fish" --steps 9 --seed 5``.
        grid: Settings to vary; draws every combination from one seed, and all of them on one sheet, ``grid.png``.
        prompt: What to draw; ``{this|that}`` is decided per image, ``<lora:name:weight>`` adds a LoRA from ``lora_folder``.
        count: How many images; 16 when left out.
        base: ``pocket``, a diffusers folder or a hub id.
        lora_weight: How strongly to wear the LoRA, 1 when left out; 0 draws the bare base from the same seeds.
        lora_folder: Where LoRAs lie that prompts call by name, at any depth.
        wildcards: Folder of text files whose lines ``__name__`` in the prompt stands for.
        combinations: Draw every combination of the prompt's choices, ``count`` images in all or one of each, instead of choosing.
        speed: ``fast`` and ``draft`` take short cuts that change the picture, see docs/speed.md.
        tiny_decoder: Folder of the tiny autoencoder that ``--decoder tiny`` takes; that of the base's family when left out.
        label: Class that the images stand for; digits are taken as a number, 0 when left out.
        size: ``[HEIGHT,WIDTH]`` in pixels, or ``WIDTHxHEIGHT`` as A1111 writes it.
        seed: Seed of the plan, from 0 on, from which each image's is derived; 0 when left out.
        image_seed: Seed of the first image; each next one has one more, or the same with ``variation_strength``, as in A1111.
        variation_seed: Seed of the first image's variation; each next one has one more. Derived from the plan's when left out.
        format: ``png`` and ``webp`` keep every pixel, ``jpg`` is smaller.
        batch_size: Images drawn at a time; it changes speed and memory only.
        device: ``auto``, ``cpu``, ``cuda`` …
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
        **drawing: Fields of :class:`synthaug.records.Drawing`.
    """
    usual, asked = Drawing(), Drawing(**drawing)
    changed = {each.name: value for each in fields(Drawing) if (value := getattr(asked, each.name)) != getattr(usual, each.name)}
    told = {"count": count, "base": base, "size": _size(size), "seed": seed, "image_seed": image_seed, "variation_seed": variation_seed}
    _require_one_way(
        {"--plan": plan, "--from": from_, "--prompts_from_file": prompts_from_file, "--grid": grid if grid != NO_GRID else None},
        {
            "lora": lora, "prompt": prompt, **told, "label": label, "lora_weight": lora_weight, "lora_folder": lora_folder, "speed": speed,
            "wildcards": wildcards, "combinations": combinations or None, **changed,
        },
    )  # fmt: skip
    if from_ is not None:
        _draw_again(from_, out, asked, base, lora_folder, format, {"device": device, "precision": precision, "tiny_decoder": tiny_decoder})
        return
    kept = {} if wildcards is None else read_wildcards(wildcards)
    prompts = None if prompt is None else tuple(grid_of(prompt, wildcards=kept)) if combinations else (prompt,)
    if plan is not None:
        wanted = Plan.from_file(plan)
    else:
        named = {
            **told, "count": len(prompts) if combinations and prompts is not None and count is None else count, "wildcards": kept or None,
            "label": int(label) if label is not None and label.isdigit() else label,
            "prompts": ("",) if prompts_from_file is not None else prompts,
            "lora_files": lora_files([lora_folder]) if lora_folder else None,
        }  # fmt: skip
        given = {key: value for key, value in {**named, **changed}.items() if value is not None}
        wanted = Plan(**given) if lora is None else Plan.for_lora(lora, weight=1.0 if lora_weight is None else lora_weight, **given)
    wanted = wanted.at_speed(speed or "exact")
    requests: list[tuple[str, Request]] | None = None
    if prompts_from_file is not None:
        requests = requests_of(read_prompt_file(prompts_from_file), wanted, name=str(prompts_from_file))
    elif grid != NO_GRID:
        requests = [(".", request) for request in cells(wanted, grid)]
    require_photo(requests=[request for _, request in requests] if requests else [wanted])
    drawer = Sampler.for_drawing(wanted.base, wanted, device=device, precision=precision, tiny_decoder=tiny_decoder)
    started = time.perf_counter()
    folders = {".": wanted} if requests is None else _by_folder(requests)
    new, there = 0, 0
    for name, part in folders.items():
        manifest = Manifest(out / name)
        with telling() as tell:
            new += draw_into(manifest, part, drawer, batch_size=batch_size, tell=tell, format=format)
        there += len(manifest.samples)
        if grid != NO_GRID:
            _write_grid(manifest, list(part), grid)
    seconds = time.perf_counter() - started
    print(f"{new} new images in {seconds:.1f} s ({new / max(seconds, 1e-9):.2f} images/s), {there} in {out}")
    if said := repairs_said(drawer.repairs):
        print(f"repaired or odd, image by image in the manifest: {said}")


_NEEDS = {"lora_weight": ("lora",), "combinations": ("prompt",)}
"""Option -> those without which it would be ignored."""

_SHUT: dict[str, Callable[[str], bool]] = {
    "--plan": lambda name: name != "speed",
    "--from": lambda name: name not in ("base", "lora_folder", "image", "mask"),
    "--grid": lambda name: name in ("count", "combinations"),
    "--prompts_from_file": lambda name: name in ("count", "prompt", "combinations"),
}
"""Way to say what to draw -> whether it leaves no room for an option."""


def _require_one_way(ways: dict[str, Any], options: dict[str, Any]) -> None:
    """Refuse options that would be ignored beside others, and none at all.

    Raises:
        SettingError: If there are two ways to say what to draw, or none, or one that leaves no room for other settings.
    """
    chosen = [name for name, value in ways.items() if value is not None]
    given = [name for name, value in options.items() if value is not None]
    bare = "lora" not in given and "prompt" not in given
    if not chosen and bare:
        raise SettingError("there is nothing to draw: give --lora FILE, --prompt TEXT or --plan FILE")
    if len(chosen) > 1:
        raise SettingError(f"one of these says what to draw, got {' and '.join(chosen)}; leave one of them out")
    if chosen == ["--grid"] and bare:
        raise SettingError("a grid varies one image: give --lora FILE or --prompt TEXT, too")
    for way in chosen:
        if ignored := [name for name in given if _SHUT[way](name)]:
            raise SettingError(f"{way} says that already, got {', '.join(f'--{each}' for each in ignored)}, too; leave them out")
    for name, others in _NEEDS.items():
        if name in given and not set(others) & set(given):
            raise SettingError(f"--{name} needs --{' or --'.join(others)}, got --{name} alone; give that, too, or leave it out")


def _size(given: tuple[int, int] | str | None) -> tuple[int, int] | None:
    """Height and width, also from ``WIDTHxHEIGHT``."""
    if not isinstance(given, str):
        return given
    width, _, height = given.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise SettingError(f"size must be [HEIGHT,WIDTH] or WIDTHxHEIGHT, got {given!r}; write such as 96x64")
    return int(height), int(width)


def _by_folder(requests: Sequence[tuple[str, Request]]) -> dict[str, list[Request]]:
    folders: dict[str, list[Request]] = {}
    for name, request in requests:
        folders.setdefault(name, []).append(request)
    return folders


def _write_grid(manifest: Manifest, requests: Sequence[Request], grid: Grid) -> None:
    """Lay the images of a grid out on ``grid.png``."""
    files = {sample.request.digest: sample.file for sample in manifest.samples}
    pictures = [read_image(manifest.folder / files[request.digest]) for request in requests]
    save_png(grid_sheet(pictures, grid.axes), manifest.folder / "grid.png")
    print(f"{len(pictures)} images on one sheet: {manifest.folder / 'grid.png'}")


def _draw_again(
    picture: Path, out: Path, asked: Drawing, base: str | None, lora_folder: Path | None, format: ImageFormat, how: dict[str, Any]  # noqa: A002
) -> None:  # fmt: skip
    """Draw one picture again, and say how far the two are apart.

    Raises:
        SettingError: If it does not say enough, its LoRA or base is another one, or the folder holds it already.
    """
    folders = [] if lora_folder is None else [lora_folder]
    original = read_original(picture, lora_folders=folders, image=asked.image, mask=asked.mask)
    name = base or original.base
    if name is None:
        raise SettingError(f"{picture} does not say which base it was drawn with; give --base")
    manifest = Manifest(out)
    if original.request in manifest:
        raise SettingError(f"an image is drawn again into another folder, {out} holds it already; give another --out")
    drawer = Sampler.for_drawing(name, original.request, **how)
    original.check_base(name, drawer.base.fingerprint)
    for key, value in original.lacking.items():
        print(f"not known here, and left out: {key}: {value}")
    draw_into(manifest, [original.request], drawer, format=format)
    file = out / next(sample.file for sample in manifest.samples if sample.request == original.request)
    before, after = read_image(picture), read_image(file)
    if before.shape != after.shape:
        print(f"{file} has another size than {picture}: {tuple(after.shape[1:])} and not {tuple(before.shape[1:])}")
    else:
        print(f"{file} and {picture} differ by {difference(before, after)} of 255 at most")
