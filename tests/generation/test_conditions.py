"""What a row is told at each call of the network, pass by pass."""

from __future__ import annotations

import pytest
import torch

from synthaug import Request
from synthaug.generation.conditions import Conditions
from synthaug.generation.jobs import Job
from synthaug.records import Hires

CPU = torch.device("cpu")


def told(*, hires=False, **fields):
    """Conditions of one row of a pass of 3 steps, and its calls in the second pass 7 steps."""
    asked = Request(**{"prompt": "a fish", "seed": 1, "steps": 3, "sampler": "Heun", "hires": Hires(steps=7), **fields})
    job = Job(request=asked, size=asked.size, noise=torch.zeros(1), generator=torch.Generator(), steps=3, hires=hires)
    return Conditions([job], None, chunks=1, device=CPU)  # what is said is known before anything is read


@pytest.mark.parametrize(
    ("hires", "prompt", "changes_at"),
    [
        (False, "[a:b:4]", 5),  # of the 6 calls that Heun's 3 steps have
        (True, "[a:b:4]", 0),  # the first pass is long over
        (True, "[a:b:9]", 4),  # 3 of the second pass's calls behind the 6 of the first
        (True, "[a:b:1.5]", 8),  # half of the second pass's 14 calls
    ],
)
def test_a_prompt_changes_at_the_call_that_its_pass_and_sampler_say(hires, prompt, changes_at):
    for conditions in (told(hires=hires, prompt=prompt), told(hires=hires, negative_prompt=prompt)):
        positive = [conditions.parts(0, call)[0].text for call in range(14 if hires else 6)]
        negative = [conditions.negative(0, call) for call in range(14 if hires else 6)]

        changing = positive if positive != ["a fish"] * len(positive) else negative
        assert changing == ["a"] * changes_at + ["b"] * (len(changing) - changes_at)


def test_and_and_a_weight_at_the_end_are_text_in_a_negative_prompt():
    conditions = told(prompt="a fish AND a net :0.7", negative_prompt="blur AND dust :0.7")

    assert [(part.text, part.weight) for part in conditions.parts(0, 0)] == [("a fish", 1.0), (" a net", 0.7)]
    assert conditions.negative(0, 0) == "blur AND dust :0.7"
