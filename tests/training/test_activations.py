import copy

import pytest
import torch
from tiny_networks import WIDTH, tiny_unet
from torch import nn

from synthaug.lora.layers import put_on
from synthaug.training.activations import FrozenConv2d, keep_less


def with_lora(seed: int = 0, dropout: float = 0.0):
    """A UNet whose LoRA has learned something."""
    unet = tiny_unet(seed=seed)
    torch.manual_seed(seed)
    for weight in put_on(unet, rank=2, alpha=2.0, dropout=dropout):
        nn.init.normal_(weight, std=0.1)
    return unet.train()


def gradients(unet, **autocast) -> tuple[list[torch.Tensor], float]:
    """Gradient of every trained weight, and how many bytes were kept for it besides weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in unet.parameters()}
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        if value.untyped_storage().data_ptr() not in weights:
            kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    torch.manual_seed(3)
    z, states = torch.randn(2, 4, 16, 24), torch.randn(2, 77, WIDTH)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value), torch.autocast("cpu", **(autocast or {"enabled": False})):
        loss = unet(z, torch.tensor([5, 900]), states, return_dict=False)[0].float().square().mean()
    return list(torch.autograd.grad(loss, [weight for weight in unet.parameters() if weight.requires_grad])), sum(kept.values())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradient_is_the_same_for_less_memory(dropout):
    unet = with_lora(dropout=dropout)
    expected, whole = gradients(unet)
    convolutions, wide = copy.deepcopy(unet), copy.deepcopy(unet)
    keep_less(convolutions, checkpointing=False)
    keep_less(wide, checkpointing="wide")

    same, less = gradients(convolutions)
    again, least = gradients(wide)

    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(same, expected, strict=True))
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(again, expected, strict=True))
    assert less < 0.95 * whole
    assert least < 0.85 * less


def test_in_half_precision_it_is_the_same_too():
    unet = with_lora()
    expected, _ = gradients(unet, dtype=torch.bfloat16)
    keep_less(unet, checkpointing="wide")

    found, _ = gradients(unet, dtype=torch.bfloat16)

    assert all(torch.allclose(a, b, rtol=0.02, atol=1e-4) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"padding": (0, 2), "groups": 2, "bias": False}])
def test_a_frozen_convolution_has_the_gradient_of_its_formula(settings):
    convolution = nn.Conv2d(4, 6, 3, **settings).double().requires_grad_(requires_grad=False)
    x = torch.randn(2, 4, 7, 5, dtype=torch.float64, requires_grad=True)
    expected = convolution(x)
    keep_less(nn.Sequential(convolution), checkpointing=False)

    assert isinstance(convolution, FrozenConv2d)
    assert torch.equal(convolution(x), expected)
    assert torch.autograd.gradcheck(convolution, x)


def test_what_is_trained_and_what_pads_otherwise_stays_as_it_is():
    unet = with_lora()
    mirrored = nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect").requires_grad_(requires_grad=False)

    keep_less(unet, checkpointing="wide")
    keep_less(nn.Sequential(mirrored), checkpointing=False)

    assert type(mirrored) is nn.Conv2d
    assert not any(weight.requires_grad for module in unet.modules() if type(module) is FrozenConv2d for weight in module.parameters())
    assert {type(module) for path, module in unet.named_modules() if path.endswith("lora_A.default")} == {nn.Linear, nn.Conv2d}
