from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from synthaug.errors import SettingError, UnusableFileError
from synthaug.generation import Sampler
from synthaug.pocket import evaluate
from synthaug.pocket.evaluate import draw
from synthaug.pocket.judge import ANSWERS, Judge, judge_from, train_judge
from synthaug.pocket.likeness import compare_with_renders, tone_differences
from synthaug.pocket.pictures import PictureSet, render_part
from synthaug.pocket.spot_check import FIGURES, spot_check


@pytest.fixture(scope="module")
def renders(tmp_path_factory):
    """Sixty small renders; the last twenty are kept back."""
    folder = tmp_path_factory.mktemp("renders")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synthaug.pocket.pictures.PART", 20)
        for part in range(3):
            render_part(part, folder=folder, seed=3, size=32)
        yield PictureSet(folder)


def test_the_shipped_weights_are_as_good_as_their_committed_figures():
    sampler = Sampler("pocket", device="cpu")
    stated = json.loads(FIGURES.read_text())

    found = spot_check(lambda prompts: draw(sampler, prompts, seed=10))

    assert found.keys() == stated.keys()
    psnr, own, other = list(stated)[:3]
    assert found[psnr] == pytest.approx(stated[psnr], abs=0.1)
    assert found[own] == pytest.approx(stated[own], rel=0.02)
    assert found[own] < found[other], "the captions must matter"
    for name in list(stated)[3:]:
        assert found[name] == pytest.approx(stated[name], abs=0.08)


def test_a_judge_learns_and_its_accuracy_is_that_on_pictures_it_has_not_seen(renders, monkeypatch):
    monkeypatch.setattr("synthaug.pocket.judge.KEPT_BACK", 20)
    monkeypatch.setattr("synthaug.pocket.judge.BATCH", 10)

    judge, accuracy = train_judge(renders, count=60, epochs=45)

    pixels = torch.from_numpy(renders.pixels(list(range(20)))).permute(0, 3, 1, 2)
    given = judge.answers(pixels)["thing"]
    right = [answer == (renders.facts[row]["thing"] or "nothing") for row, answer in enumerate(given)]
    assert sum(right) / 20 > 0.6, "it must at least know what it was taught"
    assert accuracy.keys() == {*ANSWERS, "flaw, where there is one"}
    held_out = torch.from_numpy(renders.pixels(list(range(40, 60)))).permute(0, 3, 1, 2)
    grounds = [answer == renders.facts[row]["ground"] for row, answer in zip(range(40, 60), judge.answers(held_out)["ground"], strict=True)]
    assert accuracy["ground"] == sum(grounds) / 20


def test_a_judge_is_trained_once_and_taken_from_its_file_after_that(renders, tmp_path, monkeypatch):
    monkeypatch.setattr("synthaug.pocket.judge.KEPT_BACK", 20)
    monkeypatch.setattr("synthaug.pocket.judge.BATCH", 10)
    first, accuracy = judge_from(tmp_path / "judge.pt", renders, count=60)
    monkeypatch.setattr("synthaug.pocket.judge.train_judge", None)

    again, same = judge_from(tmp_path / "judge.pt", renders)

    assert same == accuracy
    assert all(torch.equal(first.state_dict()[name], weight) for name, weight in again.state_dict().items())
    monkeypatch.setitem(ANSWERS, "flaw", ["nothing", "rust"])
    with pytest.raises(UnusableFileError, match=r"judge.pt knows others; delete it to train one"):
        judge_from(tmp_path / "judge.pt", renders)


def test_too_few_renders_for_a_judge_are_refused(renders):
    with pytest.raises(SettingError, match="a judge needs more than 1064 renders, got 60"):
        train_judge(renders)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--data", "nowhere", "--parts", "autoencoder"), "error: --data must hold fish_on_white and paper_defects, there is no nowhere"),
        (("--each", "0"), "error: --each must be at least 1, got 0"),
        (("--alike", "5000"), "error: --alike must be 2 to 1000"),
    ],
)
def test_mistakes_at_the_command_are_sentences(words, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate", *words, "--out", str(tmp_path)])

    with pytest.raises(SystemExit, match=sentence):
        evaluate.main()


def test_without_its_recipe_the_command_says_where_to_run_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evaluate", "--data", str(tmp_path), "--out", str(tmp_path)])

    with pytest.raises(SystemExit, match=r"error: the LoRAs need their recipe recipes/iriko.yaml; run this in the repository"):
        evaluate.main()


def test_a_judge_answers_every_question_for_every_picture():
    given = Judge().answers(torch.zeros(3, 3, 64, 64, dtype=torch.uint8))

    assert given.keys() == ANSWERS.keys()
    assert all(len(answers) == 3 and set(answers) <= set(ANSWERS[name]) for name, answers in given.items())


def test_training_renders_drawn_again_are_near_copies_and_held_out_ones_are_not(renders, monkeypatch):
    monkeypatch.setattr("synthaug.pocket.likeness.CANDIDATES", 4)
    monkeypatch.setattr("synthaug.pocket.likeness.KEPT_BACK", 20)
    copied = torch.from_numpy(renders.pixels(list(range(10)))).permute(0, 3, 1, 2).contiguous()
    own = torch.from_numpy(renders.pixels(list(range(50, 60)))).permute(0, 3, 1, 2).contiguous()

    figures = {name: compare_with_renders(renders, lambda _prompts, images=images: images, count=10) for name, images in
               (("copied", copied), ("own", own))}  # fmt: skip

    copies, distance = "near-copies among 40 training renders", "distance to the nearest render over held-out renders' own"
    assert figures["copied"][copies][0] == 1
    assert figures["copied"][distance][0] < 0.01
    assert figures["own"][distance][0] == pytest.approx(1)
    assert figures["own"][copies][0] < 0.5


def test_a_brighter_set_is_said_to_be_brighter_by_as_much():
    renders = torch.randint(0, 120, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    renders[4:] = renders[4:] // 2

    found = tone_differences((renders.float() * 1.5).to(torch.uint8), renders)

    assert found["brightness of drawn images against renders, mean"] == pytest.approx(0.5, abs=0.02)
    assert found["brightness of drawn images against renders, spread"] == pytest.approx(0.5, abs=0.02)
    assert tone_differences(renders, renders)["colour of drawn images against renders, mean"] == 0


@pytest.mark.slow
def test_the_command_says_what_it_leaves_out_without_photos(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "synthaug.pocket.evaluate", "--parts", "spot", "--out", str(tmp_path / "found")],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )  # fmt: skip

    assert "the autoencoder on photos, the sheet beside photos and the LoRAs are left out" in run.stdout
    assert json.loads((tmp_path / "found" / "figures.json").read_text())["minutes in all"] > 0
