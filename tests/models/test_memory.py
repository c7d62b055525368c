"""What is predicted on tensors that hold no numbers, against what the real step and the real sampler allocate."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from synthaug import Sampler
from synthaug.errors import SettingError
from synthaug.models.blueprint import blueprint_of
from synthaug.models.drawing_memory import predict_drawing
from synthaug.models.live import LiveStorages
from synthaug.models.memory import MIB, Forecast
from synthaug.models.training_memory import predict_training
from synthaug.records import Request
from synthaug.training import LoraShape, LoraTraining

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Watch(Callback):
    """Counts the allocations of the second step, with everything that it begins with."""

    def __init__(self):
        self.storages = LiveStorages()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            pl_module.zero_grad()
            self.storages.__enter__()
            moments = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
            self.storages.hold([*pl_module.parameters(), *moments, *batch.values()])

    def on_train_batch_end(self, *about):
        if about[-1] == 1:
            self.storages.__exit__(None, None, None)


def measured_step(base, latents, *, batch_size, checkpointing, rank, precision):
    """Peak MiB of a training step, and the module that took it."""
    plan = blueprint_of(base)
    rows = [
        {
            "mean": torch.randn(plan.channels, *latents),
            "std": torch.full((plan.channels, *latents), 0.1),
            "states": torch.randn(77, plan.width),
        }
        for _ in range(2 * batch_size)
    ]
    module = LoraTraining(base, shape=LoraShape(rank=rank, alpha=1.0), gradient_checkpointing=checkpointing)
    watch = Watch()
    trainer = Trainer(accelerator="cpu", max_steps=2, precision=precision, callbacks=[watch], **QUIET)
    trainer.fit(module, DataLoader(rows, batch_size=batch_size))
    return watch.storages.peak / MIB, module


def like(module):
    """Has a network run through the very classes that a module's network runs through."""

    def prepare(unet):
        for path, real in module.unet.named_modules():
            unet.get_submodule(path).__class__ = type(real)

    return prepare


def measured_drawing(base, size, *, batch_size, guidance):
    """Peak MiB of a call of the sampler."""
    sampler = Sampler(base, device="cpu")
    requests = [Request(prompt="a fish", seed=seed, steps=2, size=size, guidance=7.0 if guidance else 1.0) for seed in range(batch_size)]
    loaded = sampler.base
    with LiveStorages() as watch:
        for network in (loaded.unet, loaded.vae, loaded.text_encoder):
            watch.hold([*network.parameters(), *network.buffers()])
        sampler(requests)
    return watch.peak / MIB


def is_close(forecast: Forecast, measured: float) -> bool:
    return -0.05 <= forecast.tensors / measured - 1 <= 0.10


TRAINING = [
    ((32, 32), 1, False, 2, "32-true"),
    ((64, 32), 4, True, 4, "32-true"),
    ((64, 64), 8, False, 2, "bf16-mixed"),
    ((32, 48), 4, False, 4, "32-true"),
    ((64, 64), 2, True, 8, "bf16-mixed"),
    ((96, 64), 3, True, 2, "32-true"),
]
DRAWING = [((32, 40), 1, True), ((64, 64), 4, True), ((32, 32), 3, False), ((64, 64), 1, False), ((64, 48), 8, True), ((96, 64), 2, True)]


def half_of_them_slow(settings):
    """The first three are tried in every run of the tests, the others in the slow one."""
    return [*settings[:3], *(pytest.param(*values, marks=pytest.mark.slow) for values in settings[3:])]


@pytest.mark.filterwarnings("ignore:Found .* in eval mode", "ignore:You defined a .validation_step.")
@pytest.mark.parametrize(("size", "batch_size", "checkpointing", "rank", "precision"), half_of_them_slow(TRAINING))
def test_the_peak_of_a_training_step_is_predicted(tiny_base, size, batch_size, checkpointing, rank, precision):
    latents = (size[0] // 8, size[1] // 8)
    peak, module = measured_step(
        str(tiny_base), latents, batch_size=batch_size, checkpointing=checkpointing, rank=rank, precision=precision
    )

    forecast = predict_training(
        str(tiny_base), size=size, batch_size=batch_size, checkpointing=checkpointing, rank=rank, device="cpu", prepare=like(module),
        precision={"32-true": "fp32", "bf16-mixed": "bf16"}[precision],
    )  # fmt: skip

    assert is_close(forecast, peak), (forecast.parts, forecast.tensors, peak)


@pytest.mark.parametrize(("size", "batch_size", "guidance"), half_of_them_slow(DRAWING))
def test_the_peak_of_drawing_is_predicted(tiny_base, size, batch_size, guidance):
    peak = measured_drawing(str(tiny_base), size, batch_size=batch_size, guidance=guidance)

    forecast = predict_drawing(str(tiny_base), size=size, batch_size=batch_size, guidance=guidance, precision="fp32", device="cpu")

    assert is_close(forecast, peak), (forecast.parts, forecast.tensors, peak)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Found .* in eval mode", "ignore:You defined a .validation_step.")
@pytest.mark.parametrize(
    ("batch_size", "checkpointing", "precision"), [(1, False, "32-true"), (8, False, "bf16-mixed"), (8, True, "32-true")]
)
def test_the_peak_of_training_on_pocket_is_predicted(batch_size, checkpointing, precision):
    peak, module = measured_step("pocket", (16, 16), batch_size=batch_size, checkpointing=checkpointing, rank=16, precision=precision)

    forecast = predict_training(
        "pocket", batch_size=batch_size, checkpointing=checkpointing, device="cpu", prepare=like(module),
        precision={"32-true": "fp32", "bf16-mixed": "bf16"}[precision],
    )  # fmt: skip

    assert is_close(forecast, peak), (forecast.parts, forecast.tensors, peak)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "batch_size", "guidance"), [((128, 128), 1, True), ((128, 128), 2, False), ((64, 96), 4, True)])
def test_the_peak_of_drawing_on_pocket_is_predicted(size, batch_size, guidance):
    peak = measured_drawing("pocket", size, batch_size=batch_size, guidance=guidance)

    forecast = predict_drawing("pocket", size=size, batch_size=batch_size, guidance=guidance, precision="fp32", device="cpu")

    assert is_close(forecast, peak), (forecast.parts, forecast.tensors, peak)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("predict", "settings", "at_most"),
    [
        (predict_training, {"base": "sd15", "checkpointing": True}, 3 * 1024),
        (predict_training, {"base": "sd15", "checkpointing": False}, 3.8 * 1024),
        (predict_drawing, {"base": "sd15", "batch_size": 1}, 3 * 1024),
        (predict_drawing, {"base": "sd15", "batch_size": 4}, 4.5 * 1024),
        (predict_training, {"base": "sdxl", "precision": "bf16", "rank": 8, "targets": "attention"}, 7.5 * 1024),
        (predict_drawing, {"base": "sdxl", "precision": "bf16"}, 7.5 * 1024),
    ],
)
def test_the_published_bases_fit_small_cards(predict, settings, at_most):
    assert predict(**settings).peak <= at_most


def test_what_passes_one_after_the_other_counts_once():
    forecast = Forecast(kept={"weights": 5.0, "LoRA": 1.0}, passing={"UNet": 3.0, "decoding": 7.0}, beyond={"context": 2.0})

    assert forecast.tensors == 13.0
    assert forecast.peak == 15.0


def test_a_side_that_is_no_multiple_of_a_place_is_refused():
    with pytest.raises(SettingError, match=r"multiples of 8 pixels, got \(60, 64\)"):
        predict_drawing("pocket", size=(60, 64))


def test_a_batch_of_none_is_refused():
    with pytest.raises(SettingError, match="batch_size must be at least 1, got 0"):
        predict_training("pocket", batch_size=0)


def test_an_allocation_is_counted_until_its_last_view_is_gone():
    with LiveStorages() as watch:
        whole = torch.zeros(1000)
        view = whole[:10]
        del whole
        held = watch.live
        del view

    assert held == 4096  # 4,000 bytes in blocks of 512
    assert watch.live == 0
    assert watch.peak == 4096
