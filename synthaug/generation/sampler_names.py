"""Samplers and noise schedules by the names people type.

Names are A1111's; its API's (``k_dpmpp_2m``, ``sgm_uniform``), the old joined ones (``DPM++ 2M Karras``), diffusers' ``PNDM`` and ComfyUI's
(``dpmpp_2s_ancestral``) are understood, in any case. ComfyUI's ``_gpu`` says where noise is drawn, which is a field of its own here;
names of samplers that there are not here, such as ``uni_pc_bh2``, are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from synthaug.diffusion import solvers
from synthaug.diffusion.sigmas import COURSES
from synthaug.diffusion.solvers import Run, ancestral, middle
from synthaug.errors import SettingError, choose
from synthaug.generation.borrowed_solvers import uni_pc

__all__ = ["AUTOMATIC", "SAMPLERS", "SCHEDULES", "SamplerKind", "automatic_schedule", "looks_of", "split_sampler", "takes_eta"]

AUTOMATIC = "Automatic"
SCHEDULES = (AUTOMATIC, *COURSES)
"""Names of the noise schedules."""


@dataclass(frozen=True, kw_only=True)
class SamplerKind:
    """How a sampler is run."""

    run: Callable[..., Run]
    """Its loop, of levels, noise and eta, as in :mod:`synthaug.diffusion.solvers`."""

    automatic: str = "Uniform"
    """Schedule that Automatic stands for."""

    automatic_from_noise: str = "Uniform"
    """The same on bases that begin in noise alone, docs/decisions/0012."""

    second: Callable[[float, float, float], float] | None = None
    """Level of the second look within a step, of (level, next, eta), 0 where there is none; None if it never looks twice."""

    eta: float = 0.0
    """Share of fresh noise, if nobody says otherwise."""

    takes_eta: bool = False
    """Whether somebody may."""

    random: bool = False
    """Whether it draws noise even with eta = 0."""

    drops_a_level: bool = False
    """Whether it has one level more and leaves out the last one above 0."""

    ends_above_zero: bool = False
    """Whether it ends at the lowest level there is, for want of a formula for 0."""

    as_trained: bool = False
    """Whether it keeps variance, as training does: a run begins with noise that stands for a picture, too, and ends at the first
    training step if the schedule leaves it a way there."""

    asks_for_levels: bool = False
    """Whether its loop is handed ``quieter``, the level that lies some share below another."""


def _mid(s: float, to: float, eta: float) -> float:
    return middle(s, ancestral(s, to, eta)[0])


_SDE: dict[str, Any] = {"eta": 1.0, "takes_eta": True}
_KARRAS: dict[str, Any] = {"automatic": "Karras", "automatic_from_noise": "SGM Uniform"}
_EXPONENTIAL: dict[str, Any] = {"automatic": "Exponential", "automatic_from_noise": "SGM Uniform"}

SAMPLERS: dict[str, SamplerKind] = {
    "Euler": SamplerKind(run=solvers.euler),
    "Euler a": SamplerKind(run=solvers.euler, **_SDE),
    "LMS": SamplerKind(run=solvers.lms),
    "Heun": SamplerKind(run=solvers.heun, second=lambda _s, to, _eta: to),
    "DPM2": SamplerKind(run=solvers.dpm2, automatic="Karras", second=_mid, drops_a_level=True),
    "DPM2 a": SamplerKind(run=solvers.dpm2, automatic="Karras", second=_mid, drops_a_level=True, **_SDE),
    "DPM++ 2S a": SamplerKind(run=solvers.dpm_2s, **_KARRAS, second=_mid, **_SDE),
    "DPM++ 2M": SamplerKind(run=solvers.dpm_2m, **_KARRAS),
    "DPM++ SDE": SamplerKind(run=solvers.dpm_sde, **_KARRAS, second=lambda s, to, _eta: middle(s, to), **_SDE),
    "DPM++ 2M SDE": SamplerKind(run=solvers.dpm_2m_sde, **_EXPONENTIAL, **_SDE),
    "DPM++ 2M SDE Heun": SamplerKind(run=partial(solvers.dpm_2m_sde, heun=True), **_EXPONENTIAL, **_SDE),
    "DPM++ 3M SDE": SamplerKind(run=solvers.dpm_3m_sde, **_EXPONENTIAL, drops_a_level=True, **_SDE),
    "DDIM": SamplerKind(run=solvers.euler, automatic="DDIM", automatic_from_noise="Simple", takes_eta=True, as_trained=True),
    "PLMS": SamplerKind(run=solvers.plms, automatic="DDIM", automatic_from_noise="Simple", as_trained=True),
    "UniPC": SamplerKind(run=uni_pc, automatic="SGM Uniform", automatic_from_noise="SGM Uniform", ends_above_zero=True),
    "DEIS": SamplerKind(run=solvers.deis, automatic="SGM Uniform", automatic_from_noise="SGM Uniform"),
    "LCM": SamplerKind(run=solvers.lcm, automatic="Simple", automatic_from_noise="Simple", random=True),
    "TCD": SamplerKind(run=solvers.tcd, automatic="Simple", automatic_from_noise="Simple", eta=0.3, takes_eta=True, asks_for_levels=True),
    "DDPM": SamplerKind(run=solvers.euler, automatic="Simple", automatic_from_noise="Simple", eta=1.0),
}
"""Name -> how it is run."""


def split_sampler(name: str, schedule: str = AUTOMATIC) -> tuple[str, str]:
    """Sampler and schedule, each under A1111's name for it.

    Args:
        name: Of a sampler; a schedule may follow.
        schedule: Of a schedule; Automatic leaves the word to ``name``.

    Raises:
        SettingError: If a name is unknown, or two schedules are named.

    Example:
        >>> split_sampler("DPM++ 2M Karras"), split_sampler("k_dpmpp_2m", "sgm_uniform")
        (('DPM++ 2M', 'Karras'), ('DPM++ 2M', 'SGM Uniform'))
        >>> split_sampler("euler_ancestral")
        ('Euler a', 'Automatic')
    """
    wanted = _SCHEDULE_KEYS.get(_key(schedule)) or choose("schedule", schedule, dict.fromkeys(SCHEDULES, schedule))
    key = _sampler_key(name)
    if key in _SAMPLER_KEYS:
        return _SAMPLER_KEYS[key], wanted
    for ending, named in _SCHEDULE_KEYS.items():
        sampler = _SAMPLER_KEYS.get(_sampler_key(key.removesuffix(ending))) if key.endswith(ending) else None
        if sampler is None:
            continue
        if AUTOMATIC not in (wanted, named) and wanted != named:
            raise SettingError(f"a sampler runs on one schedule, got {name!r} and {schedule!r}; leave one of them out")
        return sampler, named if wanted == AUTOMATIC else wanted
    choose("sampler", name, SAMPLERS)
    raise AssertionError


def takes_eta(name: str) -> bool:
    """Whether a sampler has a share of fresh noise that can be chosen.

    Raises:
        SettingError: If the name is unknown.

    Example:
        >>> takes_eta("Euler a Karras"), takes_eta("DDIM"), takes_eta("LCM")
        (True, True, False)
    """
    return SAMPLERS[split_sampler(name)[0]].takes_eta


def looks_of(name: str) -> int:
    """How often a sampler asks the network in a step.

    Raises:
        SettingError: If the name is unknown.

    Example:
        >>> looks_of("Euler"), looks_of("Heun")
        (1, 2)
    """
    return 2 if SAMPLERS[split_sampler(name)[0]].second else 1


def automatic_schedule(name: str, base_schedule: Mapping[str, Any]) -> str:
    """The schedule that Automatic stands for with a sampler on a base, docs/decisions/0012.

    Raises:
        SettingError: If the name is unknown.

    Example:
        >>> automatic_schedule("DPM++ 2M", {}), automatic_schedule("DPM++ 2M", {"rescale_betas_zero_snr": True})
        ('Karras', 'SGM Uniform')
    """
    kind = SAMPLERS[split_sampler(name)[0]]
    return kind.automatic_from_noise if base_schedule.get("rescale_betas_zero_snr") else kind.automatic


def _key(name: str) -> str:
    """A name without case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", name.lower())


def _sampler_key(name: str) -> str:
    """The same for every spelling of a sampler."""
    key = _key(name).removeprefix("k").replace("dpmpp", "dpm++").replace("ancestral", "a")
    return key.removesuffix("gpu") if key.endswith(("sdegpu", "sdeheungpu")) else key


_SAMPLER_KEYS = {_sampler_key(name): name for name in SAMPLERS} | {"pndm": "PLMS"}
_SCHEDULE_KEYS = {_key(name): name for name in SCHEDULES} | {"ays": "Align Your Steps", "ka": "Karras"}
