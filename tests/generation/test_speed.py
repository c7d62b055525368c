from __future__ import annotations

from dataclasses import replace

import pytest

from synthaug import Plan
from synthaug.errors import SettingError, UnusableFileError
from synthaug.generation.speed import speed_of
from synthaug.pocket import FEW_STEPS
from synthaug.records import Drawing, LoraUse


def test_exact_replaces_nothing():
    plan = Plan(prompts=("a fish",), count=3, guidance=7.0)

    assert speed_of("exact", plan, base="pocket") is plan


def test_fast_keeps_words_seeds_and_what_is_faster_already():
    plan = Plan(prompts=("a fish",), count=3, seed=5, reuse=5, steps=30, guidance_interval=(0.1, 0.2), negative_prompt="a screw")

    assert speed_of("fast", plan, base="pocket") == replace(plan, steps=21)
    assert speed_of("fast", plan, base="pocket").request(2).seed == plan.request(2).seed


def test_fast_never_takes_more_steps_than_were_asked_for_nor_too_few():
    assert [speed_of("fast", Drawing(steps=steps), base="pocket").steps for steps in (7, 8, 9, 10, 12, 100)] == [7, 8, 8, 8, 8, 70]


def test_draft_narrows_an_interval_that_begins_late_to_nothing():
    assert speed_of("draft", Drawing(guidance_interval=(0.7, 1.0)), base="other").guidance_interval == (0.7, 0.7)


def test_draft_wears_the_few_step_lora_over_those_that_are_worn():
    few = FEW_STEPS
    mine = LoraUse(path="iriko.safetensors", weight=0.8)

    quick = speed_of("draft", Drawing(loras=(mine,)), base="pocket")

    assert quick.loras == (mine, LoraUse(path=str(few)))
    assert (quick.steps, quick.guidance, quick.sampler, quick.reuse) == (4, 1.0, "DDIM", 1)
    assert not speed_of("draft", Drawing(), base="other").loras
    assert not speed_of("draft", Drawing(negative_prompt="a screw"), base="pocket").loras, "few steps hear no negative prompt"


def test_a_damaged_few_step_lora_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("synthaug.models.load.FEW_STEPS", tmp_path / FEW_STEPS.name)
    (tmp_path / FEW_STEPS.name).write_bytes(FEW_STEPS.read_bytes()[:-1] + b"?")

    with pytest.raises(UnusableFileError, match=r"few_steps.safetensors is damaged; reinstall synthaug"):
        speed_of("draft", Drawing(), base="pocket")


@pytest.mark.parametrize(("family", "decoder"), [("sd1", "tiny"), ("sdxl", "tiny"), (None, "full")])
def test_draft_on_other_bases_takes_fewer_steps_and_a_tiny_decoder(family, decoder):
    quick = speed_of("draft", Drawing(), base="my-base", family=family)

    assert (quick.steps, quick.reuse, quick.decoder) == (12, 3, decoder)


def test_a_drawing_of_few_steps_is_left_as_it_is():
    drawing = Drawing(steps=8, guidance=1.0)

    assert speed_of("fast", drawing, base="pocket") is speed_of("draft", drawing, base="pocket") is drawing


def test_an_unknown_word_is_refused_with_the_choices():
    with pytest.raises(SettingError, match="unknown speed 'slow'; choose one of: draft, exact, fast"):
        speed_of("slow", Drawing(), base="pocket")
