"""``synthaug generate``: draw a plan into a folder; a second run goes on where the first stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from synthaug.errors import SettingError, UnusableFileError
from synthaug.generation.again import difference, read_original
from synthaug.generation.grid import NO_GRID, Grid, cells
from synthaug.generation.grid_sheet import grid_sheet
from synthaug.generation.guard import repairs_said
from synthaug.generation.lora_tags import file_hash, lora_files, lora_hash_of
from synthaug.generation.plan import Plan
from synthaug.generation.progress import Tell, telling
from synthaug.generation.prompt_file import read_prompt_file, requests_of
from synthaug.generation.sampler import Sampler
from synthaug.generation.speed import Speed
from synthaug.manifest import Manifest
from synthaug.models.numerics import PrecisionName
from synthaug.pixels import ImageFormat, digest, picture_text, read_image, save_image, save_png
from synthaug.records import Drawing, Request, Sample, infotext, lora_hash
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
    lora_weight: float = 1.0,
    lora_folder: Path | None = None,
    wildcards: Path | None = None,
    combinations: bool = False,
    speed: Speed = "exact",
    tiny_decoder: Path | None = None,
    label: str = "0",
    size: tuple[int, int] | str | None = None,
    seed: int = 0,
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
        from_: Picture of ours or of A1111's that is drawn again from what it says of itself, instead of the settings of a drawing.
        prompts_from_file: Text file with a prompt per line, or A1111's options, such as ``--prompt "a fish" --steps 9 --seed 5``.
        grid: Settings to vary; draws every combination from one seed, and all of them on one sheet, ``grid.png``.
        prompt: What to draw; ``{this|that}`` is decided per image, ``<lora:name:weight>`` adds a LoRA from ``lora_folder``.
        count: How many images; 16 when left out.
        base: ``pocket``, a diffusers folder or a hub id.
        lora_weight: How strongly to wear the LoRA; 0 draws the bare base from the same seeds.
        lora_folder: Where LoRAs lie that prompts call by name, at any depth.
        wildcards: Folder of text files whose lines ``__name__`` in the prompt stands for.
        combinations: Draw every combination of the prompt's choices, ``count`` images in all or one of each, instead of choosing.
        speed: ``fast`` and ``draft`` take short cuts that change the picture, see docs/speed.md.
        tiny_decoder: Folder of the tiny autoencoder that ``--decoder tiny`` takes; that of the base's family when left out.
        label: Class that the images stand for; digits are taken as a number.
        size: ``[HEIGHT,WIDTH]`` in pixels, or ``WIDTHxHEIGHT`` as A1111 writes it.
        seed: Seed of the plan.
        format: ``png`` and ``webp`` keep every pixel, ``jpg`` is smaller.
        batch_size: Images drawn at a time; it changes speed and memory only.
        device: ``auto``, ``cpu``, ``cuda`` …
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
        **drawing: Fields of :class:`synthaug.records.Drawing`.
    """
    usual, asked = Drawing(), Drawing(**drawing)
    changed = {each.name: value for each in fields(Drawing) if (value := getattr(asked, each.name)) != getattr(usual, each.name)}
    kept = {} if wildcards is None else read_wildcards(wildcards)
    prompts = None if prompt is None else tuple(grid_of(prompt, wildcards=kept)) if combinations else (prompt,)
    if combinations and prompts is not None and count is None:
        count = len(prompts)
    named = {
        "label": int(label) if label.isdigit() else label, "count": count, "base": base, "size": _size(size), "seed": seed,
        "prompts": prompts, "lora_files": lora_files([lora_folder]) if lora_folder else None, "wildcards": kept or None,
    }  # fmt: skip
    ways = {"--plan": plan, "--from": from_, "--prompts_from_file": prompts_from_file, "--grid": grid if grid != NO_GRID else None}
    _require_one_way(ways, changed, prompt=prompt, lora=lora, count=count, base=base, size=size)
    if from_ is not None:
        _draw_again(from_, out, base=base, lora_folder=lora_folder, format=format, device=device, precision=precision)
        return
    if plan is not None:
        wanted = Plan.from_file(plan)
    else:
        if prompts_from_file is not None:
            named["prompts"] = ("",)
        given = {key: value for key, value in {**named, **changed}.items() if value is not None}
        wanted = Plan(**given) if lora is None else Plan.for_lora(lora, weight=lora_weight, **given)
    wanted = wanted.at_speed(speed)
    requests: list[tuple[str, Request]] | None = None
    if prompts_from_file is not None:
        requests = requests_of(read_prompt_file(prompts_from_file), wanted, name=str(prompts_from_file))
    elif grid != NO_GRID:
        requests = [(".", request) for request in cells(wanted, grid)]
    drawer = Sampler(wanted.base, device=device, precision=precision, tiny_decoder=tiny_decoder)
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


def _require_one_way(ways: dict[str, Any], changed: dict[str, Any], **plain: Any) -> None:
    """Refuse options that would be ignored beside others, and none at all.

    Raises:
        SettingError: If there are two ways to say what to draw, or none, or one that leaves no room for other settings.
    """
    chosen = [name for name, value in ways.items() if value is not None]
    given = [name for name, value in plain.items() if value is not None]
    if not chosen and plain["lora"] is None and plain["prompt"] is None:
        raise SettingError("there is nothing to draw: give --lora FILE, --prompt TEXT or --plan FILE")
    if len(chosen) > 1:
        raise SettingError(f"one of these says what to draw, got {' and '.join(chosen)}; leave one of them out")
    if chosen == ["--grid"] and plain["lora"] is None and plain["prompt"] is None:
        raise SettingError("a grid varies one image: give --lora FILE or --prompt TEXT, too")
    closed = {"--plan": [*given, *changed], "--from": [*(name for name in given if name != "base"), *changed]}
    open_but = {
        "--grid": [name for name in given if name == "count"],
        "--prompts_from_file": [n for n in given if n in ("count", "prompt")],
    }
    for name in chosen:
        if ignored := (closed | open_but)[name]:
            raise SettingError(f"{name} says that already, got {', '.join(f'--{each}' for each in ignored)}, too; leave them out")


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
    picture: Path, out: Path, *, base: str | None, lora_folder: Path | None, format: ImageFormat, device: str, precision: PrecisionName  # noqa: A002
) -> None:  # fmt: skip
    """Draw one picture again, and say how far the two are apart.

    Raises:
        SettingError: If it does not say enough, its LoRA or base is another one, or the folder holds it already.
    """
    original = read_original(picture, lora_folders=[] if lora_folder is None else [lora_folder])
    name = base or original.base
    if name is None:
        raise SettingError(f"{picture} does not say which base it was drawn with; give --base")
    manifest = Manifest(out)
    if original.request in manifest:
        raise SettingError(f"an image is drawn again into another folder, {out} holds it already; give another --out")
    drawer = Sampler(name, device=device, precision=precision)
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


def draw_into(
    manifest: Manifest, plan: Sequence[Request] | Plan, sampler: Sampler, *, batch_size: int = 16,
    tell: Tell = lambda _done, _of: None, format: ImageFormat = "png",  # noqa: A002  # as on the command line
) -> int:  # fmt: skip
    """Draw those requests of a plan that a folder does not hold yet.

    Args:
        manifest: The folder.
        plan: What it should hold in the end.
        sampler: Draws.
        batch_size: Requests per call of the sampler.
        tell: Called after each batch with the number drawn and the number to draw.
        format: Kind of file.

    Returns:
        How many images were drawn.

    Raises:
        SettingError: If the batch size is below 1, or the folder was drawn with a LoRA that has changed since.
        OutputError: If the disk is full; what was drawn before is kept, and the next run goes on from there.
    """
    if batch_size < 1:
        raise SettingError(f"batch_size must be at least 1, got {batch_size}")
    hashes: dict[str, str] = {}
    _require_same_loras(manifest, {use.path for request in plan for use in request.loras}, hashes)
    missing = [request for request in plan if request not in manifest]
    done = 0
    for batch in _batches(missing, batch_size):
        started = time.perf_counter()
        drawn = sampler.draw(batch)
        seconds = (time.perf_counter() - started) / len(batch)
        for request, image, repairs in zip(batch, drawn.images, drawn.repairs, strict=True):
            name = f"{request.index:06d}-{request.digest}.{format}"
            text = infotext(
                request, base=sampler.base_name, base_hash=sampler.base.fingerprint,
                lora_hashes={Path(use.path).stem: _hash(use.path, hashes) for use in request.loras},
                embedding_hashes={Path(path).stem: file_hash(path) for path in request.embeddings},
            )  # fmt: skip
            described = json.dumps(request.to_json(), sort_keys=True, ensure_ascii=False)
            save_image(image, manifest.folder / name, text={"parameters": text, "synthaug": described})
            kept = read_image(manifest.folder / name) if format == "jpg" else image
            manifest.append(Sample(file=name, request=request, sha256=digest(kept), seconds=seconds, repairs=repairs))
        done += len(batch)
        tell(done, len(missing))
    return done


def _require_same_loras(manifest: Manifest, paths: set[str], known: dict[str, str]) -> None:
    """Refuse to add to images that were drawn with another LoRA of the same name, or to take them for new ones.

    Raises:
        SettingError: If a LoRA file has changed since the folder was drawn.
    """
    for sample in manifest.samples:
        for path in {use.path for use in sample.request.loras} & paths:
            then = lora_hash(_parameters(manifest.folder / sample.file), Path(path).stem)
            if then is None:
                continue
            paths = paths - {path}
            if not _hash(path, known).startswith(then):
                raise SettingError(
                    f"all images of a folder must come from one LoRA, {manifest.folder} was drawn with another {path} (hash {then}, now "
                    f"{_hash(path, known)[: len(then)]}); give --out another folder, or delete this one"
                )
        if not paths:
            return


def _parameters(file: Path) -> str:
    """The infotext of an image; "" if it cannot be read, which curation will say of it."""
    try:
        return picture_text(file).get("parameters", "")
    except UnusableFileError:
        return ""


def _hash(path: str, known: dict[str, str]) -> str:
    if path not in known:
        known[path] = lora_hash_of(path)
    return known[path]


def _batches(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    """Requests that can be drawn in one call: of one size, and with the same LoRAs, so that these are seldom changed."""
    together: dict[Any, list[Request]] = {}
    for request in requests:
        together.setdefault((request.size, request.hires, request.loras), []).append(request)
    return (alike[at : at + size] for alike in together.values() for at in range(0, len(alike), size))
