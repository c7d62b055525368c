"""A solver that diffusers has and we do not write again, run over any noise levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import diffusers
import torch

from synthaug.diffusion.solvers import NOTHING, Noise, Run

__all__ = ["uni_pc"]


def uni_pc(levels: Sequence[float], noise: Noise, eta: float) -> Run:  # noqa: ARG001  # no noise in it
    """UniPC of order 3 with A1111's bh1, which divides by the last level: it must not be 0.

    Zhao et al. 2023, https://arxiv.org/abs/2302.04867.
    """
    return _run(diffusers.UniPCMultistepScheduler(prediction_type="sample", solver_order=3, solver_type="bh1"), levels)


def _run(theirs: Any, levels: Sequence[float]) -> Run:
    """Put our levels in place of theirs, and their latents, which keep their variance, in place of ours."""
    theirs.set_timesteps(len(levels) - 1)
    theirs.sigmas = torch.tensor(levels, dtype=torch.float32)
    theirs.set_begin_index(0)
    x, x0 = yield NOTHING
    for t, (s, to) in zip(theirs.timesteps, pairwise(levels), strict=True):
        kept = theirs.step(x0, t, x / math.sqrt(1 + s * s), return_dict=False)[0]
        x, x0 = yield kept * math.sqrt(1 + to * to)
