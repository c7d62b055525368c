from __future__ import annotations

import pytest

from synthaug.errors import SettingError, UnusableFileError
from synthaug.generation.plan import Plan
from synthaug.generation.prompt_file import read_prompt_file, requests_of

PLAN = Plan(prompts=("-",), size=(64, 96), steps=7, seed=3)


def requests_in(tmp_path, text, plan=PLAN):
    (tmp_path / "p.txt").write_text(text, encoding="utf-8")
    return [request for _, request in requests_of(read_prompt_file(tmp_path / "p.txt"), plan, name="p.txt")]


def test_a_line_is_a_prompt_and_the_plan_says_the_rest(tmp_path):
    requests = requests_in(tmp_path, "a fish -- sleeping\r\n\n  いりこ, (dried:1.2) it's  \n")

    assert [request.prompt for request in requests] == ["a fish -- sleeping", "いりこ, (dried:1.2) it's"]
    assert {(request.steps, request.size) for request in requests} == {(7, (64, 96))}
    assert [request.seed for request in requests] == [PLAN.request(0).seed, PLAN.request(1).seed]


def test_every_option_of_a_line_is_heard(tmp_path):
    [request] = requests_in(
        tmp_path,
        '--prompt "a fish" --negative_prompt dark and "blurred, too" --seed 5 --steps 9 --cfg_scale 3.5 --sampler_name "Euler a" '
        "--scheduler Karras --width 40 --height 32 --subseed 11 --subseed_strength 0.25 --tiling True --eta 0.5",
    )

    assert (request.prompt, request.negative_prompt, request.seed, request.steps) == ("a fish", "dark and blurred, too", 5, 9)
    assert (request.guidance, request.sampler, request.schedule, request.size) == (3.5, "Euler a", "Karras", (32, 40))
    assert (request.variation_seed, request.variation_strength, request.tiling, request.eta) == (11, 0.25, True, 0.5)


def test_images_of_a_line_count_their_seeds_on_or_those_of_variations(tmp_path):
    plain = requests_in(tmp_path, "--prompt a --seed 5 --batch_size 2 --n_iter 2")
    varied = requests_in(tmp_path, "--prompt a --seed 5 --subseed 8 --subseed_strength 0.1 --batch_size 3")
    left_open = requests_in(tmp_path, "--prompt a --seed -1 --batch_size 2")

    assert [request.seed for request in plain] == [5, 6, 7, 8]
    assert [(request.seed, request.variation_seed) for request in varied] == [(5, 8), (5, 9), (5, 10)]
    assert [request.seed for request in left_open] == [PLAN.request(0).seed, PLAN.request(1).seed]
    assert [request.index for request in plain] == [0, 1, 2, 3]


def test_one_side_may_be_told_and_choices_and_loras_are_those_of_any_prompt(tmp_path):
    plan = Plan(prompts=("-",), size=(64, 96), lora_files={"iriko": "x/iriko.safetensors"})
    requests = requests_in(tmp_path, "--prompt {red|blue} fish <lora:iriko:0.5> --width 40 --n_iter 8", plan)

    assert {request.size for request in requests} == {(64, 40)}
    assert {request.prompt for request in requests} == {"red fish", "blue fish"}
    assert {request.loras[0].weight for request in requests} == {0.5}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--prompt a --stesp 9", r"unknown option --stesp in .*p\.txt, line 2; choose from: --prompt, --negative_prompt, --seed"),
        ("--steps 9", r"a line of options needs a prompt, got none in .*p\.txt, line 2"),
        ("--prompt a --steps nine", r"the option --steps cannot be 'nine' in .*p\.txt, line 2; give a whole number"),
        ("--prompt a --steps", r"the option --steps takes one value, got '' in .*line 2"),
        ("--prompt a --steps 1 2", r"the option --steps takes one value, got '1 2' in .*line 2"),
        ("--prompt a --steps 0", r"p\.txt, line 2: steps must be 1 to 1000, got 0"),
        ("--prompt a --width 41", r"p\.txt, line 2: size must be .*the nearest is \(64, 40\)"),
        ("--prompt a --sampler_name Magic", r"p\.txt, line 2: unknown sampler 'Magic'"),
        ("a (fish:1.2.3)", r"p\.txt, line 2: a weight is a number such as 1.3"),
        ("--prompt a --n_iter 0", r"batch_size and n_iter must be at least 1, got 0 images in .*line 2"),
        ("--prompt a --tiling maybe", r"the option --tiling cannot be 'maybe' in .*line 2; give true or false"),
        ("--prompt it's", r"quotes must come in pairs, got .* in .*line 2"),
        ("--prompt a --outpath_samples ../x", r"the option --outpath_samples cannot be '\.\./x' in .*line 2; give a folder within --out"),
        ("--prompt a --outpath_samples /tmp/x", r"cannot be '/tmp/x'"),
        ("--prompt a <lora:none:1>", r"p\.txt, line 2: a LoRA in a prompt must be the name of one file, got <lora:none:1>"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, line, sentence):
    with pytest.raises(SettingError, match=sentence):
        requests_in(tmp_path, f"a fish\n{line}\n")


def test_a_file_that_cannot_be_read_or_is_empty_is_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UnusableFileError, match=r"latin\.txt cannot be read .*save it as UTF-8"):
        read_prompt_file(tmp_path / "latin.txt")
    with pytest.raises(UnusableFileError, match=r"none\.txt cannot be read"):
        read_prompt_file(tmp_path / "none.txt")
    with pytest.raises(SettingError, match=r"a file of prompts must have a line, .* is empty"):
        requests_in(tmp_path, "\n  \n")
