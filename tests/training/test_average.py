from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from synthaug.errors import SettingError
from synthaug.training import LoraShape, LoraTraining, PhotoData
from synthaug.training.average import WeightAverage
from synthaug.training.rate import Rate

pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode", "ignore:.*does not have many workers", "ignore:Be aware that when")


def fitted(base, folder, *, steps: int, ckpt=None, save=None, held_out: int = 0, **settings) -> tuple[LoraTraining, Trainer]:
    torch.manual_seed(0)
    module = LoraTraining(str(base), shape=LoraShape(rank=2, alpha=2.0, dropout=0.2), **settings)
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=PhotoData(folder, base=str(base), batch_size=2, held_out=held_out), ckpt_path=ckpt, weights_only=False)
    if save is not None:
        trainer.save_checkpoint(save)
    return module, trainer


def written(module: LoraTraining) -> dict[str, torch.Tensor]:
    return {path: layer.up for path, layer in module.layers()["unet"].items()}


def test_the_average_follows_the_formula_and_is_kept_in_fp32():
    weight, average = nn.Parameter(torch.tensor([3.0], dtype=torch.float16)), WeightAverage(0.9)
    expected, weights = 3.0, {"w": weight}
    average.follow(weights)
    for count in range(1, 40):
        weight.data += 1
        average.follow(weights)
        kept = min(0.9, (1 + count) / (10 + count))
        expected = kept * expected + (1 - kept) * weight.item()

    assert average.state()["means"]["w"].dtype == torch.float32
    assert float(average.state()["means"]["w"]) == pytest.approx(expected, rel=1e-6)


def test_weights_come_back_bit_for_bit_even_after_a_failure():
    weight, average = nn.Parameter(torch.tensor([0.1, 7.0])), WeightAverage(0.5)
    average.follow({"w": weight})
    weight.data = torch.tensor([0.3, 5.0])

    def fail() -> None:
        with average.shown({"w": weight}):
            assert torch.equal(weight.data, torch.tensor([0.1, 7.0]))
            raise RuntimeError("the lights went out")

    with pytest.raises(RuntimeError, match="lights"):
        fail()
    assert torch.equal(weight.data, torch.tensor([0.3, 5.0]))


def test_what_is_written_is_the_average_and_what_is_trained_the_weights(photo_folder, tiny_base):
    folder = photo_folder(5)
    plain, _ = fitted(tiny_base, folder, steps=4)

    averaged, _ = fitted(tiny_base, folder, steps=4, ema=0.9)

    assert all(torch.equal(plain.trained[name], weight) for name, weight in averaged.trained.items())
    sizes = [sum(float(up.square().sum()) for up in written(module).values()) for module in (plain, averaged)]
    assert 0 < sizes[1] < sizes[0]


def test_the_loss_on_photos_kept_back_is_that_of_the_average(photo_folder, tiny_base, monkeypatch):
    module, _ = fitted(tiny_base, photo_folder(6), steps=4, ema=0.9)
    monkeypatch.setattr(module, "log", lambda _, value, **__: logged.append(value.item()))
    module.eval()
    logged: list[float] = []
    generator = torch.Generator().manual_seed(0)
    batch = {"mean": torch.randn(2, 4, 4, 4, generator=generator), "states": torch.randn(2, 77, 16, generator=generator)}

    module.validation_step(batch, 0)
    with module._shown():
        shown = {name: weight.detach().clone() for name, weight in module.trained.items()}
    module.average = None
    module.validation_step(batch, 0)
    for name, weight in module.trained.items():
        weight.data = shown[name]
    module.validation_step(batch, 0)

    assert logged[0] == logged[2]
    assert logged[0] != logged[1]


def test_a_resumed_run_has_the_same_weights_and_the_same_average_bit_for_bit(photo_folder, tiny_base, tmp_path):
    folder = photo_folder(5)
    whole, _ = fitted(tiny_base, folder, steps=4, ema=0.9, rate=Rate(course="constant"))

    fitted(tiny_base, folder, steps=2, ema=0.9, rate=Rate(course="constant"), save=tmp_path / "half.ckpt")
    resumed, _ = fitted(tiny_base, folder, steps=4, ema=0.9, rate=Rate(course="constant"), ckpt=tmp_path / "half.ckpt")

    assert all(torch.equal(whole.trained[name], weight) for name, weight in resumed.trained.items())
    before, after = written(whole), written(resumed)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(float(up.abs().max()) > 0 for up in after.values())


def test_a_run_without_an_average_is_not_resumed_with_one(photo_folder, tiny_base, tmp_path):
    folder = photo_folder(5)
    fitted(tiny_base, folder, steps=1, save=tmp_path / "plain.ckpt")

    with pytest.raises(SettingError, match=r"a run must be resumed as it was begun, ema was 0 and is 0\.9; leave --model.ema out"):
        fitted(tiny_base, folder, steps=2, ema=0.9, ckpt=tmp_path / "plain.ckpt")


@pytest.mark.parametrize("ema", [-0.1, 1.0])
def test_a_decay_outside_of_its_range_is_refused(ema):
    with pytest.raises(SettingError, match=f"ema must be from 0 to below 1; 0 is none, 0.99 is usual, got {ema}"):
        LoraTraining(ema=ema)


class Free(torch.optim.SGD):
    """Shows other weights than it steps from, as schedule-free optimisers do."""

    stepping = False

    def train(self) -> None:
        self._move(by=1.0) if not self.stepping else None
        self.stepping = True

    def eval(self) -> None:
        self._move(by=-1.0) if self.stepping else None
        self.stepping = False

    @torch.no_grad()
    def _move(self, *, by: float) -> None:
        for group in self.param_groups:
            torch._foreach_add_(group["params"], by)

    def step(self, *args, **kwargs):
        assert self.stepping
        return super().step(*args, **kwargs)


def test_an_optimiser_with_two_sets_of_weights_shows_those_that_are_to_be_used(photo_folder, tiny_base):
    module, trainer = fitted(tiny_base, photo_folder(5), steps=2, optimizer=lambda groups: Free(groups, lr=0.0), learning_rate=1e-12)

    stepped_from = {name: weight.detach().clone() for name, weight in module.trained.items()}
    ups = written(module)

    name = next(iter(ups))
    own = stepped_from[f"unet.{name}.lora_B.default.weight"]
    assert torch.allclose(ups[name], own - 1, atol=1e-5)
    assert trainer.optimizers[0].stepping
