"""``synthaug generate``: draw a plan into a folder; a second run goes on where the first stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from synthaug.errors import SettingError, UnusableFileError
from synthaug.records.infotext import lora_hash
from synthaug.records.infotext_fields import infotext
from synthaug.generation.plan import Plan
from synthaug.generation.sampler import Sampler
from synthaug.lora.file import LoraFile
from synthaug.manifest import Manifest
from synthaug.models.numerics import PrecisionName
from synthaug.pixels import digest, picture_text, save_png
from synthaug.records import Request, Sample

__all__ = ["draw_into", "generate"]


def generate(  # noqa: PLR0913  # every argument is an option of the command line
    *,
    out: Path,
    lora: Path | None = None,
    plan: Path | None = None,
    prompt: str | None = None,
    negative_prompt: str = "",
    count: int = 16,
    base: str | None = None,
    lora_weight: float = 1.0,
    label: str = "0",
    sampler: str = "DPM++ 2M",
    steps: int = 20,
    guidance: float = 4.0,
    guidance_rescale: float | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    device: str = "auto",
    precision: PrecisionName = "auto",
) -> None:
    """Draw images into a folder, each a PNG that says how it was made.

    A second run with the same settings draws only what is missing.

    Args:
        out: Folder for the images and their manifest.
        lora: LoRA file; base, prompt and size are read from it when left out.
        plan: YAML or JSON file with a whole plan, instead of the settings below.
        prompt: What to draw; ``{this|that}`` is decided per image.
        negative_prompt: What to keep away from.
        count: How many images.
        base: ``pocket``, a diffusers folder or a hub id.
        lora_weight: How strongly to wear the LoRA; 0 draws the bare base from the same seeds.
        label: Class that the images stand for; digits are taken as a number.
        sampler: Name of the sampler.
        steps: Denoising steps.
        guidance: Scale of classifier-free guidance.
        guidance_rescale: Share of its overshoot that is taken back, 0 to 1; left to the base when left out.
        size: Height and width in pixels.
        seed: Seed of the plan.
        batch_size: Images drawn at a time; it changes speed and memory only.
        device: ``auto``, ``cpu``, ``cuda`` …
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
    """
    if plan is not None:
        wanted = Plan.from_file(plan)
    else:
        settings = {
            "prompts": None if prompt is None else (prompt,), "negative_prompt": negative_prompt, "count": count, "base": base,
            "label": int(label) if label.isdigit() else label, "sampler": sampler, "steps": steps, "guidance": guidance,
            "guidance_rescale": guidance_rescale, "size": size, "seed": seed,
        }  # fmt: skip
        if lora is None and prompt is None:
            raise SettingError("there is nothing to draw: give --lora FILE, --prompt TEXT or --plan FILE")
        if lora is None:
            wanted = Plan(**{key: value for key, value in settings.items() if value is not None})  # type: ignore[arg-type]  # checked by Plan
        else:
            wanted = Plan.for_lora(lora, weight=lora_weight, **settings)
    drawer = Sampler(wanted.base, device=device, precision=precision)
    started = time.perf_counter()
    manifest = Manifest(out)
    new = draw_into(manifest, wanted, drawer, batch_size=batch_size, tell=lambda done, of: print(f"drawn {done} of {of}", flush=True))
    seconds = time.perf_counter() - started
    print(f"{new} new images in {seconds:.1f} s ({new / max(seconds, 1e-9):.2f} images/s), {len(manifest.samples)} in {out}")


def draw_into(
    manifest: Manifest, plan: Sequence[Request] | Plan, sampler: Sampler, *, batch_size: int = 16,
    tell: Callable[[int, int], None] = lambda _done, _of: None,
) -> int:  # fmt: skip
    """Draw those requests of a plan that a folder does not hold yet.

    Args:
        manifest: The folder.
        plan: What it should hold in the end.
        sampler: Draws.
        batch_size: Requests per call of the sampler.
        tell: Called after each batch with the number drawn and the number to draw.

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
        images = sampler(batch)
        seconds = (time.perf_counter() - started) / len(batch)
        for request, image in zip(batch, images, strict=True):
            name = f"{request.index:06d}-{request.digest}.png"
            text = infotext(
                request, base=sampler.base_name, base_hash=sampler.base.fingerprint,
                lora_hashes={Path(use.path).stem: _hash(use.path, hashes) for use in request.loras},
            )  # fmt: skip
            described = json.dumps(request.to_json(), sort_keys=True, ensure_ascii=False)
            save_png(image, manifest.folder / name, text={"parameters": text, "synthaug": described})
            manifest.append(Sample(file=name, request=request, sha256=digest(image), seconds=seconds))
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
        known[path] = LoraFile.read(path).content_hash
    return known[path]


def _batches(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    return (list(requests[at : at + size]) for at in range(0, len(requests), size))
