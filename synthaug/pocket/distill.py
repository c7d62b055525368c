"""Distil pocket into few steps: ``python -m synthaug.pocket.distill``.

A LoRA on pocket's denoiser is taught to go from any noise level straight to the picture that twenty guided steps would lead to, so that
four steps without guidance are enough (:mod:`synthaug.diffusion.consistency`). It is taught on renders, encoded when they are needed. The
run's folder holds them and where it stopped; the same command goes on from there, and the LoRA file is written at the end.

Guidance is embedded at one strength: with the LoRA, draw with ``guidance=1``, and the sampler ``LCM``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from synthaug.diffusion.consistency import boundary_scales, clean_of, ddim_step
from synthaug.diffusion.guidance import guided, rescaled
from synthaug.diffusion.objective import noised, pseudo_huber
from synthaug.errors import SettingError, SynthaugError
from synthaug.generation.denoise import RESCALE
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import put_on, trained_layers
from synthaug.models.load import Base, load_base
from synthaug.pocket import FEW_STEPS
from synthaug.pocket.autoencoder import as_float
from synthaug.pocket.networks import KIND, SCHEDULE
from synthaug.pocket.pictures import PictureSet, render_set
from synthaug.seeds import seed_for

__all__ = ["Distillation", "Teaching", "main"]


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Settings of a run; the defaults are what ships."""

    rank: int = 24
    """Rank of the LoRA on linear layers."""

    conv_rank: int = 8
    """Rank on convolutions larger than 1 x 1."""

    guidance: float = 4.0
    """Scale of the guidance that is embedded."""

    rescale: float = RESCALE
    """Share of its overshoot that is taken back, as in drawing."""

    learning_rate: float = 1e-3
    """Step size of AdamW; it rises for 20 steps and falls to 0 in the end."""

    levels: int = 50
    """Noise levels that are taught, evenly spaced; few-step samplers pick theirs from 50."""

    jump: int = 2
    """Levels that the teacher goes down in one step."""

    huber: float = 0.001
    """Where the loss turns from the square of an error to its size."""


class Distillation:
    """The student, its teacher and what is between them; both are one UNet, with and without the LoRA.

    Args:
        base: Pocket, with UNet and text encoder.
        settings: Of the run.
        steps: Length of the run.
        seed: Starts the LoRA.
    """

    def __init__(self, base: Base, settings: Teaching, *, steps: int, seed: int = 0) -> None:
        assert base.unet is not None
        torch.manual_seed(seed)
        self.base, self.settings, self.steps, self.done = base, settings, steps, 0
        self.unet: nn.Module = base.unet.float().to(memory_format=torch.channels_last)
        self.weights = put_on(
            self.unet, rank=settings.rank, alpha=settings.rank, conv_rank=settings.conv_rank, conv_alpha=settings.conv_rank,
            targets="everything",
        )  # fmt: skip
        self.optimizer = torch.optim.AdamW(self.weights, lr=settings.learning_rate, weight_decay=0.0)
        self.alpha, self.sigma = SCHEDULE.scales()
        self._blank = self.spelled([""])

    def spelled(self, captions: list[str]) -> Tensor:
        """Text states of captions, (B, 77, width)."""
        assert self.base.tokenizer is not None
        assert self.base.text_encoder is not None
        ids = self.base.tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            states: Tensor = self.base.text_encoder(ids)[0]
        return states.float()

    def loss(self, x: Tensor, states: Tensor, generator: torch.Generator) -> Tensor:
        """How far what the student says at one level is from what it says after the teacher's step, a scalar.

        Args:
            x: Clean latents, (B, C, h, w).
            states: Text states of their captions, (B, 77, width).
            generator: Draws levels and noise.
        """
        every = len(self.alpha) // self.settings.levels
        level = torch.randint(1, self.settings.levels + 1, (len(x),), generator=generator)
        t, s = level * every - 1, (level - self.settings.jump) * every - 1
        eps = torch.randn(x.shape, generator=generator)
        z = noised(x, eps, self.alpha[t], self.sigma[t])
        with torch.no_grad():
            lower = ddim_step(KIND, self._taught(z, t, states), z, self._scales(t), self._scales(s))
            target = self._function(lower, s.clamp(min=0), states)
            target = torch.where((s < 0).reshape(-1, 1, 1, 1), lower, target)
        return pseudo_huber(self._function(z, t, states) - target, self.settings.huber).mean()

    def train_step(self, x: Tensor, captions: list[str], generator: torch.Generator) -> float:
        """Take one step of the optimiser."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * min(1, (self.done + 1) / 20, 2 * (1 - self.done / self.steps))
        loss = self.loss(x, self.spelled(captions), generator)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.done += 1
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """Everything to go on from."""
        return {
            "done": self.done, "base": self.base.fingerprint, "weights": [weight.detach() for weight in self.weights],
            "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any], place: Path) -> None:
        """Go on from a state.

        Raises:
            SettingError: If it is that of another base, or of another rank.
        """
        shapes = [tuple(weight.shape) for weight in state["weights"]]
        if state["base"] != self.base.fingerprint or shapes != [tuple(weight.shape) for weight in self.weights]:
            raise SettingError(
                f"to go on, a run must be of the same base and rank, {place} was made for base {state['base'][:8]}, now it is "
                f"{self.base.fingerprint[:8]}; take another --folder, or delete that file to start anew"
            )
        for mine, kept in zip(self.weights, state["weights"], strict=True):
            mine.data.copy_(kept)
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = int(state["done"])

    def file(self) -> LoraFile:
        """What was learned so far, as a LoRA file that knows its base."""
        told = {
            "synthaug.base": self.base.name, "synthaug.base_hash": self.base.fingerprint, "synthaug.few_steps": "LCM",
            "synthaug.embedded_guidance": f"{self.settings.guidance:g}", "synthaug.steps": str(self.done),
        }  # fmt: skip
        return LoraFile.of(trained_layers(self.unet), {}, told)

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Scales of signal and noise; before the first step there is no noise."""
        clean = t < 0
        return self.alpha[t].masked_fill(clean, 1), self.sigma[t].masked_fill(clean, 0)

    def _taught(self, z: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The guided answer of the UNet without its LoRA."""
        _switch(self.unet, on=False)
        both = self._ask(torch.cat([z, z]), torch.cat([t, t]), torch.cat([states, self._blank.expand_as(states)]))
        _switch(self.unet, on=True)
        cond, uncond = both.chunk(2)
        scale, share = (torch.full((len(z),), value) for value in (self.settings.guidance, self.settings.rescale))
        return rescaled(guided(cond, uncond, scale), cond, share)

    def _function(self, z: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The consistency function: from a noised latent to the picture."""
        c_skip, c_out = (scale.reshape(-1, 1, 1, 1) for scale in boundary_scales(t.float()))
        return c_skip * z + c_out * clean_of(KIND, self._ask(z, t, states), z, self.alpha[t], self.sigma[t])

    def _ask(self, z: Tensor, t: Tensor, states: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            answer: Tensor = self.unet(z.contiguous(memory_format=torch.channels_last), t, states, return_dict=False)[0]
        return answer.float()


def _switch(unet: nn.Module, *, on: bool) -> None:
    for module in unet.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(on)


def distil(args: argparse.Namespace) -> None:
    """Run the command."""
    render_set(args.folder / "pictures", count=args.pictures, seed=args.seed, workers=args.workers)
    pictures = PictureSet(args.folder / "pictures")
    base = load_base("pocket")
    assert base.vae is not None
    vae = base.vae.float()
    run = Distillation(base, Teaching(guidance=args.guidance), steps=args.steps, seed=args.seed)
    kept = args.folder / "few_steps.pt"
    if kept.exists():
        run.restore(torch.load(kept, weights_only=True), kept)
    while run.done < args.steps:
        rng = np.random.default_rng(seed_for(args.seed, "batch", run.done))
        generator = torch.Generator().manual_seed(seed_for(args.seed, "noise", run.done))
        rows = rng.integers(0, len(pictures), args.batch_size).tolist()
        captions = [str(rng.choice(pictures.facts[row]["captions"])) for row in rows]
        with torch.no_grad():
            x = vae.encode(as_float(pictures.pixels(rows))).latent_dist.mean * vae.config["scaling_factor"]
        loss = run.train_step(x, captions, generator)
        if run.done % 20 == 0 or run.done == args.steps:
            print(f"step {run.done} of {args.steps}, loss {loss:.3e}", flush=True)
        if run.done % 50 == 0 or run.done == args.steps:
            torch.save(run.state(), kept.with_suffix(".part"))
            kept.with_suffix(".part").replace(kept)
    run.file().write(args.out)
    print(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Distil; what the user can put right is said in a sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/few_steps"), help="where renders and the state of the run are kept")
    parser.add_argument("--out", type=Path, default=FEW_STEPS, help="where the LoRA file is written")
    parser.add_argument("--pictures", type=int, default=4000, help="renders to teach with")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--guidance", type=float, default=Teaching.guidance, help="strength that is embedded")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    try:
        distil(parser.parse_args())
    except SynthaugError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
