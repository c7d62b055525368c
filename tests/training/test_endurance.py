from __future__ import annotations

import pytest
import torch
from tiny_networks import tiny_base_of, tiny_batch

from synthaug.errors import NumericsError, SettingError
from synthaug.training import LoraShape, LoraTraining
from synthaug.training.loss import Loss
from synthaug.training.repairs import find_culprit
from synthaug.training.rows import Rows

MIDDLE = "unet.mid_block.attentions.0.transformer_blocks.0"


@pytest.fixture
def module(monkeypatch) -> LoraTraining:
    return module_of(monkeypatch)


def module_of(monkeypatch, base=None, *, shape=None, **settings) -> LoraTraining:
    """A module whose LoRA has learned something, so that gradients go everywhere."""
    monkeypatch.setattr("synthaug.training.frozen.load_base", lambda *_, **__: base or tiny_base_of())
    module = LoraTraining("tiny", shape=shape or LoraShape(rank=2, alpha=2.0, targets="everything"), **settings)
    module.configure_model()
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    torch.manual_seed(5)
    for weight in module.trained.values():
        torch.nn.init.normal_(weight, std=0.1)
    return module


def step(module, batch=None) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Loss and gradient of one step."""
    for weight in module.trained.values():
        weight.grad = None
    loss = module.training_step(batch or tiny_batch(5))
    loss.backward()
    return loss.detach(), [weight.grad for weight in module.trained.values()]


def running_out(monkeypatch, module, *, above: int, error=None) -> list[int]:
    """Let memory hold ``above`` photos and no more; the sizes that were tried are collected."""
    forward, tried = module.forward, []

    def limited(z, *rest):
        tried.append(len(z))
        if len(z) > above:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")
        return forward(z, *rest)

    monkeypatch.setattr(module, "forward", limited)
    return tried


def mixed_batch(count: int = 5) -> dict[str, torch.Tensor]:
    """Masks and regularisation images besides."""
    generator = torch.Generator().manual_seed(7)
    weight = (torch.rand(count, 1, 4, 6, generator=generator) > 0.7).float().clamp_min(0.1)
    return tiny_batch(count) | {"weight": weight, "regular": torch.arange(count) % 2 == 1}


@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("prior", ["images", "base"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(monkeypatch, parts, prior):
    module = module_of(monkeypatch, loss=Loss(prior=prior, prior_weight=0.5))
    whole, expected = step(module, mixed_batch())

    module.micro_batches = parts
    loss, found = step(module, mixed_batch())

    assert torch.allclose(loss, whole, rtol=1e-6)
    assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) < 1e-6
    assert max(float(gradient.abs().max()) for gradient in expected) > 1e-3


def test_the_gradient_is_that_of_an_ordinary_backward_pass(module):
    batch = mixed_batch()
    rows = Rows.drawn(batch, module.loss, (module.alpha, module.sigma), torch.Generator().manual_seed(1))

    expected = torch.autograd.grad(module._losses(rows).mean(), list(module.trained.values()))
    module.endurance.micro_batches = 2
    task = module._task()
    _, found = module.endurance.gradient(rows, task)

    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "error",
    [None, RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes.")],
)
def test_a_step_that_runs_out_of_memory_is_repeated_in_smaller_parts_to_the_same_result(monkeypatch, module, capsys, error):
    whole, expected = step(module)
    tried = running_out(monkeypatch, module, above=2, error=error)

    loss, found = step(module)
    again, _ = step(module)

    assert tried == [5, 3, 2, 2, 1, 2, 2, 1]
    assert module.micro_batches == 4
    assert torch.allclose(loss, whole, rtol=1e-6)
    assert torch.equal(again, loss)
    assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) < 1e-6
    assert capsys.readouterr().out.splitlines() == [repair.what for repair in module.repairs]
    assert (
        "step 0: memory does not hold 5 photos of 32 x 48 at once (precision 32-true, gradient checkpointing false)"
        in module.repairs[0].what
    )
    assert "a batch of 5 is computed in 4 parts, to the same result" in module.repairs[1].what


def test_memory_that_runs_out_in_the_backward_pass_leaves_no_half_gradient(monkeypatch, module):
    whole, expected = step(module)
    grad, calls = torch.autograd.grad, []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return grad(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", failing)
    loss, found = step(module)

    assert (len(calls), module.micro_batches) == (3, 2)
    assert torch.allclose(loss, whole, rtol=1e-6)
    assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) < 1e-6


def test_a_single_photo_that_does_not_fit_is_a_sentence_with_the_numbers(monkeypatch):
    module = module_of(monkeypatch, gradient_checkpointing=True)
    running_out(monkeypatch, module, above=0)

    with pytest.raises(
        SettingError,
        match=r"one of 32 x 48 pixels does not at step 0 \(batch of 3 in 3 parts, precision 32-true, gradient checkpointing true\): "
        r"CUDA out of memory. Tried to allocate 2.00 GiB; use --model.gradient_checkpointing true, a smaller --data.size",
    ):
        step(module, tiny_batch(3))


def test_measuring_that_runs_out_of_memory_is_repeated_in_smaller_parts(monkeypatch, module, capsys):
    logged = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: float(value.detach())}))
    module.validation_step(tiny_batch(5), 0)
    whole = logged.pop("val/loss")
    tried = running_out(monkeypatch, module, above=3)

    module.validation_step(tiny_batch(5), 0)

    assert tried[:3] == [5, 3, 2]
    assert max(tried[3:]) == 3
    assert module.micro_batches == 2
    assert abs(logged["val/loss"] - whole) < 1e-6
    assert "memory does not hold 5 photos of 32 x 48 at once" in capsys.readouterr().out


def test_other_failures_are_not_taken_for_want_of_memory(monkeypatch, module):
    running_out(monkeypatch, module, above=0, error=RuntimeError("shapes cannot be multiplied"))

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        step(module)
    assert module.micro_batches == 1


def overflowing(dtype=torch.float16):
    """Autocast on the CPU, in which a product above 65504 is infinite if the type is fp16."""
    return torch.autocast("cpu", dtype=dtype)


def spoil(module, path: str, factor: float, back: str | None = None) -> None:
    """Make one module's answer large, and the next one's small again, so that in fp32 nothing is wrong."""
    networks = torch.nn.ModuleDict(module.networks)
    networks.get_submodule(path).weight.data *= factor
    networks.get_submodule(path).bias.data *= factor
    if back:
        networks.get_submodule(back).weight.data /= factor


def test_a_module_that_overflows_in_half_precision_is_computed_in_fp32_from_then_on(monkeypatch, capsys):
    module = module_of(monkeypatch, shape=LoraShape(rank=2, alpha=2.0, targets="attention"))
    spoil(module, "unet.time_embedding.linear_1", 1e6, "unet.time_embedding.linear_2")
    exact, _ = step(module)

    with overflowing():
        loss, gradient = step(module)
        again, _ = step(module)

    places = [repair.where for repair in module.repairs]
    assert places[0] == "unet.time_embedding.linear_1"
    assert len(places) <= 2
    assert torch.allclose(loss, exact, rtol=1e-2)
    assert torch.equal(again, loss)
    assert all(torch.isfinite(found).all() for found in gradient)
    said = capsys.readouterr().out.splitlines()
    assert said == [repair.what for repair in module.repairs]
    assert said[0] == (
        "step 0: unet.time_embedding.linear_1 (float16) answered more than half precision holds; it is computed in float32 from here on"
    )


def test_in_bf16_the_same_module_needs_no_repair(monkeypatch):
    module = module_of(monkeypatch, shape=LoraShape(rank=2, alpha=2.0, targets="attention"))
    spoil(module, "unet.time_embedding.linear_1", 1e6, "unet.time_embedding.linear_2")

    with overflowing(torch.bfloat16):
        loss, _ = step(module)

    assert torch.isfinite(loss)
    assert module.repairs == []


def test_a_network_of_which_too_many_modules_overflow_is_computed_in_fp32_as_a_whole(monkeypatch):
    monkeypatch.setattr("synthaug.training.repairs.SINGLY", 1)
    module = module_of(monkeypatch, shape=LoraShape(rank=2, alpha=2.0, targets="attention"))
    spoil(module, "unet.time_embedding.linear_1", 1e6, "unet.time_embedding.linear_2")
    exact, _ = step(module)

    with overflowing():
        loss, _ = step(module)

    assert [repair.where for repair in module.repairs] == ["unet.time_embedding.linear_1", "unet"]
    assert torch.allclose(loss, exact, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_is_infinite_in_fp32_too_stops_with_the_module_and_its_type(monkeypatch, dtype):
    module = module_of(monkeypatch, learning_rate=0.5, shape=LoraShape(rank=2, alpha=2.0, targets="attention"))
    spoil(module, "unet.conv_in", 3e38)
    spoil(module, "unet.conv_in", 1e4)

    with (
        overflowing(dtype),
        pytest.raises(
            NumericsError,
            match=r"the loss must be a number, it is nan at step 0; the first module whose answer is not finite is unet\.conv_in "
            rf"\({str(dtype)[6:]}.*\); use --trainer.precision 32-true, or a learning rate below 0.5",
        ),
    ):
        step(module)
    assert module.repairs == []


def test_a_lora_that_has_run_away_is_told_from_narrow_precision(module):
    name, weight = next((name, weight) for name, weight in module.trained.items() if "lora_A" in name)
    weight.data[0, 0] = torch.nan

    with overflowing(), pytest.raises(NumericsError, match=rf"{name.removesuffix('.weight')} \(float16, its weights are not finite\)"):
        step(module)


def test_a_batch_that_is_not_finite_is_told_from_a_network_that_is_not(module):
    batch = tiny_batch(3)
    batch["states"][1, 2, 3] = torch.inf

    with pytest.raises(NumericsError, match="the batch's own 'states' are not finite, encode the photos again"):
        step(module, batch)


def test_an_operation_between_modules_is_laid_to_the_module_it_is_in():
    class Squares(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.ModuleDict({"first": torch.nn.Linear(2, 2), "second": torch.nn.Linear(2, 2)})

        def forward(self, x):
            return self.inner["second"](self.inner["first"](x) / 0)

    network = torch.nn.Sequential(Squares(), torch.nn.Identity())

    culprit = find_culprit({"unet": network}, lambda: network(torch.ones(1, 2)))

    assert culprit is not None
    assert (culprit.path, culprit.sound) == ("unet.0", True)
    assert find_culprit({"unet": network[1]}, lambda: network[1](torch.ones(1, 2))) is None


def test_repairs_and_parts_go_on_after_a_restart(monkeypatch):
    first = module_of(monkeypatch, shape=LoraShape(rank=2, alpha=2.0, targets="attention"))
    spoil(first, "unet.time_embedding.linear_1", 1e6, "unet.time_embedding.linear_2")
    first.micro_batches = 2
    with overflowing():
        loss, _ = step(first)
    checkpoint: dict = {}
    first.on_save_checkpoint(checkpoint)

    second = module_of(monkeypatch, shape=LoraShape(rank=2, alpha=2.0, targets="attention"))
    spoil(second, "unet.time_embedding.linear_1", 1e6, "unet.time_embedding.linear_2")
    second.on_load_checkpoint(checkpoint)
    count = len(second.repairs)
    with overflowing():
        again, _ = step(second)

    assert torch.equal(again, loss)
    assert (second.micro_batches, len(second.repairs)) == (2, count)
    assert second.repairs == first.repairs
