"""How fast are images drawn? Run ``python benchmarks/generation.py``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from machine import show

from synthaug.generation import Plan, Sampler


def main() -> None:
    """Draw a few batches and print the rate of the best one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="pocket")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/generation.json"))
    args = parser.parse_args()
    sampler = Sampler(args.base)
    plan = Plan(prompts=("a photo of a fish on white paper",), count=args.batch_size * (args.repeats + 1), steps=args.steps)
    seconds = []
    for batch in range(args.repeats + 1):
        started = time.perf_counter()
        sampler([plan[batch * args.batch_size + row] for row in range(args.batch_size)])
        seconds.append(time.perf_counter() - started)
    rates = [args.batch_size / value for value in seconds[1:]]  # the first one loads the networks
    figures = {
        "images per batch, steps, guidance": f"{args.batch_size}, {args.steps}, {plan.guidance:g}",
        "images/s, best of the repeats": round(max(rates), 2),
        "images/s, worst of the repeats": round(min(rates), 2),
    }
    show(f"drawing on {args.base}", figures, args.out)


if __name__ == "__main__":
    main()
