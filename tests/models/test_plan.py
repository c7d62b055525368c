from __future__ import annotations

import json

import pytest
from checkpoints import bare_file

from synthaug.cli import main
from synthaug.errors import SettingError
from synthaug.models.blueprint import blueprint_of
from synthaug.models.cards import Card
from synthaug.models.fitting import Settings, fit_settings, precision_words, precisions_for
from synthaug.models.load import load_base
from synthaug.models.memory import Forecast
from synthaug.models.plan import plan


def card(memory, capability=(8, 6), name="a card"):
    return Card(name=name, memory=memory, capability=capability)


@pytest.fixture
def by_rule(monkeypatch):
    """Forecasts by a rule instead of a run: 100 MiB, and of each picture 10, or 4 with checkpointing or a tiny decoder."""

    def predicted(self, plan, *, prepare=None, beside=0.0):
        share = self.size[0] * self.size[1] / 512**2
        of_each = (4 if self.checkpointing or self.decoder == "tiny" else 10) * self.precision.storage.itemsize / 2
        name = "activations and gradients" if self.task == "fit" else "UNet's call"
        made = Forecast(kept={"weights": 100.0 + beside}, passing={name: share * of_each * self.batch_size})
        return Settings(**{**self.__dict__, "forecast": made})

    monkeypatch.setattr(Settings, "predicted", predicted)


def fitted(task, memory, *, batches=(4, 2, 1), capability=(8, 6), **more):
    here = card(memory, capability)
    wanted = Settings(task=task, size=(512, 512))
    return fit_settings(blueprint_of("sd15"), here, wanted, batches=batches, precisions=precisions_for(here, "auto", task), **more)


@pytest.mark.parametrize(
    ("memory", "batch_size", "checkpointing"), [(140, 4, False), (139, 4, True), (116, 4, True), (115, 2, True), (104, 1, True)]
)
def test_the_larger_batch_goes_before_the_faster_step(by_rule, memory, batch_size, checkpointing):
    found = fitted("fit", memory)

    assert (found.batch_size, found.checkpointing) == (batch_size, checkpointing)


@pytest.mark.parametrize(
    ("memory", "batch_size", "decoder"), [(140, 4, "full"), (139, 2, "full"), (110, 1, "full"), (109, 2, "tiny"), (104, 1, "tiny")]
)
def test_the_full_decoder_goes_before_the_larger_batch(by_rule, memory, batch_size, decoder):
    found = fitted("generate", memory)

    assert (found.batch_size, found.decoder) == (batch_size, decoder)


def test_pascal_trains_in_fp32_where_it_fits_and_in_halves_where_not(by_rule):
    roomy, tight = (fitted("fit", memory, capability=(6, 1)) for memory in (200, 105))

    assert precision_words(roomy.precision) == "fp32"
    assert precision_words(tight.precision) == "fp16"


def test_what_cannot_fit_is_refused_by_how_much_and_with_the_nearest_that_does(by_rule):
    with pytest.raises(
        SettingError, match=r"takes 140 MiB, a card has 120 MiB, 20 too few; what fits is size 512 x 512, batch 1, bf16, without"
    ):
        fitted("fit", 120, batches=(4,), checkpointing=(False,))
    with pytest.raises(
        SettingError, match=r"takes 104 MiB, a card has 103 MiB, 1 too few; what fits is size 384 x 384, batch 1, .* with gradient"
    ):
        fitted("fit", 103)
    with pytest.raises(SettingError, match="nothing smaller fits either, take a smaller base"):
        fitted("fit", 99)


def test_memory_for_another_program_is_taken_off(by_rule):
    assert fitted("fit", 140, beside=30.0).batch_size == 2


def test_the_command_prints_every_part_and_what_is_left(capsys):
    plan(task="generate", base="pocket", vram="1GiB", batch_size=2)

    said = capsys.readouterr().out
    assert "a card of 1GiB: 1,024 MiB" in said
    assert "synthaug generate, pocket: size 128 x 128, batch 2, bf16, full decoder, with guidance" in said
    for part in ("UNet ", "autoencoder ", "UNet's call ", "decoding ", "driver's context ", "peak "):
        assert f"  {part}" in said
    assert "nobody published this card's rate" in said


def test_the_owner_of_a_gtx_10_is_told_which_build_to_install(by_rule, capsys):
    plan(task="fit", base="pocket", card="GTX 1080", batch_size=1, checkpointing=False)

    said = capsys.readouterr().out
    assert "compute capability 6.1\ninstall torch 2.6 to 2.14 built for CUDA 12.6 (cu126)" in said
    assert "batch 1, fp32" in said


def test_the_articles_profile_plans_both_tasks_with_their_times(by_rule, capsys):
    plan(base="pocket", card="GTX 1080", profile="article", json=True)

    training, drawing = json.loads(capsys.readouterr().out)
    assert (training["task"], training["size"], training["batch_size"], training["count"]) == ("fit", [512, 512], 1, 46)
    assert (drawing["task"], drawing["size"], drawing["batch_size"], drawing["count"]) == ("generate", [512, 512], 4, 4)
    assert training["seconds"] == pytest.approx(training["operations"] / 4.3e12)
    assert drawing["peak"] == pytest.approx(
        sum(drawing["kept"].values()) + max(drawing["passing"].values()) + sum(drawing["beyond"].values()), abs=1
    )


def test_a_mistake_ends_in_a_sentence(capsys):
    with pytest.raises(SystemExit, match=r"^1$"):
        main(["plan", "--base", "pocket", "--vram", "much"])

    assert capsys.readouterr().err.startswith("synthaug plan: a card's memory must be a number and a unit")


def test_the_blueprint_of_a_file_has_the_networks_that_are_loaded(sd1, tmp_path):
    base, _ = sd1
    base.tokenizer.save_pretrained(tmp_path / "tokenizer")
    file = bare_file(base, tmp_path / "base.safetensors")
    loaded = load_base(str(file))

    found = blueprint_of(str(file))

    for made, real in ((found.build_unet(), loaded.unet), (found.build_vae(), loaded.vae), (found.build_texts()[0], loaded.text_encoder)):
        assert {name: tuple(weight.shape) for name, weight in made.named_parameters()} == {
            name: tuple(weight.shape) for name, weight in real.named_parameters()
        }
    assert found.size == loaded.size
