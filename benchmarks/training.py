"""How long does a step take, and how much memory? Run ``python benchmarks/training.py``.

Ways to train the same LoRA on the same random weights, each in a process of its own, one after the other in one run:

plain         diffusers' modules and peft in a bare loop, as diffusers' example scripts have it: the text encoder and the VAE run at each
              step and stay in memory, nothing is cached
ours          :class:`synthaug.LoraTraining` and :class:`synthaug.PhotoData` under a Lightning Trainer, with cached latents and text states
wide          the same with ``gradient_checkpointing="wide"``: the widest layers are computed again
checkpointed  the same with all of it on, which the plain loop could have, too: what it costs and saves

Without ``--quick`` it makes a base of the shape of SD 1.5 (4.3 GB in a temporary folder) and takes some minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from machine import show
from PIL import Image
from random_base import make_base
from typing_extensions import override

CAPTION = "a photo of a fish on white paper"
WARM_UP = 1
"""Steps that are not counted."""


def main() -> None:
    """Make a base and photos, run both arms, print the table."""
    args = _options()
    if args.arm:
        _report(args)
        return
    shape, size = ("tiny", 64) if args.quick else ("sd15", args.size)
    with tempfile.TemporaryDirectory(prefix="synthaug-benchmark-") as temporary:
        folder = Path(temporary)
        make_base(folder / "base", shape)
        _photos(folder / "photos", size)
        runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
        for _ in range(args.repeats):
            for arm, found in runs.items():
                found.append(_in_a_process(arm, folder, size, args))
                print(f"  {arm}: {found[-1]['seconds']:.3f} s a step, {found[-1]['training_mib']} MiB while training", flush=True)
    show(f"training a LoRA of rank {args.rank}, shape {shape}, {size} x {size}, batch 1, fp32", _figures(runs, args), args.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny networks, to try the benchmark out")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8, help="steps that are counted")
    parser.add_argument("--repeats", type=int, default=1, help="how often each arm runs, in turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/training.json"))
    parser.add_argument("--arm", choices=tuple(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(arm: str, folder: Path, size: int, args: argparse.Namespace) -> dict[str, Any]:
    options = {"arm": arm, "folder": folder, "size": size, "rank": args.rank, "steps": args.steps, "threads": args.threads}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    quiet = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # threads that wait for each other do not count as work
    done = subprocess.run([sys.executable, __file__, *words], check=False, capture_output=True, text=True, env=quiet)  # noqa: S603  # this very file
    if done.returncode:
        raise SystemExit(f"the arm {arm} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _figures(runs: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> dict[str, object]:
    """Medians over steps, the better of the repeats, and what we take of what the plain loop takes."""
    best = {arm: {key: min(run[key] for run in found) for key in found[0]} for arm, found in runs.items()}
    titles = {
        "seconds": "seconds a step", "cpu_seconds": "processor seconds a step", "training_mib": "peak memory while training, MiB",
        "whole_mib": "peak memory from start to end, MiB",
    }  # fmt: skip
    rows: dict[str, object] = {"counted steps, repeats, threads": f"{args.steps}, {args.repeats}, {args.threads}"}
    for key, title in titles.items():
        for arm, found in best.items():
            rows[f"{title}, {arm}"] = round(found[key], 3)
        for arm in best:
            if arm != "plain":
                rows[f"{title}, {arm} / plain"] = round(best[arm][key] / best["plain"][key], 3)
    return rows


def _photos(folder: Path, size: int) -> None:
    """A few pictures of noise: nobody looks at them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(folder / f"{number}.png")


def _report(args: argparse.Namespace) -> None:
    """Run one arm here and print its figures as the last line."""
    torch.set_num_threads(args.threads)
    clock = Clock()
    ARMS[args.arm](args, clock)
    wall, cpu = (statistics.median(row[WARM_UP:]) for row in (clock.wall, clock.cpu))
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "training_mib": clock.peak(), "whole_mib": max(whole, clock.before)}))


class Clock:
    """Time of each step, and the peak of resident memory since the first one began."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.before = 0
        self._since = (0.0, 0.0)

    def start(self) -> None:
        """Everything is loaded: forget the peak of loading."""
        self.before = self.peak()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM, see man proc_pid_clear_refs
        self._since = (time.perf_counter(), time.process_time())

    def step(self) -> None:
        """A step is over."""
        now = (time.perf_counter(), time.process_time())
        self.wall.append(now[0] - self._since[0])
        self.cpu.append(now[1] - self._since[1])
        self._since = now

    def peak(self) -> int:
        """Largest resident memory since the start, MiB."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        assert found is not None
        return int(found[1]) // 1024


def ours(args: argparse.Namespace, clock: Clock, *, checkpointing: bool | Literal["wide"] = False) -> None:
    """The module and the photos as ``synthaug fit`` uses them."""
    from lightning.pytorch import Callback, Trainer

    from synthaug import LoraTraining, PhotoData
    from synthaug.training.lora_training import LoraShape
    from synthaug.training.photo_data import Views

    class Watch(Callback):
        @override
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            clock.start()

        @override
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            clock.step()

    base = str(args.folder / "base")
    model = LoraTraining(
        base, shape=LoraShape(rank=args.rank, alpha=float(args.rank)), learning_rate=1e-4, gradient_checkpointing=checkpointing
    )
    data = PhotoData(
        args.folder / "photos", base=base, caption=CAPTION, size=(args.size, args.size), batch_size=1, views=Views(count=1), cache="none"
    )  # fmt: skip
    Trainer(
        accelerator="cpu", devices=1, max_steps=args.steps + WARM_UP, precision="32-true", gradient_clip_val=1.0, callbacks=[Watch()],
        logger=False, enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False, limit_val_batches=0,
    ).fit(model, datamodule=data)  # fmt: skip


def plain(args: argparse.Namespace, clock: Clock) -> None:
    """What the example scripts of diffusers do at each step."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from peft import LoraConfig
    from transformers import CLIPTextModel, CLIPTokenizer

    from synthaug.lora.layers import target_paths

    base = args.folder / "base"
    unet, vae = UNet2DConditionModel.from_pretrained(base, subfolder="unet"), AutoencoderKL.from_pretrained(base, subfolder="vae")
    encoder = CLIPTextModel.from_pretrained(base, subfolder="text_encoder")
    tokenizer = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")
    noise = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
    for network in (unet, vae, encoder):
        network.requires_grad_(requires_grad=False)
    unet.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=target_paths(unet, "transformer")))
    trained = [weight for weight in unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
    pictures = [_picture(path) for path in sorted((args.folder / "photos").iterdir())]
    ids = tokenizer(CAPTION, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    clock.start()
    for step in range(args.steps + WARM_UP):
        latents = vae.encode(pictures[step % len(pictures)]).latent_dist.sample() * vae.config.scaling_factor
        eps = torch.randn_like(latents)
        t = torch.randint(noise.config.num_train_timesteps, (1,))
        states = encoder(ids, return_dict=False)[0]
        answer = unet(noise.add_noise(latents, eps, t), t, states, return_dict=False)[0]
        torch.nn.functional.mse_loss(answer, eps).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.step()


def _picture(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


ARMS: dict[str, Callable[[argparse.Namespace, Clock], None]] = {
    "plain": plain, "ours": ours, "wide": partial(ours, checkpointing="wide"), "checkpointed": partial(ours, checkpointing=True),
}  # fmt: skip

if __name__ == "__main__":
    main()
