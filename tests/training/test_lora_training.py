from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from synthaug.diffusion.objective import min_snr_weight, noised
from synthaug.errors import NumericsError, SettingError
from synthaug.lora.file import LoraFile
from synthaug.training import LoraShape, LoraTraining, PhotoData
from synthaug.training.loss import Loss
from synthaug.training.rate import Rate


def trained(base: Path, folder: Path, *, steps: int = 2, **settings) -> LoraTraining:
    module = LoraTraining(str(base), shape=LoraShape(rank=2, alpha=2.0), **settings)
    data = PhotoData(folder, base=str(base), batch_size=2)
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(module, datamodule=data)
    return module


def batch_of(module: LoraTraining, count: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731  # three calls below read better so
    return {
        "mean": draw(count, 4, 4, 4),
        "std": torch.zeros(count, 4, 4, 4),
        "states": draw(count, 77, 16),
        "tokens": torch.zeros(count, 77),
    }


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_training_changes_the_lora_weights_and_nothing_else(photo_folder, tiny_base):
    fresh = LoraTraining(str(tiny_base), shape=LoraShape(rank=2, alpha=2.0))
    fresh.configure_model()
    before = dict(fresh.unet.named_parameters())

    after = dict(trained(tiny_base, photo_folder(5)).unet.named_parameters())

    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("lora_" in name for name in changed)


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_the_text_encoder_is_trained_when_it_has_a_learning_rate(photo_folder, tiny_base):
    module = trained(tiny_base, photo_folder(5), text_learning_rate=1e-2)

    layers = module.layers()["text_encoder"]

    assert layers
    assert any(float(layer.up.abs().max()) > 0 for layer in layers.values())


def test_without_a_text_learning_rate_there_are_no_text_layers(tiny_base):
    module = LoraTraining(str(tiny_base))
    module.configure_model()

    assert module.layers()["text_encoder"] == {}


def test_the_loss_is_the_min_snr_weighted_error_of_the_noise(tiny_base, monkeypatch):
    module = LoraTraining(str(tiny_base), loss=Loss(snr_gamma=5.0))
    module.configure_model()
    seen = {}

    def answer(z, t, text):
        seen.update(z=z, t=t)
        return 0 * next(iter(module.trained.values())).sum() + torch.zeros_like(z)

    monkeypatch.setattr(module, "forward", answer)
    monkeypatch.setattr(module, "log", lambda *_: None)
    batch = batch_of(module)

    loss = module.training_step(batch)

    alpha, sigma = module.alpha[seen["t"]], module.sigma[seen["t"]]
    eps = (seen["z"] - alpha[:, None, None, None] * batch["mean"]) / sigma[:, None, None, None]
    expected = (min_snr_weight((alpha / sigma) ** 2, "epsilon", gamma=5.0) * eps.square().flatten(1).mean(1)).mean()
    assert torch.allclose(noised(batch["mean"], eps, alpha, sigma), seen["z"], atol=1e-5)
    assert torch.allclose(loss, expected, rtol=1e-4)


def test_a_loss_that_is_not_a_number_stops_with_a_way_out(tiny_base, monkeypatch):
    module = LoraTraining(str(tiny_base), learning_rate=0.5)
    module.configure_model()
    monkeypatch.setattr(module, "forward", lambda z, *_: next(iter(module.trained.values())).sum() + torch.full_like(z, torch.nan))

    with pytest.raises(NumericsError, match=r"it is nan at step 0; use --trainer.precision 32-true, or a learning rate below 0.5"):
        module.training_step(batch_of(module))


def test_unknown_targets_are_refused_with_the_choices(tiny_base):
    module = LoraTraining(str(tiny_base), shape=LoraShape(targets="atention"))

    with pytest.raises(SettingError, match=r"unknown choice of LoRA targets 'atention'; choose one of: attention, everything, transformer"):
        module.configure_model()


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_the_second_matrices_and_the_text_encoder_have_step_sizes_of_their_own(photo_folder, tiny_base):
    module = trained(tiny_base, photo_folder(5), steps=1, learning_rate=1e-3, text_learning_rate=1e-4, up_ratio=16.0)

    groups = module.optimizers().optimizer.param_groups
    names = {id(p): name for name, p in module.named_parameters()}

    found = {
        (names[id(p)].split(".")[0], "lora_B" in names[id(p)], round(group["initial_lr"], 6)) for group in groups for p in group["params"]
    }
    assert found == {("unet", False, 1e-3), ("unet", True, 16e-3), ("text_encoder", False, 1e-4), ("text_encoder", True, 16e-4)}


@pytest.mark.parametrize(
    ("course", "steps", "expected"),
    [
        ("cosine", (0, 2, 6, 10), (1 / 3, 1.0, 0.55, 0.1)),
        ("linear", (0, 2, 6, 10), (1 / 3, 1.0, 0.55, 0.1)),
        ("constant", (1, 2, 6, 10), (2 / 3, 1.0, 1.0, 1.0)),
    ],
)
def test_the_rate_warms_up_and_goes_down_to_its_floor(course, steps, expected):
    rate = Rate(course=course, warm_up=2, floor=0.1)

    assert [rate.factor(step, 10) for step in steps] == pytest.approx(expected)
    assert rate.factor(11, 10) == pytest.approx(expected[-1])


def test_text_layers_of_a_start_are_not_lost_in_silence(tiny_base, tmp_path):
    both = LoraTraining(str(tiny_base), shape=LoraShape(rank=2), text_learning_rate=1e-4)
    both.configure_model()
    LoraFile.of(both.layers()["unet"], both.layers()["text_encoder"], {}).write(tmp_path / "both.safetensors")

    with pytest.raises(SettingError, match=r"has layers on the text encoder; give --model.text_learning_rate"):
        LoraTraining(str(tiny_base), start=tmp_path / "both.safetensors").configure_model()

    module = LoraTraining(str(tiny_base), start=tmp_path / "both.safetensors", text_learning_rate=1e-4)
    module.configure_model()
    assert {kind: set(found) for kind, found in module.layers().items()} == {kind: set(found) for kind, found in both.layers().items()}
    assert module.layers()["text_encoder"]
