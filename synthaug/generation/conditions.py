"""What each row of the UNet is told at each step: prompt, negative prompt, and for SDXL the sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from synthaug.generation.jobs import Job
from synthaug.generation.networks import Told
from synthaug.prompts.courses import Course, Part, course_of
from synthaug.prompts.encode import TextStates

__all__ = ["Conditions", "chunks_of"]


def chunks_of(prompt: str, negative_prompt: str, steps: int, texts: TextStates, *, emphasis: str) -> int:
    """How many chunks of 75 words the longest text of a run takes; every text of the run is filled up to it.

    It depends on one image alone, so that what the image is told does not depend on the others.
    """
    courses = (course_of(prompt, steps), course_of(negative_prompt, steps, composes=False))
    return max(texts.chunks(text, emphasis=emphasis) for course in courses for text in course.texts)


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
        self._courses = [course_of(job.request.prompt, job.steps, hires=job.hires) for job in jobs]
        self._negatives = [course_of(job.request.negative_prompt, job.steps, hires=job.hires, composes=False) for job in jobs]
        self._known: tuple[tuple[tuple[int, str | None], ...], Told] | None = None

    def parts(self, row: int, step: int) -> tuple[Part, ...]:
        """What the row is told at a step of its own, each with its weight."""
        return self._courses[row].at(step)

    def negative(self, row: int, step: int) -> str | None:
        """What the row is kept away from at a step of its own; None is zeros."""
        return _only(self._negatives[row], step) or self._nothing

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


def _only(course: Course, step: int) -> str:
    (part,) = course.at(step)
    return part.text
