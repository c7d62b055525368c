"""What each row of the UNet is told at each step: prompt, negative prompt, and for SDXL the sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from synthaug.generation.jobs import Job
from synthaug.generation.networks import Told
from synthaug.generation.sampler_names import looks_of
from synthaug.prompts.courses import Course, Part, course_of
from synthaug.prompts.encode import TextStates
from synthaug.records import Request

__all__ = ["Conditions", "chunks_of"]


def chunks_of(request: Request, texts: TextStates) -> int:
    """How many chunks of 75 words the longest text of a run takes; every text of the run is filled up to it.

    It depends on one image alone, so that what the image is told does not depend on the others.
    """
    courses = [course for hires in ([False, True] if request.hires else [False]) for course in _courses(request, hires=hires)]
    return max(texts.chunks(text, emphasis=request.emphasis) for course in courses for text in course.texts)


def _courses(request: Request, *, hires: bool) -> tuple[Course, Course]:
    """What prompt and negative prompt say at each call of the UNet, in the first or the second pass."""
    looks = looks_of(request.sampler)
    first = looks * request.steps
    steps = looks * (request.hires.steps or request.steps) if hires and request.hires else first
    return (
        course_of(request.prompt, steps, hires=hires, first_steps=first),
        course_of(request.negative_prompt, steps, hires=hires, first_steps=first, composes=False),
    )


class Conditions:
    """Text rows of jobs whose texts are equally long.

    Args:
        jobs: One row each.
        texts: Reads.
        chunks: Length of every text.
        device: Where the rows are wanted.
        nothing_is_zeros: Whether an empty negative prompt is told as zeros.
    """

    def __init__(
        self, jobs: Sequence[Job], texts: TextStates, *, chunks: int, device: torch.device, nothing_is_zeros: bool = False
    ) -> None:  # fmt: skip
        self._nothing = None if nothing_is_zeros else ""
        self._jobs, self._texts, self._chunks, self._device = jobs, texts, chunks, device
        courses = [_courses(job.request, hires=job.hires) for job in jobs]
        self._courses, self._negatives = [told for told, _ in courses], [told for _, told in courses]
        self._known: tuple[tuple[tuple[int, str | None], ...], Told] | None = None

    def parts(self, row: int, call: int) -> tuple[Part, ...]:
        """What the row is told at a call of its own, each with its weight."""
        return self._courses[row].at(call)

    def negative(self, row: int, call: int) -> str | None:
        """What the row is kept away from at a call of its own; None is zeros."""
        return _only(self._negatives[row], call) or self._nothing

    def told(self, rows: Sequence[tuple[int, str | None]]) -> Told:
        """Rows as the UNet wants them, from pairs of a job's number and a text; asked again for the same, the same tensors."""
        key = tuple(rows)
        if self._known is None or self._known[0] != key:
            self._known = (key, self._read(key))
        return self._known[1]

    def _read(self, rows: Sequence[tuple[int, str | None]]) -> Told:
        states, pooled = [], []
        for row, text in rows:
            asked = self._jobs[row].request
            said = self._texts(text or "", self._chunks, clip_skip=asked.clip_skip, emphasis=asked.emphasis)
            states.append(torch.zeros_like(said) if text is None else said)
            whole = self._texts.pooled(text or "", clip_skip=asked.clip_skip, emphasis=asked.emphasis)
            if whole is not None:
                pooled.append(torch.zeros_like(whole) if text is None else whole)
        told = torch.stack(states).to(self._device)
        if not pooled:
            return Told(states=told)
        return Told(states=told, pooled=torch.stack(pooled).to(self._device), places=self._places([row for row, _ in rows]))

    def _places(self, rows: Sequence[int]) -> Tensor:
        """Original size, crop and target size, (N, 6): the picture is whole, as in Podell et al. 2023, section 2.2."""
        sizes = [self._jobs[row].size for row in rows]
        return torch.tensor([[*size, 0, 0, *size] for size in sizes], dtype=torch.float32, device=self._device)


def _only(course: Course, call: int) -> str:
    (part,) = course.at(call)
    return part.text
