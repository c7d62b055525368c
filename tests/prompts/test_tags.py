from __future__ import annotations

import random

import pytest

from synthaug.errors import SettingError
from synthaug.prompts.tags import LoraTag, tags_of, take_tags
from synthaug.records import LoraUse

TAGS = {
    "<lora:iriko>": LoraTag("iriko", 1.0, 1.0),
    "<lora:iriko:0.8>": LoraTag("iriko", 0.8, 0.8),
    "<lora:iriko:0.5:0.8>": LoraTag("iriko", 0.5, 0.8),
    "<lora:iriko:-1:.25>": LoraTag("iriko", -1.0, 0.25),
    "<lora:iriko:te=0.5:unet=0.8>": LoraTag("iriko", 0.5, 0.8),
    "<lora:iriko:unet=0.8:te=0.5>": LoraTag("iriko", 0.5, 0.8),
    "<lora:iriko:te=0.5>": LoraTag("iriko", 0.5, 0.5),
    "<lora:iriko:unet=0.8>": LoraTag("iriko", 1.0, 0.8),
    "<lora:iriko:0.5:unet=0.8>": LoraTag("iriko", 0.5, 0.8),
    "<lora:iriko:0.3:te=0.5>": LoraTag("iriko", 0.5, 0.5),
    "<lyco:iriko v1.5 (final):0.8>": LoraTag("iriko v1.5 (final)", 0.8, 0.8),
}


@pytest.mark.parametrize(("tag", "expected"), TAGS.items())
def test_a_tag_is_taken_out_and_read(tag, expected):
    assert take_tags(f"a photo, {tag} on paper") == ("a photo,  on paper", (expected,))


def test_several_tags_keep_their_order_and_nothing_else_is_touched():
    text, tags = take_tags("<lora:b:1>(red:1.2)<lora:a:0.5>, 1 < 2 > 0, <3, <b> <lora:>")

    assert text == "(red:1.2), 1 < 2 > 0, <3, <b> <lora:>"
    assert [tag.name for tag in tags] == ["b", "a"]


@pytest.mark.parametrize(
    ("tag", "sentence"),
    [
        ("<hypernet:anime:1>", r"a tag must be <lora:name:weight>, got <hypernet:anime:1>; take it out of the prompt"),
        ("<lora:iriko:1:1:8>", r"ranks are not cut while drawing, got dyn in <lora:iriko:1:1:8>; cut the file itself with synthaug.lora"),
        ("<lora:iriko:dyn=8>", r"ranks are not cut while drawing, got dyn"),
        ("<lora:iriko:1:1:8:2>", r"a tag has a name and at most two weights, got <lora:iriko:1:1:8:2>"),
        ("<lora:iriko:strong>", r"the weight of a LoRA is a number, got 'strong' in <lora:iriko:strong>; write <lora:name:0.8>"),
        ("<lora:iriko:nan>", r"the weight of a LoRA is a number, got 'nan'"),
        ("<lora:iriko:te=inf>", r"the weight of a LoRA is a number, got 'inf'"),
        ("<lora:iriko:1:lbw=OUT>", r"a tag knows te= and unet=, got lbw= in <lora:iriko:1:lbw=OUT>"),
        ("<lora: :1>", r"a tag must name a LoRA, got <lora: :1>"),
    ],
)
def test_a_tag_that_cannot_be_followed_is_refused(tag, sentence):
    with pytest.raises(SettingError, match=sentence):
        take_tags(f"a fish {tag}")


def test_tags_that_are_written_are_read_back():
    rng = random.Random(0)
    for _ in range(100):
        uses = [
            LoraUse(
                path=rng.choice(["runs/iriko.safetensors", "C:\\loras\\v1.5.safetensors", "scratch"]),
                weight=rng.uniform(-2, 2), text_weight=rng.choice([None, 1e-7, 2.0, rng.uniform(-2, 2)]),
            )
            for _ in range(rng.randint(0, 3))
        ]  # fmt: skip

        text, tags = take_tags(tags_of(uses))

        assert text.strip() == ""
        assert [(tag.text_weight, tag.unet_weight) for tag in tags] == [
            (use.weight if use.text_weight is None else use.text_weight, use.weight) for use in uses
        ]
        assert [tag.name for tag in tags] == [
            {"r": "iriko", "C": "v1.5", "s": "scratch"}[use.path[0]] for use in uses
        ]  # fmt: skip


@pytest.mark.parametrize(("path", "name"), [("a:b.safetensors", "'a:b'"), ("x/a>b", "'a>b'"), (" ", "' '")])
def test_a_name_that_a_tag_cannot_hold_is_refused(path, name):
    with pytest.raises(SettingError, match=rf"must have letters, and no ':' or '>', got {name}; rename the file"):
        tags_of([LoraUse(path=path)])
