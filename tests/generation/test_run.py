from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

from synthaug.cli import main
from synthaug.errors import OutputError
from synthaug.generation import Plan, Sampler, run
from synthaug.generation.run import draw_into
from synthaug.lora.file import LoraFile
from synthaug.manifest import Manifest
from synthaug.pixels import digest, read_image
from synthaug.records import Request


def generate(lora, out, *more):
    """Run the command and hand back its exit code."""
    with pytest.raises(SystemExit) as end:
        main(["generate", f"--lora={lora}", f"--out={out}", "--steps=2", "--batch_size=2", *more])
    return end.value.code


def differ(one, other):
    """Whether two folders hold other requests, or pictures that are more than 1/255 apart."""
    here, there = Manifest(one).samples, Manifest(other).samples
    if [sample.request for sample in here] != [sample.request for sample in there]:
        return True
    pairs = [(read_image(one / a.file).int(), read_image(other / b.file).int()) for a, b in zip(here, there, strict=True)]
    return any((a - b).abs().max() > 1 for a, b in pairs)


@pytest.fixture(scope="module")
def whole(tiny_lora, tmp_path_factory):
    """A run of seven images that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    assert generate(tiny_lora, out, "--count=7") == 0
    return out


def dying(batches, error):
    """``Sampler.__call__`` that draws so many batches and then raises."""
    draw, left = Sampler.__call__, iter(range(batches))

    def call(self, requests):
        if next(left, None) is None:
            raise error
        return draw(self, requests)

    return call


def test_a_folder_holds_the_plan_and_each_picture_says_how_it_was_made(whole, tiny_lora):
    samples = Manifest(whole).samples

    assert [sample.request for sample in samples] == list(Plan.for_lora(tiny_lora, count=7, steps=2))
    assert all(digest(read_image(whole / sample.file)) == sample.sha256 for sample in samples)
    with Image.open(whole / samples[3].file) as picture:
        assert Request.from_json(json.loads(picture.text["synthaug"])) == samples[3].request
        assert picture.text["parameters"].startswith("a photo of iriko\nSteps: 2, Sampler: DPM++ 2M")
        assert "Lora hashes: " in picture.text["parameters"]


def test_a_second_run_draws_nothing_and_a_longer_one_only_what_is_missing(whole, tiny_lora, tmp_path, capsys):
    assert generate(tiny_lora, tmp_path, "--count=3") == 0
    assert generate(tiny_lora, tmp_path, "--count=3") == 0
    again = capsys.readouterr().out
    assert generate(tiny_lora, tmp_path, "--count=7") == 0
    longer = capsys.readouterr().out

    assert "0 new images" in again
    assert "4 new images" in longer
    assert not differ(tmp_path, whole)


def test_ctrl_c_keeps_what_is_drawn_and_the_next_run_ends_like_one_that_was_never_stopped(whole, tiny_lora, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "__call__", dying(2, KeyboardInterrupt()))
        assert generate(tiny_lora, tmp_path, "--count=7") == 1
    said = capsys.readouterr().err
    kept = len(Manifest(tmp_path).samples)

    assert generate(tiny_lora, tmp_path, "--count=7") == 0

    assert kept == 4
    assert said == "synthaug generate: stopped; what was finished is kept, the same command goes on from there\n"
    assert not differ(tmp_path, whole)


def test_a_picture_that_was_deleted_is_drawn_again(whole, tiny_lora, tmp_path):
    generate(tiny_lora, tmp_path, "--count=3")
    lost = Manifest(tmp_path).samples[1].file
    (tmp_path / lost).unlink()

    assert generate(tiny_lora, tmp_path, "--count=3") == 0

    assert len(Manifest(tmp_path).samples) == 3
    assert (read_image(tmp_path / lost).int() - read_image(whole / lost).int()).abs().max() <= 1


def test_a_full_disk_is_a_sentence_and_keeps_what_was_drawn(tiny_lora, tiny_base, tmp_path, monkeypatch):
    save, done = run.save_png, []

    def save_three(image, path, **settings):
        if len(done) == 3:
            raise OutputError(f"{path} could not be written (No space left on device); free some space or choose another folder")
        done.append(path)
        save(image, path, **settings)

    monkeypatch.setattr(run, "save_png", save_three)
    plan = Plan.for_lora(tiny_lora, count=5, steps=1)
    with pytest.raises(OutputError, match="No space left on device"):
        draw_into(Manifest(tmp_path), plan, Sampler(str(tiny_base)), batch_size=2)

    assert len(Manifest(tmp_path).samples) == 3


def test_progress_is_told_after_each_batch(tiny_lora, tiny_base, tmp_path):
    told = []

    new = draw_into(
        Manifest(tmp_path), Plan.for_lora(tiny_lora, count=5, steps=1), Sampler(str(tiny_base)), batch_size=2,
        tell=lambda done, of: told.append((done, of)),
    )  # fmt: skip

    assert new == 5
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_a_plan_file_is_drawn(tiny_lora, tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps(Plan.for_lora(tiny_lora, count=2, steps=1, label="bad").to_json()))

    with pytest.raises(SystemExit) as end:
        main(["generate", f"--plan={tmp_path}/plan.json", f"--out={tmp_path}/out"])

    assert end.value.code == 0
    assert [sample.request.label for sample in Manifest(tmp_path / "out").samples] == ["bad", "bad"]


@pytest.mark.parametrize(("label", "expected"), [("1", 1), ("belly-burst", "belly-burst")])
def test_digits_are_a_numeric_label(tiny_lora, tmp_path, label, expected):
    assert generate(tiny_lora, tmp_path, "--count=1", f"--label={label}") == 0

    assert Manifest(tmp_path).samples[0].request.label == expected


def test_a_bare_base_is_drawn_from_a_prompt(tiny_base, tmp_path):
    with pytest.raises(SystemExit) as end:
        main(
            [
                "generate",
                f"--base={tiny_base}",
                "--prompt=a {big|small} fish",
                "--size=[32,40]",
                "--count=2",
                "--steps=1",
                f"--out={tmp_path}",
            ]
        )

    assert end.value.code == 0
    assert read_image(tmp_path / Manifest(tmp_path).samples[0].file).shape == (3, 32, 40)


def test_nothing_to_draw_is_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["generate", f"--out={tmp_path}"])

    assert end.value.code == 1
    assert capsys.readouterr().err == "synthaug generate: there is nothing to draw: give --lora FILE, --prompt TEXT or --plan FILE\n"


def test_a_lora_for_another_base_is_a_sentence_on_the_command_line(tiny_lora, other_base, tmp_path, capsys):
    assert generate(tiny_lora, tmp_path, f"--base={other_base}", "--count=1") == 1

    said = capsys.readouterr().err
    assert said.startswith("synthaug generate: iriko.safetensors was made for base ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--sampler=DDPM", "unknown sampler 'DDPM'; choose one of: DDIM"),
        ("--steps=0", "steps must be 1 to 1000, got 0"),
        ("--device=tpu9", "unknown device 'tpu9'; give auto, cpu, cuda"),
        ("--device=cuda:77", "there is no device 'cuda:77'"),
        ("--batch_size=0", "batch_size must be at least 1, got 0"),
        ("--count=-1", "count must not be negative, got -1"),
    ],
)
def test_a_setting_that_cannot_be_used_is_a_sentence(tiny_lora, tmp_path, capsys, option, sentence):
    assert generate(tiny_lora, tmp_path, "--count=1", option) == 1

    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_an_unknown_option_is_wrong_usage(tiny_lora, tmp_path, capsys):
    assert generate(tiny_lora, tmp_path, "--cuont=3") == 2

    assert "cuont" in capsys.readouterr().err


def test_images_of_another_lora_under_the_same_name_are_not_taken_for_new_ones(tiny_lora, tmp_path, capsys):
    lora, out = tmp_path / "fish.safetensors", tmp_path / "images"
    file = LoraFile.read(tiny_lora)
    file.write(lora)
    assert generate(lora, out, "--count=2") == 0
    assert generate(lora, out, "--count=3") == 0, "the same LoRA goes on"
    layers = {name: replace(layer, up=layer.up * 2) for name, layer in file.layers.items()}
    replace(file, layers=layers).write(lora)

    assert generate(lora, out, "--count=4") == 1

    err = capsys.readouterr().err
    assert "all images of a folder must come from one LoRA" in err
    assert "give --out another folder" in err
    assert len(Manifest(out).samples) == 3
