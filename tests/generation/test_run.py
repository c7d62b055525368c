from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from synthaug.cli import main
from synthaug.errors import OutputError
from synthaug.generation import Plan, Sampler, folder
from synthaug.generation.run import draw_into
from synthaug.lora.file import LoraFile
from synthaug.manifest import Manifest
from synthaug.pixels import digest, picture_text, read_image, save_image
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
    """``Sampler.draw`` that draws so many batches and then raises."""
    draw, left = Sampler.draw, iter(range(batches))

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
        assert picture.text["parameters"].startswith("a photo of iriko <lora:iriko:1>\nSteps: 2, Sampler: DPM++ 2M")
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
        patch.setattr(Sampler, "draw", dying(2, KeyboardInterrupt()))
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
    save, done = folder.save_image, []

    def save_three(image, path, **settings):
        if len(done) == 3:
            raise OutputError(f"{path} could not be written (No space left on device); free some space or choose another folder")
        done.append(path)
        save(image, path, **settings)

    monkeypatch.setattr(folder, "save_image", save_three)
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
        ("--sampler=Magic", "unknown sampler 'Magic'; choose one of: DDIM"),
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


def again(picture, out, *more):
    """Draw a picture again and hand back the exit code."""
    with pytest.raises(SystemExit) as end:
        main(["generate", f"--from={picture}", f"--out={out}", *more])
    return end.value.code


@pytest.mark.parametrize("kind", ["png", "webp", "jpg"])
def test_a_picture_of_any_kind_is_drawn_again_from_what_it_says(tiny_lora, tmp_path, capsys, kind):
    assert generate(tiny_lora, tmp_path / "first", "--count=2", "--sampler=Euler a", f"--format={kind}") == 0
    first = Manifest(tmp_path / "first").samples[1]
    assert digest(read_image(tmp_path / "first" / first.file)) == first.sha256

    assert again(tmp_path / "first" / first.file, tmp_path / "second") == 0

    said = capsys.readouterr().out
    assert re.search(r"differ by (\d+) of 255 at most", said)[1] in (("0", "1") if kind != "jpg" else map(str, range(80)))
    assert [sample.request for sample in Manifest(tmp_path / "second").samples] == [first.request]


@pytest.fixture
def moved(tiny_lora, tmp_path):
    """A picture as another program would have saved it, with infotext alone, and its LoRA in a folder elsewhere."""
    assert generate(tiny_lora, tmp_path / "first", "--count=1", "--guidance=3.3", "--clip_skip=1") == 0
    file = tmp_path / "first" / Manifest(tmp_path / "first").samples[0].file
    save_image(read_image(file), tmp_path / "bare.png", text={"parameters": picture_text(file)["parameters"]})
    (tmp_path / "loras" / "fish").mkdir(parents=True)
    shutil.copy(tiny_lora, tmp_path / "loras" / "fish" / tiny_lora.name)
    return tmp_path / "bare.png"


def test_a_picture_is_drawn_again_from_infotext_alone(moved, tmp_path, capsys):
    assert again(moved, tmp_path / "second", f"--lora_folder={tmp_path}/loras") == 0

    assert re.search(r"differ by [01] of 255 at most", capsys.readouterr().out)
    assert Manifest(tmp_path / "second").samples[0].request.loras[0].path == str(tmp_path / "loras" / "fish" / "iriko.safetensors")


def test_another_lora_of_the_same_name_is_not_drawn_with(moved, tmp_path, capsys):
    lora = tmp_path / "loras" / "fish" / "iriko.safetensors"
    file = LoraFile.read(lora)
    replace(file, layers={name: replace(layer, up=layer.up * 2) for name, layer in file.layers.items()}).write(lora)

    assert again(moved, tmp_path / "second", f"--lora_folder={tmp_path}/loras") == 1

    assert "an image is drawn again with the LoRA it was drawn with" in capsys.readouterr().err


def test_another_base_is_not_drawn_with(moved, other_base, tmp_path, capsys):
    assert again(moved, tmp_path / "second", f"--lora_folder={tmp_path}/loras", f"--base={other_base}") == 1

    assert "an image is drawn again with the base it was drawn with" in capsys.readouterr().err


def test_a_picture_that_cannot_be_drawn_again_is_a_sentence(moved, tmp_path, capsys):
    save_image(read_image(moved), tmp_path / "mute.png")

    codes = [again(tmp_path / "mute.png", tmp_path / "o"), again(moved, tmp_path / "o"), again(tmp_path / "no.png", tmp_path / "o")]

    said = capsys.readouterr().err.splitlines()
    assert codes == [1, 1, 1]
    assert "mute.png says nothing of how it was drawn" in said[0]
    assert "the LoRA 'iriko' must lie in one of the given folders as iriko.safetensors, got no folder" in said[1]
    assert "there is no file" in said[2]


def test_a_picture_is_not_compared_with_itself(tiny_lora, tmp_path, capsys):
    generate(tiny_lora, tmp_path, "--count=1")

    assert again(tmp_path / Manifest(tmp_path).samples[0].file, tmp_path) == 1

    assert "an image is drawn again into another folder" in capsys.readouterr().err


def test_a_lora_is_called_by_its_name_in_a_prompt(tiny_lora, tiny_base, tmp_path):
    plain, called = tmp_path / "plain", tmp_path / "called"
    options = ["--steps=1", "--count=1", "--size=32x32"]
    with pytest.raises(SystemExit):
        main(["generate", f"--lora={tiny_lora}", "--lora_weight=0.5", "--prompt=a fish", f"--out={plain}", *options])
    with pytest.raises(SystemExit):
        main(
            [
                "generate", f"--lora_folder={tiny_lora.parent}", f"--base={tiny_base}", "--prompt=a fish <lora:iriko:0.5>",
                f"--out={called}", *options,
            ]
        )  # fmt: skip

    assert not differ(plain, called)


def test_every_setting_of_a_drawing_is_an_option(tiny_lora, tmp_path):
    options = ["--clip_skip=1", "--guidance_rescale=0.5", "--guidance=2", "--size=40x32", "--tiling=false", "--label=7"]
    assert generate(tiny_lora, tmp_path, "--count=1", *options) == 0

    request = Manifest(tmp_path).samples[0].request
    assert (request.guidance_rescale, request.guidance, request.size, request.label) == (0.5, 2.0, (32, 40), 7)


def test_help_tells_what_every_option_is(capsys):
    with pytest.raises(SystemExit) as end:
        main(["generate", "--help"])

    said = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert "--from FROM" in said
    assert "--clip_skip" in said
    assert "--grid.x" in said
    for sentence in ("Denoising steps, 1 to 1000.", "A second pass at a larger size.", "Columns: a field and its values"):
        assert sentence in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--plan=p.yaml", "--steps=3"], "--plan says that already, got --steps, too; leave them out"),
        (["--plan=p.yaml", "--from=a.png"], "one of these says what to draw, got --plan and --from"),
        (["--from=a.png", "--prompt=x"], "--from says that already, got --prompt, too"),
        (["--grid.x=steps: 1"], "a grid varies one image: give --lora FILE or --prompt TEXT, too"),
        (["--plan=p.yaml", "--seed=0"], "--plan says that already, got --seed, too"),
        (["--plan=p.yaml", "--label=bad", "--lora_weight=1"], "--plan says that already, got --label, --lora_weight, too"),
        (["--plan=p.yaml", "--wildcards=w", "--combinations=true"], "got --wildcards, --combinations, too"),
        (["--from=a.png", "--speed=fast"], "--from says that already, got --speed, too"),
        (["--from=a.png", "--image=b.png", "--steps=9"], "--from says that already, got --steps, too"),
        (["--prompt=x", "--lora_weight=0.5"], "--lora_weight needs --lora, got --lora_weight alone"),
        (["--prompt=x", "--image=photo.png"], "a photo at strength 1 would not be looked at, got image 'photo.png'; give --strength 0.75"),
        (["--prompt=x", "--strength=0.5"], "strength below 1 needs a photo, got 0.5 and none; give --image FILE"),
        (["--prompt=x", "--seed=-1"], "seed must be from 0 on, got -1"),
        (["--prompt=x", "--size=wide"], "size must be [HEIGHT,WIDTH] or WIDTHxHEIGHT, got 'wide'"),
        (["--prompt=x", "--lora_folder=nowhere"], "a folder of LoRAs must be there, got nowhere"),
        (["--prompt=x <lora:y:1>"], "a LoRA in a prompt must be the name of one file, got <lora:y:1> in 'x <lora:y:1>', known are: none"),
        (["--prompts_from_file=p.txt", "--count=3"], "--prompts_from_file says that already, got --count, too"),
    ],
)
def test_options_that_would_be_ignored_are_refused(tmp_path, capsys, options, sentence):
    with pytest.raises(SystemExit) as end:
        main(["generate", f"--out={tmp_path}", *options])

    said = capsys.readouterr().err
    assert end.value.code == 1
    assert sentence in said
    assert said.count("\n") == 1


def test_a_file_of_prompts_is_drawn_and_drawn_again_is_nothing_new(tiny_lora, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text(
        'a fish\n\n--prompt "a screw" --seed 5 --n_iter 2 --width 40\n--prompt a fish --outpath_samples fish/left\n'
    )
    options = [f"--prompts_from_file={tmp_path}/prompts.txt"]
    assert generate(tiny_lora, tmp_path / "out", *options) == 0
    assert generate(tiny_lora, tmp_path / "out", *options) == 0

    assert "0 new images" in capsys.readouterr().out.splitlines()[-1]
    requests = [sample.request for sample in Manifest(tmp_path / "out").samples]
    assert [(request.prompt, request.size) for request in requests] == [("a fish", (32, 32)), ("a screw", (32, 40)), ("a screw", (32, 40))]
    assert [request.seed for request in requests[1:]] == [5, 6]
    assert len(Manifest(tmp_path / "out" / "fish" / "left").samples) == 1


def test_a_grid_is_drawn_with_a_sheet(tiny_lora, tmp_path):
    assert generate(tiny_lora, tmp_path, "--grid.x=steps: 1,2", "--grid.y=lora_weight: 0-1 [3]") == 0

    samples = Manifest(tmp_path).samples
    cells = [(sample.request.steps, sample.request.loras[0].weight) for sample in samples]
    assert cells == [(1, 0.0), (2, 0.0), (1, 0.5), (2, 0.5), (1, 1.0), (2, 1.0)]
    sheet = read_image(tmp_path / "grid.png")
    for sample in samples:
        picture = read_image(tmp_path / sample.file)
        assert any(
            torch.equal(sheet[:, y : y + 32, x : x + 32], picture) for y in range(sheet.shape[1] - 31) for x in range(sheet.shape[2] - 31)
        )


def test_wildcards_combinations_and_one_word_for_speed_reach_the_requests(tiny_base, tmp_path, capsys):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "paper.txt").write_text("white paper\n# no\ngrey paper\n")
    options = ["--prompt={a|two} fish on __paper__", f"--wildcards={tmp_path / 'words'}", "--combinations=true", "--speed=fast"]

    with pytest.raises(SystemExit) as end:
        main(["generate", f"--base={tiny_base}", f"--out={tmp_path / 'out'}", "--size=32x32", "--steps=10", *options])
    assert end.value.code == 0

    requests = [sample.request for sample in Manifest(tmp_path / "out").samples]
    assert [request.prompt for request in requests] == [
        "a fish on white paper", "a fish on grey paper", "two fish on white paper", "two fish on grey paper",
    ]  # fmt: skip
    assert {(request.steps, request.reuse) for request in requests} == {(8, 2)}


def test_what_was_odd_about_an_image_stands_in_the_manifest_and_in_the_summary(tiny_lora, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("synthaug.generation.finishing.decode_latents", lambda _, z, **__: torch.full((len(z), 3, 32, 40), 2.0))

    assert generate(tiny_lora, tmp_path, "--count=2") == 0

    assert [sample.repairs for sample in Manifest(tmp_path).samples] == [("blank", "saturated")] * 2
    assert "repaired or odd, image by image in the manifest: blank: 2, saturated: 2" in capsys.readouterr().out


def test_a_folder_of_another_base_is_not_taken_for_done(tiny_base, other_base, tmp_path, capsys):
    def draw(base):
        with pytest.raises(SystemExit) as end:
            main(["generate", "--prompt=a fish", f"--base={base}", "--size=32x32", "--count=1", "--steps=1", f"--out={tmp_path}"])
        return end.value.code

    assert [draw(tiny_base), draw(tiny_base), draw(other_base)] == [0, 0, 1]

    assert "all images of a folder must come from one base" in capsys.readouterr().err


@pytest.fixture
def redrawn(tiny_base, tmp_path):
    """A picture drawn within a mask of a photo, as another program would have saved it; and the command that drew it."""
    for name, level in (("photo", 90), ("mask", 255)):
        save_image(torch.full((3, 32, 32), level, dtype=torch.uint8), tmp_path / f"{name}.png")
    command = [
        "generate", "--prompt=a fish", f"--base={tiny_base}", "--size=32x32", "--count=1", "--steps=2", "--strength=0.5",
        f"--image={tmp_path}/photo.png", f"--mask={tmp_path}/mask.png", f"--out={tmp_path}/first",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 0
    file = tmp_path / "first" / Manifest(tmp_path / "first").samples[0].file
    text = "".join(part for part in re.split(r"(, synthaug (?:image|mask): [^,]+)", picture_text(file)["parameters"])[::2])
    save_image(read_image(file), tmp_path / "bare.png", text={"parameters": text})
    return tmp_path / "bare.png", command


@pytest.mark.parametrize("changed", ["photo", "mask"])
def test_a_folder_of_another_photo_or_mask_is_not_taken_for_done(redrawn, tmp_path, capsys, changed):
    save_image(torch.full((3, 32, 32), 200, dtype=torch.uint8), tmp_path / f"{changed}.png")

    with pytest.raises(SystemExit) as end:
        main(redrawn[1])

    assert end.value.code == 1
    assert f"all images of a folder must come from one {'image' if changed == 'photo' else 'mask'}, " in capsys.readouterr().err


def test_a_picture_of_a_photo_that_it_does_not_hold_is_drawn_again_with_the_photo_alone(redrawn, tmp_path, capsys):
    picture, photo, mask = redrawn[0], f"--image={tmp_path}/photo.png", f"--mask={tmp_path}/mask.png"

    codes = [
        again(picture, tmp_path / "o"),
        again(picture, tmp_path / "o", photo),
        again(picture, tmp_path / "o", photo, photo.replace("image", "mask")),
    ]
    said = capsys.readouterr().err.splitlines()
    base = redrawn[1][2]
    assert again(picture, tmp_path / "second", photo, mask, base) == 0

    assert codes == [1, 1, 1]
    assert "bare.png was drawn from a photo that it does not hold; give --image" in said[0]
    assert "bare.png was drawn from a mask that it does not hold; give --mask" in said[1]
    assert "an image is drawn again with the mask it was drawn with" in said[2]
    assert re.search(r"differ by [01] of 255 at most", capsys.readouterr().out)


@pytest.fixture
def bent(tiny_base, tmp_path):
    """A picture drawn with an embedding, whose file has moved into the folder ``words``."""
    width = Sampler(str(tiny_base)).base.text_encoder.config.hidden_size
    save_file({"emb_params": torch.ones(1, width)}, tmp_path / "finny.safetensors")
    plan = Plan(prompts="a finny fish", base=str(tiny_base), size=(32, 32), steps=1, count=1, embeddings=(f"{tmp_path}/finny.safetensors",))
    draw_into(Manifest(tmp_path / "first"), plan, Sampler(str(tiny_base)))
    (tmp_path / "words").mkdir()
    shutil.move(tmp_path / "finny.safetensors", tmp_path / "words" / "finny.safetensors")
    return tmp_path / "first" / Manifest(tmp_path / "first").samples[0].file


def test_an_embedding_that_has_moved_is_found_and_another_one_of_its_name_is_refused(bent, tmp_path, capsys):
    assert again(bent, tmp_path / "second", f"--lora_folder={tmp_path}/words") == 0
    assert re.search(r"differ by [01] of 255 at most", capsys.readouterr().out)

    save_file({"emb_params": torch.zeros(1, 8)}, tmp_path / "words" / "finny.safetensors")
    assert again(bent, tmp_path / "third", f"--lora_folder={tmp_path}/words") == 1

    assert "an image is drawn again with the embedding it was drawn with" in capsys.readouterr().err
