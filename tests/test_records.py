from __future__ import annotations

import json
from dataclasses import replace

import pytest

from synthaug.errors import SettingError
from synthaug.records import LoraUse, Request


def a_request(**changes):
    plain = Request(
        prompt="a photo of いりこ", seed=2**63 - 1, negative_prompt="blur", label="burst", sampler="Euler", steps=7, guidance=2.5,
        size=(64, 96), loras=(LoraUse(path="a.safetensors", weight=0.5),), image="p.png", strength=0.25, index=3,
    )  # fmt: skip
    return replace(plain, **changes)


def test_a_request_survives_json():
    request = a_request()

    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "b"}, {"seed": 0}, {"negative_prompt": ""}, {"label": "sound"}, {"sampler": "DDIM"}, {"steps": 8}, {"guidance": 1.0},
        {"guidance_rescale": 0.0},
        {"size": (96, 64)}, {"loras": ()}, {"image": None}, {"strength": 1.0}, {"index": 4},
    ],
)  # fmt: skip
def test_every_field_changes_the_digest(change):
    assert a_request(**change).digest != a_request().digest
    assert a_request().digest == a_request().digest


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps must be 1 to 1000, got 0"),
        ({"steps": 1001}, "steps must be 1 to 1000, got 1001"),
        ({"seed": -1}, r"seed must be 0 to 2\*\*63 - 1, got -1"),
        ({"seed": 2**63}, r"seed must be 0 to 2\*\*63 - 1"),
        ({"strength": 0.0}, "strength must be in .* would hand back the photo unchanged, got 0.0"),
        ({"strength": 1.5}, "strength must be in .*, got 1.5"),
        ({"guidance": -1.0}, "guidance must be a number from 0 on, got -1.0"),
        ({"guidance_rescale": 1.5}, "guidance_rescale must be from 0 to 1, got 1.5"),
        ({"guidance": float("nan")}, "guidance must be a number from 0 on, got nan"),
        ({"guidance": float("inf")}, "guidance must be a number from 0 on, got inf"),
        ({"size": (100, 96)}, r"size must be \(height, width\), each a multiple of 8, got \(100, 96\)"),
        ({"size": (0, 96)}, "each a multiple of 8"),
        ({"size": (96,)}, "each a multiple of 8"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_rule_value_and_place(change, sentence):
    with pytest.raises(SettingError, match=sentence + ".* for prompt 'a photo of いりこ' .request 3"):
        a_request(**change)


def test_an_unknown_field_is_refused_with_the_known_ones():
    with pytest.raises(
        SettingError, match=r"unknown field of a request: cfg, width; choose from: clip_skip, .*guidance, guidance_interval"
    ):
        Request.from_json({"prompt": "a", "seed": 1, "width": 3, "cfg": 7})


KINDS = "a request needs a prompt, a seed and values of the right kind"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"prompt": "a"}, KINDS),
        ({"seed": 1}, KINDS),
        ({"prompt": "a", "seed": "1"}, "seed must be a whole number, got '1'"),
        ({"prompt": 5, "seed": 1}, "prompt must be text, got 5 for prompt '5'"),
        ({"prompt": "a", "seed": 1, "noise": "nv"}, "unknown noise 'nv'; choose one of: CPU, GPU, NV"),
        ({"prompt": "a", "seed": 1, "tiling": "false"}, "tiling must be true or false, got 'false'"),
        ({"prompt": "a", "seed": 1, "steps": 2.5}, "steps must be a whole number, got 2.5"),
        ({"prompt": "a", "seed": 1, "label": [1]}, r"label must be a whole number or text, got \[1\]"),
        ({"prompt": "a", "seed": 1, "size": [64, "a"]}, r"size must be a tuple of two whole numbers, got \(64, 'a'\)"),
        ({"prompt": "a", "seed": 1, "size": [64, 65]}, r"got \(64, 65\) \(the nearest is \(64, 64\)\) for prompt 'a'"),
        ({"prompt": "a", "seed": 1, "hires": {"scale": "2"}}, "scale of a hires pass must be a number, got '2'"),
        ({"prompt": "a", "seed": 1, "loras": [{"path": "x", "weight": float("nan")}]}, "the weight of a LoRA must be a number, got nan"),
        ({"prompt": "a", "seed": 1, "loras": [{"file": "x"}]}, "each of loras must be"),
        ({"prompt": "a", "seed": 1, "size": 64}, r"size must be \[height, width\], got 64"),
        ({"prompt": "a", "seed": 1, "hires": 2}, "hires must be"),
        ({"prompt": "a", "seed": 1, "controls": [{"image": "a.png"}]}, "each of controls must be"),
    ],
)
def test_what_is_missing_or_of_another_kind_is_refused(data, sentence):
    with pytest.raises(SettingError, match=sentence):
        Request.from_json(data)


def test_records_cannot_be_changed():
    with pytest.raises(AttributeError, match="cannot assign to field 'seed'"):
        a_request().seed = 1


def test_a_whole_number_is_a_number_and_a_record_is_not_a_mapping():
    assert Request(prompt="a", seed=1, guidance=7).guidance == 7
    with pytest.raises(SettingError, match=r"hires must be a Hires record or left out, got {'scale': 1.5}"):
        Request(prompt="a", seed=1, hires={"scale": 1.5})
