"""Distil pocket into few steps: ``python -m synthaug.pocket.distill``.

A LoRA on pocket's denoiser is taught to say at once what many guided steps come to, so that four steps without guidance are enough. The
run is cut into phases of equal length; pocket draws many pictures from noise, each with several guided steps of DDIM a phase, and is kept
where each phase begins and ends; the LoRA then learns the one answer that leads from the beginning to the end
(:mod:`synthaug.diffusion.few_steps`). Nothing but captions is needed. The run's folder holds the drawn runs and where learning stopped; the
same command goes on from there, and the LoRA file is written at the end.

Draw with the sampler ``DDIM``, as many steps as there are phases, and ``guidance=1``: guidance is embedded at one strength.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synthaug.diffusion.few_steps import Scales, clean_of, clean_towards, ddim_step
from synthaug.diffusion.guidance import guided, rescaled
from synthaug.errors import SettingError, SynthaugError
from synthaug.generation.denoise import RESCALE
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import put_on, trained_layers
from synthaug.models.load import Base, load_base
from synthaug.pocket import FEW_STEPS, WEIGHTS
from synthaug.pocket.captions import caption_of
from synthaug.pocket.checksums import write_hashes
from synthaug.pocket.networks import KIND, SCHEDULE
from synthaug.pocket.scenes import random_scene
from synthaug.seeds import seed_for

__all__ = ["Student", "Teacher", "Teaching", "main"]

PART = 50
"""Runs that are drawn and kept at a time."""


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Settings; the defaults are what ships."""

    phases: int = 4
    """Steps that are left."""

    inner: int = 4
    """Steps of the teacher in each phase."""

    guidance: float = 4.0
    """Scale of the guidance that is embedded."""

    rescale: float = RESCALE
    """Share of its overshoot that is taken back, as in drawing."""

    rank: int = 24
    """Rank of the LoRA on linear layers."""

    conv_rank: int = 8
    """Rank on convolutions larger than 1 x 1."""

    learning_rate: float = 1e-3
    """Step size of AdamW; it rises for 20 steps and falls to 0 over the second half."""


class _Levels:
    """Time steps at which steps of DDIM begin, spaced as diffusers' ``trailing`` does."""

    def __init__(self, count: int) -> None:
        self._alpha, self._sigma = SCHEDULE.scales()
        self.times = [round(len(self._alpha) * (1 - k / count)) - 1 for k in range(count)] + [0]

    def scales(self, place: int, rows: int) -> Scales:
        """Alpha and sigma at the beginning of step ``place``, each (rows,)."""
        at = self.times[place]
        return self._alpha[at].expand(rows), self._sigma[at].expand(rows)


class Teacher:
    """Draws whole runs with guidance.

    Args:
        base: Pocket.
        settings: Of the run.
    """

    def __init__(self, base: Base, settings: Teaching) -> None:
        self._base, self._settings = base, settings
        self._levels = _Levels(settings.phases * settings.inner)

    def spelled(self, captions: list[str]) -> Tensor:
        """Text states of captions, (B, 77, width)."""
        assert self._base.tokenizer is not None
        assert self._base.text_encoder is not None
        ids = self._base.tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            states: Tensor = self._base.text_encoder(ids)[0]
        return states.float()

    @torch.no_grad()
    def draw(self, noise: Tensor, captions: list[str]) -> Tensor:
        """Latents where each phase begins, and the last one ends: (B, phases + 1, C, h, w), from noise (B, C, h, w)."""
        count, asked = len(noise), self._settings
        states = torch.cat([self.spelled(captions), self.spelled([""]).expand(count, -1, -1)])
        scale, share = (torch.full((count,), value) for value in (asked.guidance, asked.rescale))
        z, kept = noise, [noise]
        for step in range(asked.phases * asked.inner):
            t = torch.full((2 * count,), self._levels.times[step])
            cond, uncond = _ask(self._base.unet, torch.cat([z, z]), t, states).chunk(2)
            answer = rescaled(guided(cond, uncond, scale), cond, share)
            z = ddim_step(KIND, answer, z, self._levels.scales(step, count), self._levels.scales(step + 1, count))
            if (step + 1) % asked.inner == 0:
                kept.append(z)
        return torch.stack(kept, 1)


class Student:
    """A LoRA on pocket's UNet.

    Args:
        base: Pocket; its UNet is changed in place.
        settings: Of the run.
        steps: Length of the run.
        seed: Starts the LoRA.
    """

    def __init__(self, base: Base, settings: Teaching, *, steps: int, seed: int = 0) -> None:
        assert base.unet is not None
        torch.manual_seed(seed)
        self._base, self._settings, self._steps, self.done = base, settings, steps, 0
        self._levels = _Levels(settings.phases)
        self._unet: nn.Module = base.unet
        self._weights = put_on(
            self._unet, rank=settings.rank, alpha=settings.rank, conv_rank=settings.conv_rank, conv_alpha=settings.conv_rank,
            targets="everything",
        )  # fmt: skip
        self._optimizer = torch.optim.AdamW(self._weights, lr=settings.learning_rate, weight_decay=0.0)

    def loss(self, runs: Tensor, states: Tensor, phases: list[int]) -> Tensor:
        """Mean square error of the picture that the student's answer means, a scalar.

        Args:
            runs: As from :meth:`Teacher.draw`, (B, phases + 1, C, h, w).
            states: Text states, (B, 77, width).
            phases: Which phase of each run is learned.
        """
        rows = range(len(phases))
        z, aim = (torch.stack([runs[row, phases[row] + more] for row in rows]) for more in (0, 1))
        here, there = (self._scales([phase + more for phase in phases]) for more in (0, 1))
        t = torch.tensor([self._levels.times[phase] for phase in phases])
        x = clean_of(KIND, _ask(self._unet, z, t, states), z, *here)
        return (x - clean_towards(z, aim, here, there)).square().mean()

    def learn(self, runs: Tensor, states: Tensor, phases: list[int]) -> float:
        """Take one step of the optimiser on some runs, and tell the loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * min(1, (self.done + 1) / 20, 2 * (1 - self.done / self._steps))
        loss = self.loss(runs, states, phases)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimizer.step()
        self.done += 1
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """Everything to go on from."""
        weights = [weight.detach() for weight in self._weights]
        return {"done": self.done, "base": self._base.fingerprint, "weights": weights, "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for mine, kept in zip(self._weights, state["weights"], strict=True):
            mine.data.copy_(kept)
        self._optimizer.load_state_dict(state["optimizer"])
        self.done = int(state["done"])

    def file(self) -> LoraFile:
        """What was learned so far, as a LoRA file that knows its base."""
        told = {
            "synthaug.base": self._base.name, "synthaug.base_hash": self._base.fingerprint, "synthaug.steps": str(self.done),
            "synthaug.few_steps": str(self._settings.phases), "synthaug.embedded_guidance": f"{self._settings.guidance:g}",
        }  # fmt: skip
        return LoraFile.of(trained_layers(self._unet), {}, told)

    def _scales(self, places: list[int]) -> Scales:
        each = [self._levels.scales(place, 1) for place in places]
        return torch.cat([alpha for alpha, _ in each]), torch.cat([sigma for _, sigma in each])


def _ask(unet: Any, z: Tensor, t: Tensor, states: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        answer: Tensor = unet(z.contiguous(memory_format=torch.channels_last), t, states, return_dict=False)[0]
    return answer.float()


def captions_of(part: int, *, seed: int) -> list[str]:
    """Captions of the runs of one part, as pocket was trained with."""
    items = [seed_for(seed, "caption", part * PART + row) for row in range(PART)]
    return [caption_of(random_scene(item), item) for item in items]


def drawn_runs(folder: Path, teacher: Teacher, *, parts: int, seed: int, shape: tuple[int, int, int]) -> Tensor:
    """Runs of the teacher, float16 (N, phases + 1, C, h, w); those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for part in range(parts):
        file = folder / f"runs-{part:04d}.npy"
        if not file.exists():
            noise = torch.randn(PART, *shape, generator=torch.Generator().manual_seed(seed_for(seed, "noise", part)))
            unfinished = file.with_suffix(".part.npy")
            np.save(unfinished, teacher.draw(noise, captions_of(part, seed=seed)).half().numpy())
            unfinished.replace(file)
            print(f"drawn {(part + 1) * PART} of {parts * PART} runs", flush=True)
        runs.append(torch.from_numpy(np.load(file)))
    return torch.cat(runs)


def distil(args: argparse.Namespace) -> None:
    """Run the command."""
    base = load_base("pocket", parts=("unet", "text"))
    assert base.unet is not None
    base.unet.float().to(memory_format=torch.channels_last)
    folder = args.folder / base.fingerprint[:12]  # another pocket draws other runs
    settings, teacher = Teaching(), Teacher(base, Teaching())
    runs = drawn_runs(folder, teacher, parts=-(-args.runs // PART), seed=args.seed, shape=(base.unet.config["in_channels"], 16, 16))
    captions = [caption for part in range(len(runs) // PART) for caption in captions_of(part, seed=args.seed)]
    student, kept = Student(base, settings, steps=args.steps, seed=args.seed), folder / "student.pt"
    if kept.exists():
        student.restore(torch.load(kept, weights_only=True))
        if student.done > args.steps:
            raise SettingError(f"--steps must not lie behind what was learned, {kept} is at {student.done}; give more, or delete that file")
    while student.done < args.steps:
        rng = np.random.default_rng(seed_for(args.seed, "batch", student.done))
        rows = rng.integers(0, len(runs), args.batch_size).tolist()
        loss = student.learn(
            runs[rows].float(), teacher.spelled([captions[row] for row in rows]), rng.integers(0, settings.phases, len(rows)).tolist()
        )
        if student.done % 20 == 0 or student.done == args.steps:
            print(f"step {student.done} of {args.steps}, loss {loss:.4f}", flush=True)
            torch.save(student.state(), kept.with_suffix(".part"))
            kept.with_suffix(".part").replace(kept)
    student.file().write(args.out)
    print(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.2f} MB")
    if args.out.resolve() == FEW_STEPS.resolve():
        write_hashes(WEIGHTS, more=(FEW_STEPS.name,))


def main() -> None:
    """Distil; what the user can put right is said in a sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/few_steps"), help="where drawn runs and the state of learning are kept")
    parser.add_argument("--out", type=Path, default=FEW_STEPS, help="where the LoRA file is written")
    parser.add_argument("--runs", type=int, default=1500, help="pictures that the teacher draws")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    try:
        distil(parser.parse_args())
    except SynthaugError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
