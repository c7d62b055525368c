"""Which noise levels a run visits: the courses that A1111 and ComfyUI offer, as formulas.

Code name   Paper     Meaning
sigma       sigma     noise over signal; sigma**2 = (1 - abar) / abar
t           t         training step, 0 to T - 1, fractions allowed
rho         rho       how much a course dwells at low noise

Between two training steps log(sigma) is taken to be linear in t, as k-diffusion does. A course has n levels, loudest first; where the
run ends (0, or the lowest level there is) is the solver's business.

Karras et al. 2022, https://arxiv.org/abs/2206.00364, equation 5 (Karras); Lin et al. 2023, https://arxiv.org/abs/2305.08891, table 2
(DDIM is its "leading", Simple its "trailing", Uniform its "linspace"); Lee et al. 2024, https://arxiv.org/abs/2407.12173 (Beta);
Sabour et al. 2024, https://arxiv.org/abs/2404.14507 (Align Your Steps: tables and log-linear interpolation; KL Optimal: theorem 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.errors import SettingError, choose

__all__ = ["COURSES", "Levels", "beta_quantile", "levels_of_run"]

AYS_SD1 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
AYS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
"""Levels for 10 steps, as published, with the end of the last step."""


@dataclass(frozen=True)
class Levels:
    """Noise over signal at every training step, and the way from t to sigma and back.

    Example:
        >>> levels = Levels(torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64))
        >>> [round(sigma, 4) for sigma in levels.at(torch.tensor([0.5, 2.0])).tolist()]
        [0.3162, 10.0]
    """

    sigmas: Tensor
    """Of every training step, rising, (T,) float64."""

    @classmethod
    def of(cls, alpha: Tensor, sigma: Tensor) -> Levels:
        """Levels of a variance-preserving schedule, from its signal and noise scales, each (T,)."""
        return cls(sigma.double() / alpha.double())

    @property
    def lowest(self) -> float:
        """Level of the first training step."""
        return float(self.sigmas[0])

    @property
    def loudest(self) -> float:
        """Level of the last training step."""
        return float(self.sigmas[-1])

    @property
    def last_step(self) -> int:
        """T - 1."""
        return len(self.sigmas) - 1

    @property
    def kept(self) -> Tensor:
        """Share of the signal's variance, (T,) float32: diffusers' ``alphas_cumprod``."""
        return (1 / (1 + self.sigmas**2)).float()

    def at(self, t: Tensor) -> Tensor:
        """Level at each time step, float64, of the shape of ``t``; steps outside 0 to T - 1 count as the nearest."""
        t = t.double().clamp(0, self.last_step)
        below = t.floor().long().clamp(max=max(0, self.last_step - 1))
        above = (below + 1).clamp(max=self.last_step)
        logs = self.sigmas.log()
        return torch.lerp(logs[below], logs[above], t - below).exp()

    def time_of(self, sigma: Tensor) -> Tensor:
        """Time step of each level, float64, of the shape of ``sigma``; levels outside the range count as the nearest.

        A step that misses a whole number by rounding alone is that whole number.
        """
        logs, log = self.sigmas.log(), sigma.double().clamp(min=self.lowest, max=self.loudest).log()
        below = (torch.searchsorted(logs, log, right=True) - 1).clamp(0, max(0, self.last_step - 1))
        above = (below + 1).clamp(max=self.last_step)
        t = below + (log - logs[below]) / (logs[above] - logs[below]).clamp(min=1e-12)
        whole = t.round()
        return torch.where((t - whole).abs() < 1e-6, whole, t)


def uniform(levels: Levels, n: int) -> Tensor:
    """Even in time, both ends visited (``linspace``)."""
    return levels.at(_line(levels.last_step, 0, n))


def sgm_uniform(levels: Levels, n: int) -> Tensor:
    """Even in time, the first of n + 1 to the last but one: no step is spent where there is no noise left."""
    return levels.at(_line(levels.last_step, 0, n + 1)[:-1])


def karras(levels: Levels, n: int, *, rho: float = 7.0) -> Tensor:
    """Even in sigma ** (1 / rho)."""
    return _line(levels.loudest ** (1 / rho), levels.lowest ** (1 / rho), n) ** rho


def exponential(levels: Levels, n: int) -> Tensor:
    """Even in log(sigma)."""
    return _line(math.log(levels.loudest), math.log(levels.lowest), n).exp()


def polyexponential(levels: Levels, n: int, *, rho: float = 1.0) -> Tensor:
    """log(sigma) falls as a power of the way; with rho = 1, A1111's own, it is :func:`exponential`."""
    ramp = _line(1, 0, n) ** rho
    return (ramp * math.log(levels.loudest / levels.lowest) + math.log(levels.lowest)).exp()


def simple(levels: Levels, n: int) -> Tensor:
    """Every (T / n)-th training step from the loudest one down (``trailing``)."""
    _at_most("Simple", n, levels)
    back = torch.arange(n, dtype=torch.float64) * (len(levels.sigmas) / n)
    return levels.sigmas[levels.last_step - back.long()]


def ddim(levels: Levels, n: int) -> Tensor:
    """Every (T // n)-th training step upwards from the second (``leading``, offset 1), which leaves the loudest out.

    One step alone begins at the loudest level: from noise alone it could not begin anywhere else.
    """
    _at_most("DDIM", n, levels)
    if n == 1:
        return levels.sigmas[-1:]
    stride = len(levels.sigmas) // n
    offset = min(1, levels.last_step - (n - 1) * stride)
    return levels.sigmas[offset + stride * torch.arange(n)].flip(0)


def beta(levels: Levels, n: int, *, a: float = 0.6, b: float = 0.6) -> Tensor:
    """Levels at even quantiles of a Beta(a, b) distribution: dense at both ends."""
    share = torch.tensor([beta_quantile(float(p), a, b) for p in _line(1, 0, n)], dtype=torch.float64)
    return levels.lowest + share * (levels.loudest - levels.lowest)


def kl_optimal(levels: Levels, n: int) -> Tensor:
    """Even in arctan(sigma), the first n of n + 1."""
    return _line(math.atan(levels.loudest), math.atan(levels.lowest), n + 1)[:-1].tan()


def align_your_steps(levels: Levels, n: int, *, table: tuple[float, ...] = AYS_SD1) -> Tensor:
    """The published levels, log(sigma) interpolated to n of them; stretched to other ends where the base has others than SD's."""
    logs = torch.tensor(table, dtype=torch.float64).log()
    if abs(levels.loudest / table[0] - 1) > 0.01:
        share = (logs - logs[-1]) / (logs[0] - logs[-1])
        logs = math.log(levels.lowest) + share * math.log(levels.loudest / levels.lowest)
    return Levels(logs.flip(0).exp()).at(_line(len(table) - 1, 0, n))


Course = Callable[[Levels, int], Tensor]

COURSES: dict[str, Course] = {
    "Uniform": uniform,
    "Karras": karras,
    "Exponential": exponential,
    "Polyexponential": polyexponential,
    "SGM Uniform": sgm_uniform,
    "KL Optimal": kl_optimal,
    "Align Your Steps": align_your_steps,
    "Simple": simple,
    "Normal": uniform,
    "DDIM": ddim,
    "Beta": beta,
}
"""A1111's name of a schedule -> its formula."""


def levels_of_run(course: str, levels: Levels, n: int, *, family: str = "sd1") -> Tensor:
    """Noise levels of a run of n steps, float64 (n,), falling.

    Args:
        course: One of :data:`COURSES`.
        levels: Of the base.
        n: How many steps.
        family: Of the base: SDXL has a table of its own for Align Your Steps.

    Raises:
        SettingError: If there is no such course, or if it has fewer levels than steps were asked for.

    Example:
        >>> levels = Levels(torch.logspace(-1, 1, 5, dtype=torch.float64))
        >>> [round(float(sigma), 2) for sigma in levels_of_run("Karras", levels, 3)]
        [10.0, 1.45, 0.1]
    """
    formula = choose("schedule", course, COURSES)
    if formula is align_your_steps:
        return align_your_steps(levels, n, table=AYS_SDXL if family == "sdxl" else AYS_SD1)
    return formula(levels, n)


def beta_quantile(p: float, a: float, b: float) -> float:
    """Where the Beta(a, b) distribution has the share ``p``, 0 to 1, below it, by bisection.

    Example:
        >>> round(beta_quantile(0.25, 1, 1), 9), round(beta_quantile(0.5, 0.6, 0.6), 9)
        (0.25, 0.5)
    """
    if p in (0.0, 1.0):
        return p
    if p > 0.5:
        return 1 - beta_quantile(1 - p, b, a)  # near 0 a float is fine enough, near 1 it is not
    low, high = -300.0, 0.0  # of log10(x)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_share(10**middle, a, b) < p else (low, middle)
    return float(10**low)


def _beta_share(x: float, a: float, b: float) -> float:
    """Share of Beta(a, b) below x: the regularised incomplete beta function.

    The power series, Abramowitz and Stegun 26.5.4, which is quick below the middle.
    """
    if x > 0.5:
        return 1 - _beta_share(1 - x, b, a)
    scale = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x))
    term, total, k = 1.0, 1.0 / a, 0
    while abs(term) > 1e-17:
        k += 1
        term *= (k - b) / k * x
        total += term / (a + k)
    return scale * total


def _line(start: float, end: float, n: int) -> Tensor:
    return torch.linspace(start, end, n, dtype=torch.float64)


def _at_most(name: str, n: int, levels: Levels) -> None:
    if n > len(levels.sigmas):
        raise SettingError(
            f"the schedule {name} has as many levels as the base has training steps, {len(levels.sigmas)}, "
            f"got {n} steps; take fewer, or Karras"
        )
