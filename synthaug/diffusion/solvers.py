"""From noise to picture: one function per published sampler, each the loop of its paper.

Code name   Paper       Meaning
x           x           latents, (B, C, h, w), noise added to signal of scale 1 ("variance exploding")
x0          D(x; s)     the network's estimate of the latents without noise
s, to       s_i, s_i+1  noise levels before and after the step
eta         eta         share of fresh noise, 0 to 1
z           eps         fresh noise, (B, C, h, w)

Each loop is a coroutine. It is sent the latents and the estimate at its present level and hands back the latents at the next one; a
sampler that looks twice within a step hands back the latents in the middle first. It goes on from the latents that it is *sent*, so
that whoever runs it may change them between two steps (inpainting does). Two latents of a batch never meet.

Karras et al. 2022, https://arxiv.org/abs/2206.00364 (Euler, Heun, DPM2); Lu et al. 2022, https://arxiv.org/abs/2206.00927 and
https://arxiv.org/abs/2211.01095 (DPM-Solver, DPM-Solver++); Liu et al. 2022, https://arxiv.org/abs/2202.09778 (PLMS); Song et al.
2020, https://arxiv.org/abs/2010.02502 (DDIM); Luo et al. 2023, https://arxiv.org/abs/2310.04378 (LCM); Zheng et al. 2024,
https://arxiv.org/abs/2402.19159 (TCD); Zhang and Chen 2022, https://arxiv.org/abs/2204.13902 (DEIS). The ancestral and SDE forms and
LMS are those of k-diffusion, by Crowson.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = [
    "NOTHING", "Noise", "Run", "ancestral", "deis", "dpm2", "dpm_2m", "dpm_2m_sde", "dpm_2s", "dpm_3m_sde", "dpm_sde", "euler", "heun",
    "lcm", "lms", "middle", "plms", "tcd",
]  # fmt: skip

Run: TypeAlias = Generator[Tensor, tuple[Tensor, Tensor], None]
"""A run under way: latents out, (latents, estimate) in. The first value out is sent by nobody and means nothing."""

Noise: TypeAlias = Callable[[Tensor], Tensor]
"""Fresh noise of the shape of some latents."""

NOTHING = torch.empty(0)
"""What a run hands back before it has been sent anything."""


def ancestral(s: float, to: float, eta: float) -> tuple[float, float]:
    """Where to step down to, and how much noise to add there, so that the level is ``to``: (down, up).

    Example:
        >>> ancestral(2.0, 1.0, 0.0)
        (1.0, 0.0)
        >>> down, up = ancestral(2.0, 1.0, 1.0)
        >>> round(down**2 + up**2, 9), round(down, 9)
        (1.0, 0.5)
    """
    up = min(to, eta * math.sqrt(max(0.0, to**2 * (s**2 - to**2))) / s)
    return math.sqrt(max(0.0, to**2 - up**2)), up


def middle(s: float, to: float) -> float:
    """Halfway in log(s); 0 where the step ends in no noise, and a second look has no place."""
    return math.sqrt(s * to)


def euler(levels: Sequence[float], noise: Noise, eta: float) -> Run:
    """Euler's method; with eta it is Euler a, which is DDIM and, with eta = 1, DDPM.

    Example:
        >>> run = euler([2.0, 1.0, 0.0], torch.randn_like, 0.0)
        >>> _ = next(run)
        >>> x = run.send((torch.full((1, 1, 1, 1), 3.0), torch.ones(1, 1, 1, 1)))
        >>> x.item(), run.send((x, torch.ones(1, 1, 1, 1))).item()
        (2.0, 1.0)
    """
    x, x0 = yield NOTHING
    for s, to in pairwise(levels):
        down, up = ancestral(s, to, eta)
        x, x0 = yield _noised(x0 + (x - x0) * (down / s), up, noise)


def heun(levels: Sequence[float], noise: Noise, eta: float) -> Run:  # noqa: ARG001  # no noise in it
    """Heun's method: the slope is the mean of those at both ends; algorithm 1 of Karras et al."""
    x, x0 = yield NOTHING
    for s, to in pairwise(levels):
        d = (x - x0) / s
        if to == 0:
            x, x0 = yield x0
            continue
        end, x0 = yield x + d * (to - s)
        x, x0 = yield x + (d + (end - x0) / to) * ((to - s) / 2)


def dpm2(levels: Sequence[float], noise: Noise, eta: float) -> Run:
    """DPM-Solver-2: the slope is that in the middle; with eta it is DPM2 a."""
    x, x0 = yield NOTHING
    for s, to in pairwise(levels):
        down, up = ancestral(s, to, eta)
        mid = middle(s, down)
        if mid == 0:
            x, x0 = yield _noised(x0, up, noise)
            continue
        half, x0 = yield x + (x - x0) * ((mid - s) / s)
        x, x0 = yield _noised(x + (half - x0) * ((down - s) / mid), up, noise)


def dpm_2s(levels: Sequence[float], noise: Noise, eta: float) -> Run:
    """DPM-Solver++(2S), ancestral: the estimate is that in the middle."""
    x, x0 = yield NOTHING
    for s, to in pairwise(levels):
        down, up = ancestral(s, to, eta)
        mid = middle(s, down)
        if mid == 0:
            x, x0 = yield _noised(x0, up, noise)
            continue
        _, x0 = yield _toward(x, x0, mid / s)
        x, x0 = yield _noised(_toward(x, x0, down / s), up, noise)


def dpm_sde(levels: Sequence[float], noise: Noise, eta: float) -> Run:
    """DPM-Solver++ for the SDE: as :func:`dpm_2s`, with noise in the middle, too.

    Noise of the whole step contains that of its first half, as it would on one path of a Brownian motion in sigma.
    """
    x, x0 = yield NOTHING
    for s, to in pairwise(levels):
        if to == 0:
            x, x0 = yield x0
            continue
        mid = middle(s, to)
        down, up = ancestral(s, mid, eta)
        z = noise(x) if eta else None
        half = _toward(x, x0, down / s)
        _, x0 = yield half if z is None else half + z * up
        down, up = ancestral(s, to, eta)
        whole = _toward(x, x0, down / s)
        if z is not None:
            z = (z * math.sqrt(s - mid) + noise(x) * math.sqrt(mid - to)) / math.sqrt(s - to)
            whole = whole + z * up
        x, x0 = yield whole


def dpm_2m(levels: Sequence[float], noise: Noise, eta: float) -> Run:  # noqa: ARG001  # no noise in it
    """DPM-Solver++(2M): the estimate is carried on from the last two."""
    x, x0 = yield NOTHING
    old, h_old = x0, 0.0
    for s, to in pairwise(levels):
        if to == 0:
            x, x0 = yield x0
            continue
        h = math.log(s / to)
        onward = x0 if h_old == 0 else x0 + (x0 - old) * (h / (2 * h_old))
        old, h_old = x0, h
        x, x0 = yield _toward(x, onward, to / s)


def dpm_2m_sde(levels: Sequence[float], noise: Noise, eta: float, *, heun: bool = False) -> Run:
    """DPM-Solver++(2M) for the SDE, with the second order by midpoint or as Heun's method has it."""
    x, x0 = yield NOTHING
    old, h_old = x0, 0.0
    for s, to in pairwise(levels):
        if to == 0:
            x, x0 = yield x0
            continue
        h = math.log(s / to)
        k = h * (1 + eta)
        share = -math.expm1(-k)
        out = x * math.exp(-k) + x0 * share
        if h_old:
            out = out + (x0 - old) * (h / h_old * (1 - share / k if heun else share / 2))
        old, h_old = x0, h
        x, x0 = yield _noised(out, to * math.sqrt(-math.expm1(-2 * h * eta)), noise)


def dpm_3m_sde(levels: Sequence[float], noise: Noise, eta: float) -> Run:
    """DPM-Solver++(3M) for the SDE: carried on from the last three estimates."""
    x, x0 = yield NOTHING
    before: list[tuple[Tensor, float]] = []  # estimates and lengths of the last two steps, latest first
    for s, to in pairwise(levels):
        if to == 0:
            x, x0 = yield x0
            continue
        h = math.log(s / to)
        k = h * (1 + eta)
        out = x * math.exp(-k) + x0 * -math.expm1(-k)
        phi_2 = math.expm1(-k) / k + 1
        if len(before) == 1:
            (old, h_1), *_ = before
            out = out + (x0 - old) * (phi_2 * h / h_1)
        elif len(before) == 2:
            (old, h_1), (older, h_2) = before
            r_0, r_1 = h_1 / h, h_2 / h
            late, early = (x0 - old) / r_0, (old - older) / r_1
            bend = (late - early) / (r_0 + r_1)
            out = out + (late + bend * r_0) * phi_2 - bend * (phi_2 / k - 0.5)
        before = [(x0, h), *before[:1]]
        x, x0 = yield _noised(out, to * math.sqrt(-math.expm1(-2 * h * eta)), noise)


def lms(levels: Sequence[float], noise: Noise, eta: float) -> Run:  # noqa: ARG001  # no noise in it
    """Linear multistep method: the slope is the polynomial through the last four, integrated exactly."""
    x, x0 = yield NOTHING
    past: list[tuple[float, Tensor]] = []
    for s, to in pairwise(levels):
        past = [(s, (x - x0) / s), *past[:3]]
        x, x0 = yield x + sum(d * _weight([at for at, _ in past], j, s, to) for j, (_, d) in enumerate(past))


def deis(levels: Sequence[float], noise: Noise, eta: float) -> Run:  # noqa: ARG001  # no noise in it
    """Exponential integrator: as :func:`lms`, with the polynomial through the last three in log(s)."""
    x, x0 = yield NOTHING
    past: list[tuple[float, Tensor]] = []
    for s, to in pairwise(levels):
        past = [(math.log(s), (x - x0) / s), *past[:2]]
        if to == 0:
            x, x0 = yield x0
            continue
        us = [u for u, _ in past]
        x, x0 = yield x + sum(d * (_grown(us, j, math.log(to)) - _grown(us, j, us[0])) for j, (_, d) in enumerate(past))


def plms(levels: Sequence[float], noise: Noise, eta: float) -> Run:  # noqa: ARG001  # no noise in it
    """Pseudo linear multistep: noise estimates in the fixed proportions of Adams and Bashforth; the first step is Euler's."""
    x, x0 = yield NOTHING
    past: list[Tensor] = []
    for s, to in pairwise(levels):
        past = [(x - x0) / s, *past[:3]]
        weights = {1: (1.0,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}[len(past)]
        x, x0 = yield x + sum(d * (w * (to - s)) for d, w in zip(past, weights, strict=True))


def lcm(levels: Sequence[float], noise: Noise, eta: float) -> Run:  # noqa: ARG001  # always all noise
    """Latent consistency: the estimate, noised anew."""
    _, x0 = yield NOTHING
    for _, to in pairwise(levels):
        _, x0 = yield _noised(x0, to, noise)


def tcd(levels: Sequence[float], noise: Noise, eta: float, *, quieter: Callable[[float, float], float]) -> Run:
    """Trajectory consistency: down past the next level to ``quieter(level, eta)``, and up again with fresh noise."""
    x, x0 = yield NOTHING
    for s, to in pairwise(levels):
        down = quieter(to, eta) if eta and to else to
        x, x0 = yield _noised(x0 + (x - x0) * (down / s), math.sqrt(max(0.0, to**2 - down**2)), noise)


def _noised(x: Tensor, up: float, noise: Noise) -> Tensor:
    return x + noise(x) * up if up else x


def _toward(x: Tensor, x0: Tensor, kept: float) -> Tensor:
    """Exact if the estimate stayed what it is: what is not kept of the latents is the estimate."""
    return x * kept + x0 * (1 - kept)


def _weight(levels: Sequence[float], j: int, s: float, to: float) -> float:
    """Integral from s to ``to`` of the polynomial that is 1 at level j and 0 at the others; two nodes are exact up to degree 3."""
    centre, half = (s + to) / 2, (to - s) / 2
    nodes = (centre - half / math.sqrt(3), centre + half / math.sqrt(3))
    return half * sum(math.prod((node - other) / (levels[j] - other) for k, other in enumerate(levels) if k != j) for node in nodes)


def _grown(us: Sequence[float], j: int, u: float) -> float:
    """Integral up to u of exp(u) p(u), where p is the polynomial that is 1 at ``us[j]`` and 0 at the others: exp(u) (p - p' + p'')."""
    others = [other for k, other in enumerate(us) if k != j]
    scale = math.exp(u) / math.prod(us[j] - other for other in others)
    if len(others) < 2:
        return scale * (u - others[0] - 1 if others else 1)
    a, b = others
    return scale * ((u - a) * (u - b) - (2 * u - a - b) + 2)
