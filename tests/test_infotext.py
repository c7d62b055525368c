from __future__ import annotations

import json
import random
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from synthaug.errors import SettingError
from synthaug.records import ControlUse, Hires, LoraUse, Request, base_of, infotext, left_over, lora_hash, parse_infotext
from synthaug.records.infotext import LoraTag, take_lora_tags

HASH = "ab" * 32


def read_as_a1111_does(text):
    """The format in a few lines: prompt, negative prompt, settings; ``WxH`` in two."""
    *lines, last = text.strip().split("\n")
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert len(pairs) >= 3
    found = {key: json.loads(value) if value[0] == value[-1] == '"' else value for key, value in pairs}
    for key, value in list(found.items()):
        if match := re.fullmatch(r"(\d+)x(\d+)", value):
            found[f"{key}-1"], found[f"{key}-2"] = match.groups()
    prompt, _, negative = "\n".join(lines).partition("\nNegative prompt:")
    return prompt, negative.strip(), found


def told(hashes=None, *, base="pocket", **changes):
    request = Request(**{"prompt": "a photo of iriko", "seed": 7, **changes})
    return infotext(request, base=base, base_hash=HASH, lora_hashes=hashes or {})


def settings(*args, **changes):
    return read_as_a1111_does(told(*args, **changes))[2]


def test_a_negative_prompt_has_a_line_of_its_own():
    assert told(negative_prompt="blurred, dark").split("\n")[:2] == ["a photo of iriko", "Negative prompt: blurred, dark"]
    assert len(told().split("\n")) == 2


def test_a_plain_image_says_exactly_what_a1111_says_of_one():
    assert told(sampler="DPM++ 2M Karras", steps=9, guidance=3.5, size=(96, 128), noise="GPU") == (
        "a photo of iriko\n"
        "Steps: 9, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 3.5, Seed: 7, Size: 128x96, Model hash: ababababab, Model: pocket, "
        "Version: synthaug"
    )


@pytest.mark.parametrize(
    ("base", "written"), [('my "best" base', 'my "best" base'), ("a, b", '"a, b"'), ("a: b", '"a: b"'), ('"a"', r'"\"a\""')]
)
def test_a_value_is_quoted_only_where_it_would_be_misread(base, written):
    assert f", Model: {written}, RNG" in told(base=base)
    assert settings(base=base)["Model"] == base


def test_every_setting_that_a1111_has_a_key_for_stands_in_its_place():
    text = told(
        {"iriko": "cd" * 32, "lcm": "ef" * 32}, negative_prompt="blur", sampler="DDIM", schedule="Karras", guidance=1.0, size=(64, 96),
        clip_skip=2, noise="NV", tiling=True, variation_strength=0.25, variation_seed=5, eta=0.5, image="p.png", strength=0.6, mask="m.png",
        mask_blur=0, only_masked=True, masked_content="latent noise", emphasis="No norm", base="models/v1-5.safetensors",
        loras=(LoraUse(path="x/iriko.safetensors", weight=0.8), LoraUse(path="lcm.safetensors", weight=1.0, text_weight=0.0)),
    )  # fmt: skip

    prompt, negative, found = read_as_a1111_does(text)

    assert (prompt, negative) == ("a photo of iriko <lora:iriko:0.8> <lora:lcm:0:1>", "blur")
    assert (found["Size-1"], found["Size-2"]) == ("96", "64")
    assert list(found.items())[:-2] == [
        ("Steps", "20"), ("Sampler", "DDIM"), ("Schedule type", "Karras"), ("CFG scale", "1"), ("Seed", "7"), ("Size", "96x64"),
        ("Model hash", "ababababab"), ("Model", "v1-5"), ("Variation seed", "5"), ("Variation seed strength", "0.25"),
        ("Denoising strength", "0.6"), ("Clip skip", "2"), ("RNG", "NV"), ("Tiling", "True"), ("Eta DDIM", "0.5"), ("Mask blur", "0"),
        ("Inpaint area", "Only masked"), ("Masked area padding", "32"), ("Masked content", "latent noise"),
        ("Lora hashes", f"iriko: {'cd' * 6}, lcm: {'ef' * 6}"), ("Emphasis", "No norm"),
        ("synthaug image", "p.png"), ("synthaug mask", "m.png"), ("synthaug base", "models/v1-5.safetensors"), ("Version", "synthaug"),
    ]  # fmt: skip


def test_a_hires_pass_has_the_denoising_strength_to_itself():
    found = settings(hires=Hires(scale=1.5, strength=0.55, steps=8, upscaler="Latent (nearest)"))

    assert [found[key] for key in ("Denoising strength", "Hires upscale", "Hires steps", "Hires upscaler")] == [
        "0.55", "1.5", "8", "Latent (nearest)",
    ]  # fmt: skip


def test_what_a1111_has_no_key_for_stands_in_keys_of_our_own_only_when_it_is_not_as_usual():
    found = settings(guidance_rescale=0.6, guidance_interval=(0.2, 0.8), reuse=3, decoder="tiny", exact_steps=True)

    ours = {key: value for key, value in found.items() if key.startswith("synthaug")}
    assert ours == {
        "synthaug guidance rescale": "0.6", "synthaug guidance interval": "[0.2, 0.8]", "synthaug reuse": "3",
        "synthaug decoder": "tiny", "synthaug exact steps": "true",
    }  # fmt: skip
    assert not [key for key in settings(variation_seed=9) if key.startswith("synthaug")]


WORDS = ("fish", "いりこ", "(a:1.2)", "[x|y]", "a, b", "BREAK", '"quoted"', "back\\slash", "Steps: 3", "é", "\u2028", "x" * 90)
NASTY = (
    "\n",
    " ",
    "  ",
    "\t",
    "\nNegative prompt: ",
    "\nSteps: 1, Size: 8x8, Seed: 3",
    " <lora:other:0.5>",
    "<lora:a:b:c:d>",
    "\r",
    "\x85",
)


def random_request(rng, folder, *, nasty):
    """Any request at all; its LoRAs lie in the folder."""
    between = NASTY if nasty else (" ", "\n", ", ")

    def words():
        return "".join(rng.choice(WORDS) + rng.choice(between) for _ in range(rng.randrange(4))) + rng.choice(("", "end"))

    def files(suffix):
        names = rng.sample(("iriko", "rust v2", "いりこ", "a.b", *(("c:d", "x,y") if nasty else ())), rng.randrange(3))
        paths = [folder / suffix[1:] / f"{name}{suffix[1]}{suffix}" for name in names]
        for path in paths:
            path.touch()
        return [str(path) for path in paths]

    def some(*values):
        return rng.choice((None, *values))

    image = some("p.png", 'a, "b": c.jpg', " x")
    any_share = rng.choice((0.0, 1.0, 0.3, rng.random()))
    return Request(
        prompt=words(), negative_prompt=words(), seed=rng.randrange(2**63), variation_strength=any_share,
        variation_seed=rng.randrange(2**63) if any_share else 0, sampler=rng.choice(("DPM++ 2M", "Euler a", "DDIM")),
        schedule=rng.choice(("Automatic", "Karras", "Align Your Steps")), steps=rng.randint(1, 1000),
        guidance=rng.choice((1.0, 7.5, rng.random() * 30)), guidance_rescale=some(0.0, 0.7), eta=some(0.0, 0.5),
        guidance_interval=rng.choice(((0.0, 1.0), (0.25, rng.uniform(0.3, 1)))), size=(8 * rng.randint(1, 99), 8 * rng.randint(1, 99)),
        loras=tuple(
            LoraUse(path=path, weight=rng.choice((1.0, -0.5, rng.random())), text_weight=some(0.0, 1.0)) for path in files(".safetensors")
        ),
        embeddings=tuple(files(".pt")), clip_skip=rng.randint(1, 12), emphasis=rng.choice(("Original", "No norm", "Ignore", "None")),
        noise=rng.choice(("CPU", "GPU", "NV")), image=image, strength=rng.choice((1.0, 0.5, 1e-3)), exact_steps=rng.random() < 0.5,
        mask=some("m.png") if image else None, mask_blur=rng.randint(0, 64), only_masked=rng.random() < 0.5,
        masked_content=rng.choice(("fill", "original", "latent noise", "latent nothing")), mask_padding=rng.randint(0, 256),
        hires=some(Hires(), Hires(scale=rng.uniform(1.1, 4), strength=0.4, steps=rng.randint(0, 99), upscaler="Latent, bicubic")),
        tiling=rng.random() < 0.5, controls=rng.choice(((), (ControlUse(class_path="a.B", settings={"x, y": [1, "\n"]}, image="c.png"),))),
        decoder=rng.choice(("full", "tiny")), reuse=rng.randint(1, 10),
    )  # fmt: skip


@pytest.mark.parametrize("nasty", [False, True])
def test_a_request_comes_back_from_its_infotext_whatever_it_asks_for(tmp_path, nasty):
    for suffix in ("safetensors", "pt"):
        (tmp_path / suffix).mkdir()
    rng = random.Random(0)

    for _ in range(400):
        request = random_request(rng, tmp_path, nasty=nasty)
        text = infotext(
            request, base="a, b/c", base_hash=HASH, lora_hashes={"iriko": HASH},
            embedding_hashes={Path(path).stem: HASH for path in request.embeddings} if rng.random() < 0.5 else None,
        )  # fmt: skip
        assert Request.from_infotext(text, lora_folders=[tmp_path]) == request, text
        assert base_of(parse_infotext(text)) == "a, b/c"


def test_no_field_is_left_out_of_the_random_requests(tmp_path):
    for suffix in ("safetensors", "pt"):
        (tmp_path / suffix).mkdir()
    rng = random.Random(0)

    requests = [random_request(rng, tmp_path, nasty=True) for _ in range(40)]

    constant = {each.name for each in fields(Request) if len({repr(getattr(request, each.name)) for request in requests}) == 1}
    assert constant == {"label", "index"}


def test_a_sampler_that_names_its_schedule_comes_back_in_two_words():
    back = Request.from_infotext(told(sampler="DPM++ 2M SDE SGM Uniform"))

    assert (back.sampler, back.schedule) == ("DPM++ 2M SDE", "SGM Uniform")


A1111 = """masterpiece, (dried sardine:1.2) on a board,
<lora:iriko_v2:0.7>
macro photo
Negative prompt: text, watermark
(blurry:1.4)
Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 3141592653, Size: 512x768, Model hash: 6ce0161689, \
Model: v1-5-pruned-emaonly, VAE hash: 735e4c3a44, VAE: vae-ft-mse.safetensors, Denoising strength: 0.45, Clip skip: 2, \
Hires resize: 1024x1536, Hires upscaler: Latent, Lora hashes: "iriko_v2: 0123456789ab, other: ba9876543210", \
TI hashes: "EasyNegative: c74b4e810b03", Version: v1.10.1"""


def test_an_image_of_a1111_is_read(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("deep/iriko_v2.safetensors", "EasyNegative.pt"):
        (tmp_path / name).touch()

    request = Request.from_infotext(A1111, lora_folders=[tmp_path])

    assert request == Request(
        prompt="masterpiece, (dried sardine:1.2) on a board,\n\nmacro photo", negative_prompt="text, watermark\n(blurry:1.4)",
        steps=28, sampler="DPM++ 2M", schedule="Karras", guidance=6.5, seed=3141592653, size=(768, 512), clip_skip=2, noise="GPU",
        loras=(LoraUse(path=str(tmp_path / "deep" / "iriko_v2.safetensors"), weight=0.7),), hires=Hires(scale=2.0, strength=0.45),
        embeddings=(str(tmp_path / "EasyNegative.pt"),),
    )  # fmt: skip
    assert lora_hash(A1111, "other") == "ba9876543210"
    assert lora_hash(A1111, "iriko") is None
    assert left_over(parse_infotext(A1111)) == {"VAE hash": "735e4c3a44", "VAE": "vae-ft-mse.safetensors"}


def test_settings_that_are_missing_are_as_a1111_has_them_then():
    request = Request.from_infotext("a fish\nSteps: 5, Sampler: Euler a, Seed: 1")

    assert (request.guidance, request.size, request.noise, request.clip_skip) == (7.0, (512, 512), "GPU", 1)
    assert (request.schedule, request.strength, request.hires, request.negative_prompt) == ("Automatic", 1.0, None, "")


def test_a_last_line_with_too_few_settings_is_prompt():
    found = parse_infotext("a fish\nnote: this, size: big")

    assert (found.prompt, found.values) == ("a fish\nnote: this, size: big", {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a fish", r"must have settings with a Seed in its last line, got 'a fish.*'; it may have been cut off"),
        ("a\nSteps: many, Seed: 1, Size: 8x8", "the setting Steps of infotext cannot be read, got 'many'"),
        ("a\nSteps: 1, Seed: 1, Size: 8", "the setting Size of infotext cannot be read, got '8'"),
        ("a\nSteps: 0, Seed: 1, Size: 8x8", "steps must be 1 to 1000, got 0"),
        ("a\nSteps: 1, Seed: 1, RNG: TPU", "unknown RNG 'TPU'; choose one of: CPU, GPU, NV|the setting RNG of infotext cannot be read"),
        ("a\nSteps: 1, Seed: 1, Size: 8x8, Hires resize: 16x32", "a hires pass must keep the shape of the image, got Hires resize 16x32"),
        ("a\nSteps: 1, Seed: 1, Size: 8x8, synthaug reuse: {", "the setting 'synthaug reuse' of infotext must be JSON"),
        (
            "a <lora:none:1>\nSteps: 1, Seed: 1, Size: 8x8",
            "the LoRA 'none' must lie in one of the given folders as none.safetensors, got no",
        ),
        ("a <lora:none:x>\nSteps: 1, Seed: 1, Size: 8x8", "the weight of a LoRA must be a number, got <lora:none:x>; write <lora:none:1>"),
        ("a <lora:none:1:2:3:4>\nSteps: 1, Seed: 1, Size: 8x8", "a LoRA is called as <lora:name:weight>"),
        ("a <lora:none:1:lbw=OUT>\nSteps: 1, Seed: 1, Size: 8x8", "a LoRA is called as <lora:name:weight>"),
        ("a <lora: :1>\nSteps: 1, Seed: 1, Size: 8x8", "a LoRA is called as <lora:name:weight>"),
        ("a <lora:none:1:2:8>\nSteps: 1, Seed: 1, Size: 8x8", "ranks are not cut while drawing, got <lora:none:1:2:8>"),
        ("a <lora:none:dyn=8>\nSteps: 1, Seed: 1, Size: 8x8", "ranks are not cut while drawing, got <lora:none:dyn=8>"),
        ("a <lora:none:nan>\nSteps: 1, Seed: 1, Size: 8x8", "the weight of a LoRA must be a number, got <lora:none:nan>"),
        ("a <hypernet:none:1>\nSteps: 1, Seed: 1, Size: 8x8", "only LoRAs can be called by a tag, got <hypernet:none:1>"),
    ],
)
def test_infotext_that_cannot_be_used_is_refused_in_a_sentence(text, sentence):
    with pytest.raises(SettingError, match=sentence):
        Request.from_infotext(text)


def test_two_loras_of_one_name_are_told_apart_by_nobody(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "iriko.safetensors").touch()

    with pytest.raises(SettingError, match=r"'iriko' must lie in one of the given folders as iriko.safetensors, once, got .*a.*, .*b"):
        Request.from_infotext("x <lora:iriko:1>\nSteps: 1, Seed: 1, Size: 8x8", lora_folders=[tmp_path])


@pytest.mark.parametrize(
    ("inner", "tag"),
    [
        ("a", LoraTag(name="a")), ("a:0.5", LoraTag(name="a", weight=0.5)), ("a:0.5:0.7", LoraTag(name="a", weight=0.7, text_weight=0.5)),
        ("a:te=0.5:unet=0.7", LoraTag(name="a", weight=0.7, text_weight=0.5)), ("a:unet=0.7", LoraTag(name="a", weight=0.7)),
    ],
)  # fmt: skip
def test_a_lora_tag_is_read_in_every_form(inner, tag):
    assert take_lora_tags(f"x <lora:{inner}> y") == ("x y", (tag,))
    assert take_lora_tags(f"x <lyco:{inner}> y") == ("x y", (tag,))
    assert take_lora_tags(f"x {tag}") == ("x", (tag,))


def test_an_own_key_that_is_no_field_is_refused():
    with pytest.raises(SettingError, match="unknown setting 'synthaug wings' of infotext"):
        Request.from_infotext("a\nSteps: 1, Seed: 1, Size: 8x8, synthaug wings: 2")


def test_a_changed_request_tells_another_text():
    request = Request(prompt="a", seed=1)

    assert told() != told(steps=21)
    assert infotext(request, base="b", base_hash="", lora_hashes={}) == infotext(
        replace(request, label="x", index=4), base="b", base_hash="", lora_hashes={}
    )
