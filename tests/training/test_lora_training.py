from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from tiny_networks import tiny_base_of, tiny_batch
from torch.optim import SGD

from synthaug.diffusion.objective import min_snr_weight, noised
from synthaug.errors import NumericsError, SettingError
from synthaug.lora.file import LoraFile
from synthaug.training import LoraShape, LoraTraining, PhotoData
from synthaug.training.frozen import store_as
from synthaug.training.loss import Loss
from synthaug.training.rate import Rate
from synthaug.training.rows import Rows


def trained(base: Path, folder: Path, *, steps: int = 2, batch_size: int = 2, parts: int = 1, trainer=None, **settings) -> LoraTraining:
    torch.manual_seed(0)
    module = LoraTraining(str(base), shape=LoraShape(rank=2, alpha=2.0), **settings)
    module.micro_batches = parts
    data = PhotoData(folder, base=str(base), batch_size=batch_size)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(accelerator="cpu", max_steps=steps, **quiet, **(trainer or {})).fit(module, datamodule=data)
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


@pytest.fixture
def in_memory(monkeypatch):
    """Makes a module on a tiny base that is in memory."""

    def make(base=None, *, shape=None, **settings) -> LoraTraining:
        monkeypatch.setattr("synthaug.training.frozen.load_base", lambda *_, **__: base or tiny_base_of())
        module = LoraTraining("tiny", shape=shape or LoraShape(rank=2, alpha=2.0), **settings)
        module.configure_model()
        monkeypatch.setattr(module, "log", lambda *_, **__: None)
        return module

    return make


def learned(module: LoraTraining) -> LoraTraining:
    torch.manual_seed(3)
    for weight in module.trained.values():
        torch.nn.init.normal_(weight, std=0.2)
    return module


def gradient(module: LoraTraining, batch) -> torch.Tensor:
    for weight in module.trained.values():
        weight.grad = None
    module.training_step(batch).backward()
    return torch.cat([weight.grad.flatten() for weight in module.trained.values()])


def test_a_fresh_lora_loses_nothing_to_the_base_on_regularisation_images(in_memory):
    module, batch = in_memory(loss=Loss(prior="base")), tiny_batch(4)

    every = module.training_step(batch | {"regular": torch.ones(4, dtype=torch.bool)})
    none = module.training_step(batch | {"regular": torch.zeros(4, dtype=torch.bool)})

    assert every.item() == 0
    assert none.item() > 0.1


def test_a_lora_that_has_learned_is_drawn_back_to_the_base_and_no_gradient_flows_through_the_base(in_memory):
    module = learned(in_memory(loss=Loss(prior="base", snr_gamma=0)))
    batch = tiny_batch(4) | {"regular": torch.tensor([True, True, False, True])}
    seen = []
    forward = module.forward
    module.forward = lambda z, *rest: seen.append((len(z), torch.is_grad_enabled())) or forward(z, *rest)

    found = gradient(module, batch)

    assert seen == [(3, False), (4, True)]
    assert all(weight.requires_grad for weight in module.trained.values())
    before = module.training_step(batch).item()
    for weight in module.trained.values():
        weight.data -= 1e-2 * weight.grad / found.norm()
    assert module.training_step(batch).item() < before


def test_the_target_of_regularisation_images_is_what_the_base_answers_with_its_own_text_encoder(in_memory):
    module = learned(in_memory(loss=Loss(prior="base"), text_learning_rate=1e-3))
    fresh = in_memory(text_learning_rate=1e-3)
    batch = tiny_batch(3) | {"regular": torch.tensor([False, True, False])}
    rows = Rows.drawn(batch, module.loss, (module.alpha, module.sigma), torch.Generator().manual_seed(0))

    target = module._target(rows)

    with torch.no_grad():
        base = fresh(*fresh._conditions.inputs(rows))
    assert torch.allclose(target[1], base[1], atol=1e-5)
    assert torch.equal(target[0], rows.eps[0])
    assert torch.equal(target[2], rows.eps[2])
    assert not target.requires_grad


def test_regularisation_images_count_with_their_weight_among_photos(in_memory):
    batch = tiny_batch(4)
    regular = torch.tensor([False, True, True, False])
    found = [gradient(learned(in_memory(loss=Loss(prior_weight=weight))), batch | {"regular": regular}) for weight in (0.0, 1.0, 3.0)]

    assert torch.allclose(found[2] - found[0], 3 * (found[1] - found[0]), atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-4)


def test_steps_are_dealt_out_at_random_where_regularisation_images_come_last():
    batch, loss = tiny_batch(4), Loss()
    scales = torch.linspace(0.99, 0.1, 1000), torch.linspace(0.1, 0.99, 1000)
    drawn = [
        Rows.drawn(batch | {"regular": torch.arange(4) > 1}, loss, scales, torch.Generator().manual_seed(seed)).t for seed in range(60)
    ]

    means = torch.stack(drawn).float().mean(0)

    assert float((means - 500).abs().max()) < 150
    assert all(set((times // 250).tolist()) == {0, 1, 2, 3} for times in drawn)


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_accumulated_batches_have_noise_of_their_own(photo_folder, tiny_base, monkeypatch):
    seen = []
    drawn = Rows.drawn.__func__
    monkeypatch.setattr(Rows, "drawn", classmethod(lambda cls, *args: seen.append(drawn(cls, *args)) or seen[-1]))

    trained(tiny_base, photo_folder(5), steps=2, trainer={"accumulate_grad_batches": 2, "gradient_clip_val": 1.0})

    assert len(seen) == 4
    assert not any(torch.equal(seen[0].eps, other.eps) for other in seen[1:])


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_a_run_in_smaller_parts_is_the_same_run(photo_folder, tiny_base):
    folder = photo_folder(5)
    settings = {"trainer": {"gradient_clip_val": 0.01, "accumulate_grad_batches": 2}, "optimizer": SGD, "learning_rate": 10.0}

    whole, parts = (trained(tiny_base, folder, steps=3, batch_size=4, parts=parts, **settings) for parts in (1, 3))

    apart = [(parts.trained[name] - weight).detach().abs().max() for name, weight in whole.trained.items()]
    assert float(max(apart)) < 1e-6
    assert max(float(weight.detach().abs().max()) for name, weight in parts.trained.items() if "lora_B" in name) > 1e-2


def test_frozen_weights_in_half_answer_as_those_that_autocast_converts(in_memory):
    module = learned(in_memory(shape=LoraShape(rank=2, alpha=2.0, targets="everything")))
    batch, found = tiny_batch(3), []
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found.append((module.training_step(batch).item(), gradient(module, batch)))
        store_as(module.unet, torch.bfloat16)

    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    assert module.unet.conv_in.weight.dtype == torch.bfloat16
    assert all(weight.dtype == torch.float32 for weight in module.trained.values())


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)])
def test_the_base_is_kept_in_the_type_that_it_is_computed_in(photo_folder, tiny_base, precision, dtype):
    module = trained(tiny_base, photo_folder(5), trainer={"precision": precision})

    assert module.unet.conv_in.weight.dtype == dtype
    assert module.unet.conv_norm_out.weight.dtype == torch.float32
    assert all(weight.dtype == torch.float32 for weight in module.trained.values())


def test_precision_that_would_change_the_trained_weights_is_refused(photo_folder, tiny_base):
    with pytest.raises(
        SettingError, match=r"must stay in fp32, --trainer.precision bf16-true changes them; choose one of: 32-true, 16-mixed"
    ):
        trained(tiny_base, photo_folder(5), trainer={"precision": "bf16-true"})


def test_dropped_inputs_are_those_of_the_step_whatever_happened_before(in_memory):
    module = learned(in_memory(shape=LoraShape(rank=2, alpha=2.0, dropout=0.5)))
    batch = tiny_batch(3)

    first = module.training_step(batch).item()
    state = torch.get_rng_state()
    torch.randn(7)
    second = module.training_step(batch).item()
    module.seed = 1
    other = module.training_step(batch).item()

    assert first == second
    assert other != first
    assert not torch.equal(torch.get_rng_state(), state)
