"""Draw a few images from a LoRA file: what a callback of training is handed by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from synthaug.generation.plan import Plan
from synthaug.generation.sampler import Sampler

__all__ = ["Preview"]


class Preview:
    """Draws with a LoRA file, from the same seeds each time.

    Args:
        count: Images to draw.
        prompt: What to draw; the file's own caption when left out.
        seed: Seed of the plan.
        steps: Denoising steps.
    """

    def __init__(self, *, count: int = 4, prompt: str | None = None, seed: int = 0, steps: int = 20) -> None:
        self._count, self._prompt, self._seed, self._steps = count, prompt, seed, steps
        self._sampler: Sampler | None = None

    def draw(self, lora: Path) -> Tensor:
        """Images drawn with the LoRA, uint8 (count, 3, H, W)."""
        prompts = None if self._prompt is None else (self._prompt,)
        plan = Plan.for_lora(lora, prompts=prompts, count=self._count, seed=self._seed, steps=self._steps)
        if self._sampler is None:
            self._sampler = Sampler.for_drawing(plan.base, plan)
        worn = [replace(request, loras=plan.loras) for request in plan]
        return self._sampler(worn)
