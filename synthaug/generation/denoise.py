"""The denoise loop: one UNet call per step for all rows, whatever each one asks for.

Jobs with the same sampler, schedule, steps and beginning form a cohort and share a scheduler; every cohort is at its own noise
level, and the UNet sees all rows of all cohorts at once. Each row has its own seed, words and guidance, and nothing that a row is
given depends on the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from synthaug.diffusion.guidance import guided, rescaled
from synthaug.generation.conditions import Conditions
from synthaug.generation.jobs import Job
from synthaug.generation.networks import Networks, Told
from synthaug.generation.noise import drawing_from
from synthaug.generation.reuse import DeepCache
from synthaug.generation.schedulers import Scheduler, make_scheduler, takes_generator

__all__ = ["RESCALE", "Steer", "denoise"]

RESCALE = 0.6
"""Share of the overshoot of guidance that is taken back on bases with zero terminal SNR: Lin et al. 2023, section 3.4, take 0.7; on
pocket, 0.7 leaves the spread of brightness 10 % too small (docs/decisions/0010)."""

Steer = Callable[[list[int], Tensor, Tensor, Told, list[float]], "tuple[list[Tensor], Tensor] | None"]
"""For each row of a UNet call: its job, what it is shown, time step, what it is told, share of its run; out come residuals for the skip
connections, and for the middle."""


@dataclass
class _Cohort:
    """Rows of the batch that go through the same noise levels."""

    rows: list[int]
    scheduler: Scheduler
    timesteps: Tensor
    steps: int
    begin: int
    latents: Tensor
    noise_source: dict[str, Any]

    def share(self, call: int) -> float:
        """How much of the whole run lies behind, 0 to 1."""
        return (self.begin + call) / (self.begin + len(self.timesteps))


def denoise(jobs: Sequence[Job], networks: Networks, words: Conditions, *, steer: Steer | None = None) -> Tensor:
    """Latents of jobs of one size, fp32 (N, C, h, w).

    Args:
        jobs: One row each, all with the same ``reuse``.
        networks: Answer.
        words: What they are told.
        steer: Networks that steer, if there are any.
    """
    return _Loop(jobs, networks, words, steer).run()


class _Loop:
    def __init__(self, jobs: Sequence[Job], networks: Networks, words: Conditions, steer: Steer | None) -> None:
        self._jobs, self._networks, self._words, self._steer = jobs, networks, words, steer
        usual = RESCALE if networks.base.schedule.get("rescale_betas_zero_snr") else 0.0
        asked = [job.request for job in jobs]
        shares = [usual if request.guidance_rescale is None else request.guidance_rescale for request in asked]
        device = networks.device
        self._scale = torch.tensor([request.guidance for request in asked], device=device)
        self._rescale = torch.tensor(shares, device=device)
        self._cohorts = self._gathered()
        shown = [job.shown for job in jobs if job.shown is not None]
        self._shown = torch.stack(shown).to(device) if shown else None
        reuse = asked[0].reuse  # the same for all jobs of a loop
        self._cache = DeepCache(networks.unet, reuse) if reuse > 1 else None

    def run(self) -> Tensor:
        for call in range(max(len(cohort.timesteps) for cohort in self._cohorts)):
            self._step([cohort for cohort in self._cohorts if call < len(cohort.timesteps)], call)
        latents = torch.empty_like(torch.cat([cohort.latents for cohort in self._cohorts]))
        for cohort in self._cohorts:
            latents[cohort.rows] = cohort.latents
        return latents

    def _gathered(self) -> list[_Cohort]:
        together: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for row, job in enumerate(self._jobs):
            asked = job.request
            together[asked.sampler, asked.schedule, asked.eta, job.steps, job.first, job.from_noise, asked.noise].append(row)
        return [self._cohort(rows) for rows in together.values()]

    def _cohort(self, rows: list[int]) -> _Cohort:
        jobs, base = [self._jobs[row] for row in rows], self._networks.base
        one = jobs[0]
        scheduler = make_scheduler(
            one.request.sampler, base.schedule, schedule=one.request.schedule, eta=one.request.eta, family=base.family
        )
        scheduler.set_timesteps(one.steps)
        begin = one.first * scheduler.order
        noise = torch.stack([job.noise for job in jobs]).to(self._networks.device)
        if hasattr(scheduler, "set_begin_index"):  # DDIM looks its place up from the time step
            scheduler.set_begin_index(begin)  # noise is added to pictures by it, too, now or after a step
        if one.from_noise:
            latents = noise * float(scheduler.init_noise_sigma)
        else:
            clean = torch.stack([job.start for job in jobs if job.start is not None]).to(self._networks.device)
            latents = scheduler.add_noise(clean, noise, scheduler.timesteps[begin].expand(len(rows)))
        source = {"generator": [job.generator for job in jobs]} if takes_generator(scheduler) else {}
        return _Cohort(
            rows=rows, scheduler=scheduler, timesteps=scheduler.timesteps[begin:], steps=one.steps, begin=begin, latents=latents,
            noise_source=source,
        )  # fmt: skip

    def _step(self, cohorts: list[_Cohort], call: int) -> None:
        """Take one step of every cohort that is still under way, with one call of the UNet."""
        rows = [row for cohort in cohorts for row in cohort.rows]
        z = torch.cat([c.scheduler.scale_model_input(c.latents, c.timesteps[call]) for c in cohorts])
        t = torch.cat([c.timesteps[call].expand(len(c.rows)) for c in cohorts]).to(self._networks.device)
        if self._shown is not None:
            z = torch.cat([z, self._shown[rows]], 1)
        answer = self._answer(rows, z, t, cohorts, call)
        at = 0
        for cohort in cohorts:
            mine = answer[at : at + len(cohort.rows)]
            at += len(cohort.rows)
            now = cohort.timesteps[call]
            with drawing_from(cohort.noise_source.get("generator", ())):
                cohort.latents = cohort.scheduler.step(mine, now, cohort.latents, **cohort.noise_source, return_dict=False)[0]
            self._put_back(cohort, call)

    def _answer(self, rows: list[int], z: Tensor, t: Tensor, cohorts: list[_Cohort], call: int) -> Tensor:
        """What the UNet says of each row, its guidance in it, fp32 (N, C, h, w)."""
        share = [cohort.share(call) for cohort in cohorts for _ in cohort.rows]
        parts = [self._words.parts(row, call) for row in rows]
        simple = [len(told) == 1 and told[0].weight == 1 for told in parts]
        pushed = [i for i, row in enumerate(rows) if self._is_guided(row, share[i])]
        compared = [i for i in range(len(rows)) if i in set(pushed) or not simple[i]]
        owners = [i for i, told in enumerate(parts) for _ in told]
        asked: list[tuple[int, str | None]] = [(rows[i], part.text) for i, told in enumerate(parts) for part in told]
        asked += [(rows[i], self._words.negative(rows[i], call)) for i in compared]
        order = torch.tensor([*owners, *compared], device=z.device)
        slots = [(rows[i], k, part.text) for i, told in enumerate(parts) for k, part in enumerate(told)]
        slots += [(row, -1, text or "") for row, text in asked[len(owners) :]]
        through = None if self._cache is None else partial(self._cache.ask, slots=slots, steps=[call] * len(slots))
        said = self._ask(asked, z[order], t[order], [share[i] for i in [*owners, *compared]], through)
        given, uncond = said[: len(owners)], said[len(owners) :]
        cond = self._mixed(given, uncond, parts, compared) if not all(simple) else given.clone()
        if pushed:
            mine = [rows[i] for i in pushed]
            base = uncond[[compared.index(i) for i in pushed]]
            cond[pushed] = rescaled(guided(cond[pushed], base, self._scale[mine]), cond[pushed], self._rescale[mine])
        return cond

    def _ask(
        self, asked: list[tuple[int, str | None]], z: Tensor, t: Tensor, shares: list[float], through: Callable[..., Tensor] | None
    ) -> Tensor:
        told = self._words.told(asked)
        residuals = None if self._steer is None else self._steer([row for row, _ in asked], z, t, told, shares)
        return self._networks.predict(z, t, told, residuals, through)

    def _is_guided(self, row: int, share: float) -> bool:
        asked = self._jobs[row].request
        begin, end = asked.guidance_interval
        return asked.guidance != 1 and begin <= share and (share < end or end == 1)

    @staticmethod
    def _mixed(given: Tensor, uncond: Tensor, parts: list[tuple[Any, ...]], compared: list[int]) -> Tensor:
        """Prompts joined by AND: uncond + sum of weight (cond - uncond), Liu et al. 2022, https://arxiv.org/abs/2206.01714."""
        out, at = [], 0
        for i, told in enumerate(parts):
            mine = given[at : at + len(told)]
            at += len(told)
            if len(told) == 1 and told[0].weight == 1:
                out.append(mine[0])
                continue
            weight = torch.tensor([part.weight for part in told], device=given.device).reshape(-1, 1, 1, 1)
            base = uncond[compared.index(i)]
            out.append(base + (weight * (mine - base)).sum(0))
        return torch.stack(out)

    def _put_back(self, cohort: _Cohort, call: int) -> None:
        """Where nothing is redrawn, latents are those of the start at the noise level that was reached."""
        masked = [i for i, row in enumerate(cohort.rows) if self._jobs[row].redraw is not None]
        if not masked:
            return
        device, jobs = cohort.latents.device, [self._jobs[cohort.rows[i]] for i in masked]
        redraw = torch.stack([job.redraw for job in jobs if job.redraw is not None]).to(device)
        start = torch.stack([job.start for job in jobs if job.start is not None]).to(device)
        if call + 1 < len(cohort.timesteps):
            noise = torch.stack([job.noise for job in jobs]).to(device)
            start = cohort.scheduler.add_noise(start, noise, cohort.timesteps[call + 1].expand(len(jobs)))
        cohort.latents[masked] = redraw * cohort.latents[masked] + (1 - redraw) * start
