from __future__ import annotations

import argparse
import copy

import pytest
import torch
from conftest import tiny_text

from synthaug.errors import SettingError
from synthaug.generation import Sampler
from synthaug.lora.file import LoraFile
from synthaug.models.base import Base, fingerprint
from synthaug.pocket import WEIGHTS, distill
from synthaug.pocket.distill import Student, Teacher, Teaching
from synthaug.pocket.networks import DenoiserShape, build_denoiser, build_schedule
from synthaug.records import Request


@pytest.fixture(scope="module")
def small():
    """Pocket with a denoiser of a few thousand weights."""
    from transformers import CLIPTextModel, CLIPTokenizer

    def make():
        torch.manual_seed(0)
        tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
        config = tiny_text(tokenizer)
        config.hidden_size, config.intermediate_size = 128, 16
        unet = build_denoiser(DenoiserShape(widths=(16, 32))).eval()
        for weight in unet.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.05)
        schedule = dict(build_schedule().config)
        return Base(
            name="pocket", schedule=schedule, size=(128, 128), unet=unet, text_encoder=CLIPTextModel(config).eval(), tokenizer=tokenizer,
            fingerprint=fingerprint(unet),
        )  # fmt: skip

    return make


SETTINGS = Teaching(rank=4, conv_rank=2, inner=2, learning_rate=5e-3)


def runs_of(base, count=4):
    captions = [f"a photo of a fish {row}" for row in range(count)]
    teacher = Teacher(base, SETTINGS)
    return teacher.draw(torch.randn(count, 16, 4, 4, generator=torch.Generator().manual_seed(0)), captions), teacher.spelled(captions)


def test_the_teacher_draws_what_our_sampler_draws_in_as_many_steps(monkeypatch):
    sampler, settings = Sampler("pocket"), Teaching(phases=2, inner=2)
    wanted = Request(prompt="a photo of a fish", seed=7, steps=4, sampler="DDIM", guidance=settings.guidance)
    noise = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(7))

    runs = Teacher(sampler.base, settings).draw(noise, ["a photo of a fish"])

    latents = sampler.draw([wanted]).latents
    assert runs.shape == (1, 3, 16, 16, 16)
    assert torch.equal(runs[:, 0], noise)
    assert (runs[:, -1] - latents).norm() / latents.norm() < 0.05  # bf16, and the schedule's very end


def test_what_is_learned_comes_nearer_to_the_teacher(small):
    base = small()
    runs, states = runs_of(base)
    student, phases = Student(base, SETTINGS, steps=25), [0, 1, 2, 3]
    before = float(student.loss(runs, states, phases).detach())

    for _ in range(25):
        student.learn(runs, states, phases)

    assert float(student.loss(runs, states, phases).detach()) < 0.7 * before


def test_learning_goes_on_where_it_stopped(small):
    base = small()
    runs, states = runs_of(base)
    whole = Student(base, SETTINGS, steps=6)
    for _ in range(3):
        whole.learn(runs, states, [0, 1, 2, 3])
    kept = copy.deepcopy(whole.state())
    rest = [whole.learn(runs, states, [0, 1, 2, 3]) for _ in range(3)]

    again = Student(small(), SETTINGS, steps=6, seed=1)
    again.restore(kept)

    assert [again.learn(runs, states, [0, 1, 2, 3]) for _ in range(3)] == pytest.approx(rest, rel=1e-3)


def test_the_command_goes_on_and_writes_a_file_that_knows_its_base(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distill, "load_base", lambda *_, **__: small())
    monkeypatch.setattr(distill, "PART", 2)
    monkeypatch.setattr(distill, "Teaching", lambda: Teaching(phases=2, inner=1, rank=2, conv_rank=2))
    args = argparse.Namespace(folder=tmp_path, out=tmp_path / "few.safetensors", runs=3, steps=2, batch_size=2, seed=0)
    distill.distil(args)
    args.steps = 3

    distill.distil(args)

    said = capsys.readouterr().out
    assert said.count("drawn") == 2
    assert "step 3 of 3" in said
    file = LoraFile.read(args.out)
    assert (file.base, file.metadata["synthaug.base_hash"]) == ("pocket", small().fingerprint)
    assert (file.metadata["synthaug.few_steps"], file.metadata["synthaug.steps"]) == ("2", "3")
    args.steps = 1
    with pytest.raises(SettingError, match=r"student.pt is at 3; give more, or delete that file"):
        distill.distil(args)
