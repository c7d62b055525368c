from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from conftest import make_tiny_lora

from synthaug import Plan, Request
from synthaug.errors import SettingError, UnusableFileError
from synthaug.records import Hires, LoraUse

PLAN = Plan(
    prompts=("a {big|small} fish", "a screw"), count=7, negative_prompt="いりこ", label="belly-burst", seed=3, sampler="Euler", steps=5,
    guidance=2.5, size=(32, 40), base="some/base", loras=(LoraUse(path="iriko.safetensors", weight=0.7),),
)  # fmt: skip


def test_a_request_is_a_function_of_the_plan_and_its_place():
    assert PLAN[3] == PLAN[3]
    assert list(PLAN) == [PLAN.request(index) for index in range(7)]
    assert PLAN[4].index == 4
    assert (PLAN[4].label, PLAN[4].size, PLAN[4].loras) == ("belly-burst", (32, 40), PLAN.loras)


def test_a_longer_plan_begins_with_the_shorter_one():
    longer = Plan.from_json({**PLAN.to_json(), "count": 1000})

    assert list(longer)[:7] == list(PLAN)


def test_every_image_has_a_seed_of_its_own_that_fits_json_and_the_plans_seed_changes_all():
    seeds = [request.seed for request in Plan(prompts=("x",), count=500)]
    others = [request.seed for request in Plan(prompts=("x",), count=500, seed=1)]

    assert len({*seeds, *others}) == 1000
    assert max(seeds) < 2**53


def test_prompts_are_taken_in_turn_and_choices_are_made_per_image():
    prompts = [request.prompt for request in Plan.from_json({**PLAN.to_json(), "count": 40})]

    assert set(prompts[::2]) == {"a big fish", "a small fish"}
    assert set(prompts[1::2]) == {"a screw"}


@pytest.mark.parametrize(("suffix", "dump"), [(".json", json.dumps), (".yaml", yaml.safe_dump)])
def test_a_plan_survives_a_file(tmp_path, suffix, dump):
    path = tmp_path / f"plan{suffix}"
    path.write_text(dump(PLAN.to_json()), encoding="utf-8")

    assert Plan.from_file(path) == PLAN


def test_an_unknown_field_is_refused_with_the_fields_there_are():
    with pytest.raises(SettingError, match=r"unknown field of a plan: stepz; choose from: base, clip_skip, .*steps"):
        Plan.from_json({"prompts": ["x"], "stepz": 3})


def test_a_file_that_is_no_plan_is_refused(tmp_path):
    (tmp_path / "plan.yaml").write_text("prompts: [")

    with pytest.raises(UnusableFileError, match=r"the plan .*plan.yaml cannot be read"):
        Plan.from_file(tmp_path / "plan.yaml")
    with pytest.raises(UnusableFileError, match=r"the plan .*none.yaml cannot be read"):
        Plan.from_file(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["- a fish", "", "a fish"])
def test_a_file_without_settings_is_refused(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)

    with pytest.raises(UnusableFileError, match=r"plan.yaml must hold settings such as 'prompts: \[a photo of iriko\]'"):
        Plan.from_file(tmp_path / "plan.yaml")


def test_a_single_text_is_one_prompt():
    assert Plan.from_json({"prompts": "a fish"}).prompts == ("a fish",)
    assert Plan(prompts="a fish")[1].prompt == "a fish"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"prompts": 5}, "prompts must be a tuple of texts, got 5"),
        ({"prompts": [None]}, "prompts must be a tuple of texts"),
        ({"count": "abc"}, "count must be a whole number, got 'abc'"),
        ({"lora_files": ["a"]}, r"lora_files must be a mapping of names to texts, got \['a'\]"),
        ({"wildcards": {"a": 5}}, "wildcards must be a mapping of names to tuples of texts"),
        ({"seed": -1}, "seed must be from 0 on, got -1"),
    ],
)
def test_what_a_plan_alone_has_is_of_its_kind(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        Plan.from_json({"prompts": "x", **settings})


def test_a_plan_that_is_not_utf_8_is_a_sentence(tmp_path):
    (tmp_path / "plan.yaml").write_bytes(b"prompts: [caf\xe9]")

    with pytest.raises(UnusableFileError, match=r"plan.yaml cannot be read .*in UTF-8"):
        Plan.from_file(tmp_path / "plan.yaml")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sampler": "Magic"}, "unknown sampler 'Magic'"),
        ({"schedule": "Magic"}, "unknown schedule 'Magic'"),
        ({"eta": 0.5}, r"has no share of fresh noise to choose, got eta=0.5"),
        ({"prompts": "a (fish:1.2.3)"}, "a weight is a number such as 1.3, got '1.2.3'"),
        ({"prompts": "a [fish:(screw:1.2.3):9]"}, "a weight is a number such as 1.3, got '1.2.3'"),
        ({"negative_prompt": "(a:1.2.3)"}, "a weight is a number such as 1.3"),
        ({"hires": Hires(upscaler="Magic")}, "unknown upscaler 'Magic'"),
        ({"prompts": "a fish <foo:bar>"}, "only LoRAs can be called by a tag, got <foo:bar>"),
    ],
)
def test_what_would_be_met_while_drawing_is_met_before(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        Plan(**{"prompts": "x", **settings}).request(0)


def test_images_count_seeds_as_in_the_webui_and_keep_them_for_variations():
    plan = Plan(prompts="x", image_seed=5, variation_seed=70)
    varied = replace(plan, variation_strength=0.3)

    assert [request.seed for request in plan][:3] == [5, 6, 7]
    assert [(request.seed, request.variation_seed) for request in varied][:3] == [(5, 70), (5, 71), (5, 72)]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"loras": [{"pth": "a"}]}, r"each of loras must be {path: FILE, weight: NUMBER}, got \[{'pth': 'a'}\]"),
        ({"loras": "a.safetensors"}, "each of loras must be"),
        ({"size": 32}, r"size must be \[height, width\], got 32"),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused_with_its_value(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        Plan.from_json({"prompts": ["x"], **settings})


def test_everything_left_out_is_read_from_the_lora_file(tiny_lora, tiny_base):
    plan = Plan.for_lora(tiny_lora, weight=0.5, count=3, prompts=None)

    assert plan.prompts == ("a photo of iriko",)
    assert (plan.base, plan.size) == (str(tiny_base), (32, 32))
    assert plan.loras == (LoraUse(path=str(tiny_lora), weight=0.5),)


def test_what_is_given_wins_over_the_lora_file(tiny_lora):
    plan = Plan.for_lora(tiny_lora, prompts=("a screw",), size=(40, 32), base="pocket")

    assert (plan.prompts, plan.size, plan.base) == (("a screw",), (40, 32), "pocket")


@pytest.mark.parametrize(("key", "sentence"), [("synthaug.caption", "give a prompt"), ("synthaug.base", "give the base")])
def test_what_the_file_does_not_say_must_be_given(tiny_base, tmp_path, key, sentence):
    lora = make_tiny_lora(tiny_base)
    metadata = {name: value for name, value in lora.metadata.items() if name != key}
    type(lora)(layers=lora.layers, metadata=metadata).write(tmp_path / "other.safetensors")

    with pytest.raises(SettingError, match=rf"other.safetensors does not say .*{sentence}"):
        Plan.for_lora(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"prompts": ()}, "at least one prompt, got none"), ({"prompts": ("x",), "count": -1}, "count must not be negative, got -1")],
)
def test_a_plan_that_cannot_be_drawn_is_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        Plan(**settings)


def test_a_place_outside_the_plan_is_an_index_error():
    with pytest.raises(IndexError, match="a plan of 7 has requests 0 to 6, got 7"):
        PLAN[7]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "steps must be 1 to 1000, got 0 for prompt 'x'"),
        ({"size": (32, 33)}, r"size must be .* a multiple of 8, got \(32, 33\)"),
        ({"strength": 0.0}, r"strength must be in \(0, 1\]"),
        ({"guidance": -1.0}, "guidance must be a number from 0 on, got -1.0"),
        ({"seed": -1}, "seed must be 0 to"),
    ],
)
def test_a_request_that_cannot_be_drawn_is_refused_with_its_value(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        Request(**{"prompt": "x", "seed": 1, **settings})
