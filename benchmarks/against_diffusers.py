"""Does diffusers draw the same picture from our LoRA file? Run ``python benchmarks/against_diffusers.py --lora FILE``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from machine import show

from synthaug.generation import Plan, Sampler
from synthaug.generation.schedulers import make_scheduler
from synthaug.models.load import resolve


def main() -> None:
    """Draw the same requests with both and print the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lora", type=Path, required=True)
    parser.add_argument("--samplers", nargs="+", default=["DDIM", "DPM++ 2M", "Euler a"])
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/against_diffusers.json"))
    args = parser.parse_args()
    figures: dict[str, object] = {}
    for name in args.samplers:
        plan = Plan.for_lora(args.lora, count=args.count, sampler=name)
        ours = Sampler(plan.base, precision="fp32")(list(plan)).permute(0, 2, 3, 1).numpy().astype(int)
        pipe = StableDiffusionPipeline.from_pretrained(
            resolve(plan.base), torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        )
        pipe.scheduler = make_scheduler(name, dict(pipe.scheduler.config))
        pipe.load_lora_weights(str(args.lora))
        pipe.set_progress_bar_config(disable=True)
        height, width = plan.size
        theirs = np.stack([
            pipe(
                request.prompt, height=height, width=width, num_inference_steps=request.steps, guidance_scale=request.guidance,
                generator=torch.Generator().manual_seed(request.seed), output_type="np",
            ).images[0] * 255
            for request in plan
        ]).round().astype(int)  # fmt: skip
        difference = np.abs(ours - theirs)
        figures[f"{name}: largest difference, of 255"] = int(difference.max())
        figures[f"{name}: mean difference, of 255"] = round(float(difference.mean()), 5)
    show(f"our sampler against diffusers' load_lora_weights, {args.lora.name}", figures, args.out)


if __name__ == "__main__":
    main()
