"""How fast are images drawn? Run ``python benchmarks/generation.py``.

In one run, in turn, in CPU seconds (so that what else the machine does counts little):

image by image   ``StableDiffusionPipeline`` with the LoRA loaded by ``load_lora_weights``, one image a call, the way people do it
pipeline         the same pipeline at our batch size
exact            our sampler as it comes
fast, draft      the words of :mod:`synthaug.generation.speed`
levers           each by itself: those that change time alone switched off or on, those that are fields switched on

The bound is counted FLOPs over the best rate at which this machine multiplies matrices, measured in the same run. The panel compares what
``fast`` and ``draft`` draw with what ``exact`` draws from the same seeds, against other images of ``exact``.

``--shape sd15`` takes random weights of that shape (4.3 GB on disk, 9 GB of memory) and leaves the panel out; ``--quick`` tries it all out.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from machine import show
from random_base import make_base
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from synthaug.curation.report import report
from synthaug.curation.scores import Reference
from synthaug.generation import Plan, Sampler
from synthaug.generation.schedulers import make_scheduler
from synthaug.generation.speed import speed_of
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import put_on, trained_layers
from synthaug.models.load import load_base, resolve
from synthaug.records import LoraUse

PROMPT = "a photo of a fish on white paper"
GUIDANCE = 4.0

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
"""What is measured: seconds as they pass, on a machine that does nothing else, or those that processors worked."""


class _Clock:
    """The clock of this run."""

    now: Callable[[], float] = time.perf_counter


def main() -> None:
    """Measure everything and print the table."""
    args = _options()
    _Clock.now = CLOCKS[args.clock]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="synthaug-benchmark-") as temporary:
        base = "pocket" if args.shape == "pocket" else str(make_base(Path(temporary) / "base", args.shape))
        lora = _random_lora(base, Path(temporary) / "lora.safetensors")
        show(
            f"drawing on {args.shape}, {args.size[0]} x {args.size[1]}, {args.steps} steps, guidance {GUIDANCE:g}, a LoRA of rank 16, "
            f"batch {args.batch_size}, {args.clock} time", _figures(base, lora, args), args.out,
        )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["pocket", "sd15", "tiny"], default="pocket")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=2)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--panel", type=int, default=32, help="images that the panel compares; 0 leaves it out")
    parser.add_argument("--skip-levers", action="store_true")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="processor: on a machine that does other work, too")
    parser.add_argument("--quick", action="store_true", help="tiny random weights, a few steps: does it run?")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/generation.json"))
    args = parser.parse_args()
    if args.quick:
        args.shape, args.steps, args.panel = "tiny", 4, 6
    large = args.shape == "sd15"
    args.panel = 0 if large else args.panel
    args.size = tuple(args.size or {"pocket": (128, 128), "sd15": (256, 256), "tiny": (64, 64)}[args.shape])
    args.batch_size = args.batch_size or (4 if large else 16)
    args.repeats = args.repeats or (1 if large or args.quick else 3)
    return args


def _random_lora(base: str, path: Path) -> LoraUse:
    loaded = load_base(base, parts=("unet",))
    assert loaded.unet is not None
    torch.manual_seed(0)
    for weight in put_on(loaded.unet.float(), rank=16, alpha=16.0):
        torch.nn.init.normal_(weight, std=0.02)
    LoraFile.of(trained_layers(loaded.unet), {}, {"synthaug.base": base, "synthaug.base_hash": loaded.fingerprint}).write(path)
    del loaded
    gc.collect()
    return LoraUse(path=str(path))


def _figures(base: str, lora: LoraUse, args: argparse.Namespace) -> dict[str, object]:
    count = args.batch_size
    plan = Plan(prompts=(PROMPT,), count=count, steps=args.steps, guidance=GUIDANCE, size=args.size, loras=(lora,), base=base)
    arms = _arms(plan, args)
    best: dict[str, float] = {}
    for _ in range(args.repeats):
        for name, seconds in _pipeline_seconds(base, lora, plan).items():
            _note(best, name, seconds)
        gc.collect()
        for settings in _different(arms):
            sampler = _warm(Sampler(base, precision="fp32", **settings), plan)
            for name, (own, drawn) in arms.items():
                if own == settings:
                    _note(best, name, _seconds(lambda drawn=drawn, sampler=sampler: sampler(list(drawn)), count=count))
            del sampler
            gc.collect()
        if not args.skip_levers:
            with mock.patch("synthaug.generation.tuning.onednn_suits", return_value=False):
                sampler = _warm(Sampler(base, precision="fp32"), plan)
                _note(best, "PyTorch's own linear layers", _seconds(lambda sampler=sampler: sampler(list(plan)), count=count))
                del sampler
                gc.collect()
    rate, work = _matmul_rate(), _flops(base, args)
    figures: dict[str, object] = {f"{name}, s/image": round(value, 4) for name, value in best.items()}
    figures |= {f"{name} against exact": round(best["exact"] / value, 2) for name, value in best.items() if name != "exact"}
    figures |= {
        "exact against image by image": round(best["image by image"] / best["exact"], 2),
        "exact against the pipeline at our batch size": round(best["pipeline"] / best["exact"], 2),
        "best rate of matrix products, GFLOP/s": round(rate / 1e9, 1),
        "counted work, GFLOP/image": round(work / 1e9, 2),
        "exact, share of the bound": round(work / rate / best["exact"], 3),
    }
    if args.panel:
        figures |= _panel(base, plan, args.panel)
    return figures


def _arms(plan: Plan, args: argparse.Namespace) -> dict[str, tuple[dict[str, Any], Plan]]:
    """Name -> arguments of the sampler, and what is drawn."""
    arms: dict[str, tuple[dict[str, Any], Plan]] = {word: ({}, speed_of(word, plan, base=plan.base)) for word in ("exact", "fast", "draft")}
    if args.skip_levers:
        return arms
    return arms | {
        "PyTorch's own memory layout": ({"channels_last": False}, plan),
        "fused query, key and value": ({"fuse_qkv": True}, plan),
        "guidance in the first half": ({}, replace(plan, guidance_interval=(0.0, 0.5))),
        "no guidance": ({}, replace(plan, guidance=1.0)),
        "seven tenths of the steps": ({}, replace(plan, steps=max(1, round(0.7 * plan.steps)))),
        "inner UNet every 2nd step": ({}, replace(plan, reuse=2)),
        "inner UNet every 3rd step": ({}, replace(plan, reuse=3)),
    }


def _different(arms: dict[str, tuple[dict[str, Any], Plan]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for settings, _ in arms.values():
        if settings not in found:
            found.append(settings)
    return found


def _note(best: dict[str, float], name: str, seconds: float) -> None:
    best[name] = min(best.get(name, seconds), seconds)
    print(f"  {name:<34} {seconds:.4f} s/image", flush=True)


def _seconds(draw: Callable[[], object], *, count: int) -> float:
    """Seconds per image; callers load the networks before."""
    started = _Clock.now()
    draw()
    return (_Clock.now() - started) / count


def _pipeline_seconds(base: str, lora: LoraUse, plan: Plan) -> dict[str, float]:
    """The pipeline as people call it, and at our batch size; it is gone from memory afterwards."""
    pipe = _pipeline(base, lora)
    sizes = {"image by image": 1, "pipeline": len(plan)}
    return {name: _seconds(partial(_with_pipeline, pipe, plan, size), count=size) for name, size in sizes.items()}


def _warm(sampler: Sampler, plan: Plan) -> Sampler:
    sampler([replace(plan[0], steps=1)])
    return sampler


def _pipeline(base: str, lora: LoraUse) -> Any:
    pipe = StableDiffusionPipeline.from_pretrained(
        resolve(base), torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipe.scheduler = make_scheduler("DPM++ 2M", dict(pipe.scheduler.config))
    pipe.load_lora_weights(lora.path)
    pipe.set_progress_bar_config(disable=True)
    pipe(PROMPT, height=64, width=64, num_inference_steps=1)
    return pipe


def _with_pipeline(pipe: Any, plan: Plan, size: int) -> None:
    some = list(plan)[:size]
    height, width = plan.size
    pipe(
        [request.prompt for request in some], height=height, width=width, num_inference_steps=plan.steps, guidance_scale=plan.guidance,
        generator=[torch.Generator().manual_seed(request.seed) for request in some], output_type="pil",
    )  # fmt: skip


def _matmul_rate() -> float:
    """FLOP per second, the best of both libraries on square matrices."""
    best = 0.0
    ways: list[Callable[[Tensor, Tensor], Tensor]] = [
        torch.nn.functional.linear, lambda a, b: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""),
    ]  # fmt: skip
    with torch.inference_mode():
        for side in (1024, 2048):
            a, b = torch.randn(side, side), torch.randn(side, side)
            for way in ways:
                for _ in range(8):
                    started = _Clock.now()
                    way(a, b)
                    best = max(best, 2 * side**3 / (_Clock.now() - started))
    return best


def _flops(base: str, args: argparse.Namespace) -> float:
    """Work of one image in ``exact``: two rows of the UNet a step, one decoding; counted without weights."""
    place = resolve(base)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(place, subfolder="unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(place, subfolder="vae"))
        z = torch.randn(1, unet.config["in_channels"], args.size[0] // 8, args.size[1] // 8)
        states = torch.randn(1, 77, unet.config["cross_attention_dim"])
        with FlopCounterMode(display=False) as row:
            unet(z, torch.ones(1), states)
        with FlopCounterMode(display=False) as picture:
            vae.decode(z)
    return float(2 * args.steps * row.get_total_flops() + picture.get_total_flops())


def _panel(base: str, plan: Plan, count: int) -> dict[str, object]:
    """Distances of quick images and exact ones to other exact ones; all from the same seeds."""
    sampler = Sampler(base, precision="fp32")
    plain = replace(plan, loras=(), count=2 * count, prompts=(PROMPT, "a photo of a coin on wood", "a photo of a screw on grey metal"))

    def drawn(of: Plan, rows: range) -> Tensor:
        return torch.cat([sampler([of[i] for i in rows[at : at + 16]]) for at in range(0, len(rows), 16)])

    reference = Reference(drawn(plain, range(count, 2 * count)))
    figures: dict[str, object] = {}
    for word in ("exact", "fast", "draft"):
        images = drawn(speed_of(word, plain, base=base), range(count))
        scores = reference.scores(images)
        found = report(scores, reference)
        figures |= {
            f"panel, {word}: nearest distance": found.distance_ratio,
            f"panel, {word}: coverage": round(found.photos_met / found.photos, 3),
            f"panel, {word}: share of copies": found.copy_share,
            f"panel, {word}: Vendi score": round(_vendi(images), 2),
        }
    return figures


def _vendi(images: Tensor) -> float:
    """Effective number of different images: Friedman & Dieng 2023, https://arxiv.org/abs/2210.02410; kernel exp(-d**2 / 2)."""
    own = Reference(images)
    kernel = torch.exp(-own.distances(own.features).square() / 2).double()
    values = torch.linalg.eigvalsh((kernel + kernel.T) / 2 / len(images)).clamp_min(1e-12)
    return float(torch.exp(-(values * values.log()).sum()))


if __name__ == "__main__":
    main()
