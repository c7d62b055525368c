from __future__ import annotations

import numpy as np
import pytest
import torch

from synthaug.errors import SettingError
from synthaug.generation.grid import Grid, axis_of, cells
from synthaug.generation.grid_sheet import grid_sheet
from synthaug.generation.plan import Plan
from synthaug.records import Hires, LoraUse


def values_of(text):
    return [value for _, value in axis_of(text).points]


def a_plan(**settings):
    return Plan(**{"prompts": ("a red fish on red paper",), "negative_prompt": "red blur", **settings})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("steps: 5,10, 20", [5, 10, 20]),
        ("steps: 1-5", [1, 2, 3, 4, 5]),
        ("steps: 5-3", [5, 4, 3]),
        ("steps: 1-10 (+2)", [1, 3, 5, 7, 9]),
        ("steps: 10-1 (-3)", [10, 7, 4, 1]),
        ("steps: 1-10 [5]", [1, 3, 6, 8, 10]),
        ("steps: 3, 10-12, 50-60 [2]", [3, 10, 11, 12, 50, 60]),
        ("guidance: 0-1 (+0.3)", [0, 0.3, 0.6, 0.9]),
        ("guidance: 0-0.7 (+0.1)", [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ("lora_weight: 0-1.2 [5]", [0, 0.3, 0.6, 0.9, 1.2]),
        ("lora_weight: -1-1 [3]", [-1, 0, 1]),
        ("guidance: 4.5-4.5", [4.5]),
        ("seed: 7", [7]),
        ("eta: 0, .5", [0.0, 0.5]),
        ("sampler: Euler a, DPM++ 2M Karras", ["Euler a", "DPM++ 2M Karras"]),
        ("size: 64x32, 40X80", [(32, 64), (80, 40)]),
        ("guidance_interval: 0:1, 0.2:0.8", [(0.0, 1.0), (0.2, 0.8)]),
        ("emphasis: No norm, None", ["No norm", "None"]),
        ("tiling: true, False", [True, False]),
        ("hires.scale: 1.5, 2", [1.5, 2.0]),
        ('negative_prompt: "blur, dark", ', ["blur, dark", ""]),
        ('prompt: "a, b", c', [("a, b", "a, b"), ("a, b", "c")]),
        ("prompt: red -> blue, green", [("red", "red"), ("red", "blue"), ("red", "green")]),
    ],
)
def test_an_axis_is_read(text, values):
    assert values_of(text) == values
    assert [type(value) for value in values_of("steps: 1-10 [5]")] == [int] * 5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("steps", "an axis of a grid must be 'field: values', such as 'steps: 5, 10', got 'steps'"),
        ("stesp: 1", r"unknown field of a grid 'stesp'; choose one of: clip_skip, .*hires\.scale, .*lora_weight, .*sampler"),
        ("loras: 1", "unknown field of a grid 'loras'"),
        ("steps:", "an axis of a grid needs values, got 'steps:'"),
        ("steps: 1, many", "steps of a grid cannot be read, got '1, many'"),
        ("steps: 1-9 (+0)", "there is no number in this range"),
        ("steps: 1-9 (-1)", "there is no number in this range"),
        ("steps: 1-9 [0]", "there is no number in this range"),
        ("emphasis: Loud", "emphasis of a grid cannot be read, got 'Loud' .unknown value 'Loud'; choose one of: Ignore"),
        ("size: 64", "size of a grid cannot be read, got '64'"),
    ],
)
def test_an_axis_that_cannot_be_read_is_a_sentence(text, sentence):
    with pytest.raises(SettingError, match=sentence):
        axis_of(text)


def test_every_combination_is_drawn_from_one_seed_columns_fastest():
    plan = a_plan(loras=(LoraUse(path="a", weight=0.3), LoraUse(path="b", text_weight=0.1)))

    requests = cells(plan, Grid(x="steps: 5, 6", y="lora_weight: 0, 1", z="sampler: DDIM, Euler"))

    assert [(r.sampler, r.loras[0].weight, r.steps) for r in requests] == [
        (sampler, weight, steps) for sampler in ("DDIM", "Euler") for weight in (0, 1) for steps in (5, 6)
    ]
    assert {request.loras[1].weight for request in requests} == {0.0, 1.0}
    assert {request.seed for request in requests} == {plan.request(0).seed}
    assert [request.index for request in requests] == list(range(8))


def test_words_are_replaced_in_both_prompts_and_lora_tags_may_be_such_words():
    plan = a_plan(prompts=("a red fish <lora:a:0.5>",), lora_files={"a": "x/a", "b": "x/b"})

    requests = cells(plan, Grid(x="prompt: red, blue", y="prompt: <lora:a:0.5> -> <lora:b:1>"))

    assert [(r.prompt, r.negative_prompt, r.loras[0].path, r.loras[0].weight) for r in requests] == [
        ("a red fish", "red blur", "x/a", 0.5), ("a blue fish", "blue blur", "x/a", 0.5),
        ("a red fish", "red blur", "x/b", 1.0), ("a blue fish", "blue blur", "x/b", 1.0),
    ]  # fmt: skip


def test_a_hires_pass_is_varied_in_its_parts():
    requests = cells(a_plan(hires=Hires(strength=0.4)), Grid(x="hires.scale: 1.5, 3", y="hires.steps: 2"))

    assert [request.hires for request in requests] == [Hires(scale=1.5, strength=0.4, steps=2), Hires(scale=3, strength=0.4, steps=2)]


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        (
            Grid(x="prompt: green, blue"),
            "the words to replace must occur in the prompt or the negative prompt, got 'green' for 'a red fish",
        ),
        (Grid(y="lora_weight: 1"), "lora_weight of a grid needs a LoRA, got none"),
        (Grid(x="steps: 0-1"), "steps must be 1 to 1000, got 0"),
        (Grid(x="seed: 1-50", y="seed: 1-50"), "a grid may have at most 1000 images, got 2500"),
        (Grid(x="seed: 1-1000000000"), "a grid may have at most 1000 images, got 1001"),
    ],
)
def test_a_grid_that_cannot_be_drawn_is_a_sentence(grid, sentence):
    with pytest.raises(SettingError, match=sentence):
        cells(a_plan(), grid)


def test_every_picture_lies_in_its_place_and_words_cover_none():
    axes = Grid(x="seed: 1-3", y="prompt: a, " + "long words " * 20 + "x" * 300, z="steps: 1, 2").axes
    sizes = [(24 + 8 * (n % 2), 120 - 8 * (n % 3)) for n in range(12)]
    pictures = [torch.full((3, *size), 10 * n, dtype=torch.uint8) + torch.tensor([0, 5, 0], dtype=torch.uint8).view(3, 1, 1)
                for n, size in enumerate(sizes)]  # fmt: skip

    sheet = grid_sheet(pictures, axes).numpy()

    corners = []
    for number, picture in enumerate(pictures):
        mine = np.argwhere((sheet == picture[:, :1, :1].numpy()).all(0))
        (top, left), (bottom, right) = mine.min(0), mine.max(0)
        assert (bottom - top + 1, right - left + 1) == sizes[number]
        assert len(mine) == sizes[number][0] * sizes[number][1]
        corners.append((top, left))
    assert corners == sorted(corners)
    assert len({left for _, left in corners}) == 3
    assert len({top for top, _ in corners}) == 4


def test_a_cell_that_cannot_be_drawn_is_refused_before_any_is():
    with pytest.raises(SettingError, match="unknown sampler 'Magic'"):
        cells(a_plan(), Grid(x="sampler: Euler, Magic"))
