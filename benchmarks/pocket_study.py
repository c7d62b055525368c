"""Which shape, loss and optimiser should pocket have? Trials of ten core-minutes each, everything else equal.

Run ``python benchmarks/pocket_study.py --pictures runs/pocket/pictures --judge runs/judge.pt``; one process
trains one trial on one core, so two run side by side (``--share 0/2`` and ``--share 1/2``). The table goes into docs/decisions/0007.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.utils import make_grid
from transformers import CLIPTokenizer

from synthaug.diffusion.guidance import guided
from synthaug.diffusion.objective import Target, noised
from synthaug.diffusion.schedule import NoiseSchedule
from synthaug.pixels import save_png, to_uint8
from synthaug.pocket.autoencoder import as_float
from synthaug.pocket.denoiser import DenoiserPretraining, LatentBatches, places
from synthaug.pocket.judge import Judge, judge_from
from synthaug.pocket.linear_code import fit_linear_code, linear_decode, linear_encode
from synthaug.pocket.networks import DenoiserShape, build_denoiser, build_text_encoder
from synthaug.pocket.optimizers import MuonAndAdamW, warm_stable_decay
from synthaug.pocket.pictures import PART, PictureSet

LEVELS = (3.0, 1.5, 0.0, -1.5, -3.0)
"""Logarithms of the signal-to-noise ratio at which the trained networks are compared."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One answer to the question; the defaults are the base's own."""

    shape: DenoiserShape = field(default_factory=DenoiserShape)
    side: int = 8
    share: float = 0.35
    kind: Target = "v_prediction"
    zero_terminal_snr: bool = True
    noise_offset: float = 0.0
    counting: bool = False
    """Whether objects and flaws count more than the ground."""

    optimizer: str = "muon"
    rate: float = 5e-3
    batch: int = 32
    simple_first: bool = False


EIGHTH, WIDE = (False, True), (True, True)
TRIALS: dict[str, Trial] = {
    "16x16x16, UNet 96-192, v, zero terminal SNR, Muon at 5e-3, batch 32": Trial(),
    "epsilon, SNR not zero, noise offset 0.1": Trial(kind="epsilon", zero_terminal_snr=False, noise_offset=0.1),
    "SNR not zero": Trial(zero_terminal_snr=False),
    "objects and flaws count more": Trial(counting=True),
    "8x8x64, UNet 160-224": Trial(shape=DenoiserShape(channels=64, size=8, widths=(160, 224), hearing=(True, False)), side=16),
    "8x8x32, UNet 160-224": Trial(shape=DenoiserShape(channels=32, size=8, widths=(160, 224), hearing=(True, False)), side=16),
    "AdamW at 1e-3": Trial(optimizer="adamw", rate=1e-3),
    "Muon at 2e-3": Trial(rate=2e-3),
    "Muon at 1e-2": Trial(rate=1e-2),
    "batch 16": Trial(batch=16),
    "batch 64": Trial(batch=64),
    "unit variance per latent channel": Trial(share=0.0),
    "loudness of the pictures kept": Trial(share=0.7),
    "UNet 64-192": Trial(shape=DenoiserShape(widths=(64, 192))),
    "UNet 96-160-192, three levels": Trial(shape=DenoiserShape(widths=(96, 160, 192), hearing=(False, True, False))),
    "UNet 64-144, two blocks a level": Trial(shape=DenoiserShape(widths=(64, 144), layers=2)),
    "single objects without flaws first": Trial(simple_first=True),
}


def encoded(pictures: PictureSet, trial: Trial, cache: Path) -> tuple[Path, dict[str, Tensor]]:
    """Latents of the trial's code, kept on disk between trials of the same code."""
    folder = cache / f"code-{trial.side}-{trial.shape.channels}-{trial.share}"
    if not (folder / "code.pt").exists():
        folder.mkdir(parents=True, exist_ok=True)
        code = fit_linear_code(as_float(pictures.pixels(list(range(3000)))), trial.shape.channels, share=trial.share, side=trial.side)
        rows = [list(range(at, min(at + PART, len(pictures)))) for at in range(0, len(pictures), PART)]
        np.save(folder / "places.npy", places(pictures.covers(), trial.shape.size))
        np.save(folder / "latents.npy", np.concatenate([linear_encode(as_float(pictures.pixels(r)), code).half().numpy() for r in rows]))
        torch.save(code, folder / "code.pt")
    return folder, torch.load(folder / "code.pt", weights_only=True)


def build(trial: Trial, tokenizer: CLIPTokenizer) -> DenoiserPretraining:
    """The networks of a trial, untrained."""
    text = build_text_encoder(len(tokenizer), bos=tokenizer.bos_token_id, eos=tokenizer.eos_token_id)
    schedule = NoiseSchedule(last=0.0 if trial.zero_terminal_snr else None)
    module = DenoiserPretraining(build_denoiser(trial.shape), text, schedule, kind=trial.kind, noise_offset=trial.noise_offset)
    return module.to(memory_format=torch.channels_last)


def run(trial: Trial, args: argparse.Namespace) -> dict[str, object]:
    """Train for a number of seconds of processor time, then compare and draw."""
    pictures = PictureSet(args.pictures)
    folder, code = encoded(pictures, trial, args.cache)
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(args.run / "tokenizer")
    if not (folder / "tokens.npy").exists():
        (folder / "tokens.npy").symlink_to((args.run / "tokens.npy").resolve())
    module, captions = build(trial, tokenizer), [facts["captions"] for facts in pictures.facts]
    simple = [1.0 if facts["count"] == 1 and facts["flaw"] is None else 0.0 for facts in pictures.facts]
    feeds = {
        first: LatentBatches(folder, tokenizer, captions, weights=simple if first else None, batch_size=trial.batch)
        for first in {trial.simple_first, False}
    }
    rate, small = (trial.rate, 1e-3) if trial.optimizer == "muon" else (0.0, trial.rate)
    optimizer: torch.optim.Optimizer = (
        MuonAndAdamW(module.named_parameters(), lr=rate, small_lr=small, weight_decay=0.01)
        if rate
        else (torch.optim.AdamW(module.parameters(), lr=small, betas=(0.9, 0.99), weight_decay=0.01))
    )
    top = [group["lr"] for group in optimizer.param_groups]
    averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    rng, start, step = np.random.default_rng(0), time.process_time(), 0
    factor = warm_stable_decay(1000, warm=30)
    while (gone := time.process_time() - start) < args.seconds:
        now = gone / args.seconds
        x, tokens, counts = feeds[trial.simple_first and now < 0.5](rng)
        for group, peak in zip(optimizer.param_groups, top, strict=True):
            group["lr"] = peak * min((step + 1) / 30, factor(30 + round(now * 970)))
        with torch.autocast("cpu", torch.bfloat16):
            counts = counts if trial.counting else torch.ones_like(counts)
            loss = module.loss(x.contiguous(memory_format=torch.channels_last), tokens, counts)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        averaged.update_parameters(module)
        step += 1
    network: DenoiserPretraining = averaged.module
    network.eval()
    figures: dict[str, object] = {
        "weights, millions": round(sum(p.numel() for p in module.denoiser.parameters()) / 1e6, 2),
        "pictures seen, thousands": round(step * trial.batch / 1000, 1),
        **errors(network, feeds[False], code, trial),
    }
    figures.update(drawn(network, tokenizer, code, trial, args.known, args.out / f"{args.number:02d}.png"))
    return figures


@torch.inference_mode()
def errors(network: DenoiserPretraining, feed: LatentBatches, code: dict[str, Tensor], trial: Trial) -> dict[str, object]:
    """Root mean square error of the denoised picture, in parts of 255, mean over noise levels; right and foreign captions."""
    x, tokens = feed.held_out(256)
    generator = torch.Generator().manual_seed(0)
    found: dict[str, list[float]] = {"right": [], "foreign": []}
    ratio = 2 * torch.log(network.alpha.clamp_min(1e-6) / network.sigma)
    for level in LEVELS:
        t = torch.full((len(x),), int((ratio - level).abs().argmin()))
        eps = torch.randn(x.shape, generator=generator)
        z = noised(x, eps, network.alpha[t], network.sigma[t])
        for caption, ids in (("right", tokens), ("foreign", tokens.roll(1, 0))):
            guess, _ = split(network, z, t, ids, trial.kind)
            error = (linear_decode(guess, code) - linear_decode(x, code)).square().flatten(1).mean(1).sqrt()
            found[caption].append(float(error.mean()) * 127.5)
    right, foreign = (sum(values) / len(values) for values in found.values())
    return {"error, of 255": round(right, 2), "same with foreign captions": round(foreign, 2)}


def split(network: DenoiserPretraining, z: Tensor, t: Tensor, tokens: Tensor, kind: Target) -> tuple[Tensor, Tensor]:
    """The clean latent and the noise that the network sees in z."""
    with torch.autocast("cpu", torch.bfloat16):
        answer = network(z, t, tokens)
    answer = answer.float()
    alpha, sigma = (scale[t].reshape(-1, 1, 1, 1) for scale in (network.alpha, network.sigma))
    if kind == "epsilon":
        return (z - sigma * answer) / alpha, answer
    return alpha * z - sigma * answer, sigma * z + alpha * answer


@torch.inference_mode()
def drawn(
    network: DenoiserPretraining, tokenizer: CLIPTokenizer, code: dict[str, Tensor], trial: Trial, judge: Judge, out: Path
) -> dict[str, object]:
    """Share of prompts followed, 20 steps of DDIM with guidance 5, decoded by the linear code."""
    wanted = list(prompts())
    ids = tokenizer([text for text, _, _ in wanted], padding="max_length", max_length=77).input_ids
    tokens, blank = torch.tensor(ids), torch.tensor(tokenizer([""], padding="max_length", max_length=77).input_ids)
    shape = (len(wanted), trial.shape.channels, trial.shape.size, trial.shape.size)
    z = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    times = torch.linspace(999, 0, 21).round().long()
    for now, after in pairwise(times):
        both = answer_under_guidance(network, z, now, tokens, blank)
        x, eps = (z - network.sigma[now] * both) / network.alpha[now].clamp_min(1e-3), both
        if trial.kind != "epsilon":
            x, eps = network.alpha[now] * z - network.sigma[now] * both, network.sigma[now] * z + network.alpha[now] * both
        z = network.alpha[after] * x + network.sigma[after] * eps
    pixels = to_uint8(linear_decode(z, code).clamp(-1, 1))
    save_png(make_grid(pixels[::3], nrow=8, padding=2), out)
    given = judge.answers(pixels)
    things = [a == b for a, (_, b, _) in zip(given["thing"], wanted, strict=True)]
    grounds = [a == b for a, (_, _, b) in zip(given["ground"], wanted, strict=True)]
    return {"objects followed": f"{np.mean(things):.0%}", "surfaces followed": f"{np.mean(grounds):.0%}"}


def answer_under_guidance(network: DenoiserPretraining, z: Tensor, now: Tensor, tokens: Tensor, blank: Tensor) -> Tensor:
    """The network's answer under guidance."""
    t = now.expand(len(z))
    with torch.autocast("cpu", torch.bfloat16):
        cond = network(z, t, tokens)
        uncond = network(z, t, blank.expand(len(z), -1))
    return guided(cond.float(), uncond.float(), torch.full((len(z),), 5.0))


def prompts() -> Iterator[tuple[str, str, str]]:
    """Prompt, object and surface of 96 pictures."""
    for thing in ("fish", "leaf", "coin", "bottle", "gear", "biscuit"):
        for ground in ("paper", "metal", "wood", "fabric"):
            for _ in range(4):
                yield f"a photo of a {thing} on {ground}", thing, ground


def main() -> None:
    """Run the trials of this process's share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, default=Path("runs/pocket/pictures"))
    parser.add_argument("--run", type=Path, default=Path("runs/pocket"), help="holds tokenizer and tokens.npy")
    parser.add_argument("--cache", type=Path, default=Path("runs/study/codes"))
    parser.add_argument("--judge", type=Path, default=Path("runs/judge.pt"))
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--seconds", type=float, default=600, help="processor time of one trial")
    parser.add_argument("--share", default="0/1", help="k/n: every nth trial, starting with the kth")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the trials to run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    args.known, _ = judge_from(args.judge, PictureSet(args.pictures))
    which, parts = map(int, args.share.split("/"))
    for number, (name, trial) in enumerate(TRIALS.items()):
        out = args.out / f"{number:02d}.json"
        if out.exists() or (args.only is not None and number not in args.only) or (args.only is None and number % parts != which):
            continue
        args.number = number
        figures = run(trial, args)
        out.write_text(json.dumps({"trial": name, **figures}, indent=2) + "\n", encoding="utf-8")
        print(name, figures, flush=True)


if __name__ == "__main__":
    main()
