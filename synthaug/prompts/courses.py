"""What a prompt says at each step of a run."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Course", "Part", "course_of"]


@dataclass(frozen=True)
class Part:
    """A text and its weight among those joined by AND."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Course:
    """The parts of a prompt, step by step."""

    parts: tuple[Part, ...]

    def at(self, step: int) -> tuple[Part, ...]:
        """Parts at a step, from 0."""
        return self.parts

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text there is."""
        return tuple(part.text for part in self.parts)


def course_of(prompt: str, steps: int, *, hires: bool = False, composed: bool = True) -> Course:
    """The course of a prompt."""
    return Course((Part(prompt),))
