"""What each row of the UNet is told at each step: prompt, negative prompt, and for SDXL the sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from synthaug.generation.jobs import Job
from synthaug.generation.networks import Told
from synthaug.prompts.courses import Course, Part, course_of
from synthaug.prompts.encode import TextStates
from synthaug.records import Request

__all__ = ["Conditions", "chunks_of"]


def chunks_of(request: Request, texts: TextStates) -> int:
    """How many chunks of 75 words the longest text of a run takes; every text of the run is filled up to it.

    It depends on one image alone, so that what the image is told does not depend on the others.
    """
    passes = [(request.steps, False)] + ([(request.hires.steps or request.steps, True)] if request.hires else [])
    courses = [course_of(request.prompt, steps, hires=hires) for steps, hires in passes]
    courses += [course_of(request.negative_prompt, steps, hires=hires, composed=False) for steps, hires in passes]
    return max(texts.chunks(text, emphasis=request.emphasis) for course in courses for text in course.texts)


class Conditions:
    """Text rows of jobs whose texts are equally long.

    Args:
        jobs: One row each.
        texts: Reads.
        chunks: Length of every text.
        device: Where the rows are wanted.
    """

    def __init__(self, jobs: Sequence[Job], texts: TextStates, *, chunks: int, device: torch.device) -> None:
        self._jobs, self._texts, self._chunks, self._device = jobs, texts, chunks, device
        self._courses = [course_of(job.request.prompt, job.told_steps, hires=job.hires) for job in jobs]
        self._negatives = [course_of(job.request.negative_prompt, job.told_steps, hires=job.hires, composed=False) for job in jobs]
        self._known: tuple[tuple[tuple[int, str], ...], Told] | None = None

    def parts(self, row: int, step: int) -> tuple[Part, ...]:
        """What the row is told at a step of its own, each with its weight."""
        return self._courses[row].at(step)

    def negative(self, row: int, step: int) -> str:
        """What the row is kept away from at a step of its own."""
        return _only(self._negatives[row], step)

    def told(self, rows: Sequence[tuple[int, str]]) -> Told:
        """Rows as the UNet wants them, from pairs of a job's number and a text; asked again for the same, the same tensors."""
        key = tuple(rows)
        if self._known is None or self._known[0] != key:
            self._known = (key, self._read(key))
        return self._known[1]

    def _read(self, rows: Sequence[tuple[int, str]]) -> Told:
        states, pooled = [], []
        for row, text in rows:
            asked = self._jobs[row].request
            states.append(self._texts(text, self._chunks, clip_skip=asked.clip_skip, emphasis=asked.emphasis))
            whole = self._texts.pooled(text, emphasis=asked.emphasis)
            pooled += [] if whole is None else [whole]
        told = torch.stack(states).to(self._device)
        if not pooled:
            return Told(states=told)
        return Told(states=told, pooled=torch.stack(pooled).to(self._device), places=self._places([row for row, _ in rows]))

    def _places(self, rows: Sequence[int]) -> Tensor:
        """Original size, crop and target size, (N, 6): the picture is whole, as in Podell et al. 2023, section 2.2."""
        sizes = [self._jobs[row].size for row in rows]
        return torch.tensor([[*size, 0, 0, *size] for size in sizes], dtype=torch.float32, device=self._device)


def _only(course: Course, step: int) -> str:
    (part,) = course.at(step)
    return part.text
