from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Muon

from synthaug.pocket.optimizers import MuonAndAdamW, warm_stable_decay


def small_network():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"embedding": nn.Embedding(20, 16), "conv": nn.Conv2d(2, 16, 3, padding=1), "norm": nn.GroupNorm(4, 16), "line": nn.Linear(16, 17)}
    )


def loss_of(net, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 2, 5, 7, generator=generator)
    rows = torch.randint(20, (3,), generator=generator)
    return (net["line"](net["norm"](net["conv"](x)).mean((2, 3)) + net["embedding"](rows)) - 1).square().mean()


def steps(net, optimizer, seeds):
    for seed in seeds:
        optimizer.zero_grad()
        loss_of(net, seed).backward()
        optimizer.step()


def weights(net):
    return {name: weight.detach().clone() for name, weight in net.named_parameters()}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_matrices_and_kernels_go_to_muon_and_the_rest_to_adamw(layout):
    ours, theirs = small_network().to(memory_format=layout), small_network().to(memory_format=layout)
    small = [weight for name, weight in theirs.named_parameters() if name not in ("conv.weight", "line.weight")]
    kernel, line = theirs["conv"].weight, theirs["line"].weight
    as_matrix = kernel.detach().permute(0, 2, 3, 1) if layout is torch.channels_last else kernel.detach()
    matrix = nn.Parameter(as_matrix.reshape(16, -1).clone())
    muon = Muon([matrix, line], lr=1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adamw = AdamW(small, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)

    steps(ours, MuonAndAdamW(ours.named_parameters(), lr=1e-2, small_lr=1e-3), [1])
    loss_of(theirs, 1).backward()
    gradient = kernel.grad.permute(0, 2, 3, 1) if layout is torch.channels_last else kernel.grad
    matrix.grad = gradient.reshape(16, -1)
    muon.step()
    adamw.step()

    found = ours["conv"].weight.detach()
    found = found.permute(0, 2, 3, 1) if layout is torch.channels_last else found
    assert torch.allclose(found.reshape(16, -1), matrix.detach(), atol=1e-6)
    assert torch.allclose(ours["line"].weight, line, atol=1e-6)
    assert torch.allclose(ours["embedding"].weight, theirs["embedding"].weight, atol=1e-6)
    assert torch.allclose(ours["norm"].weight, theirs["norm"].weight, atol=1e-6)


def test_a_restored_optimiser_goes_on_as_if_it_had_never_stopped():
    whole = small_network()
    steps(whole, MuonAndAdamW(whole.named_parameters(), lr=1e-2, small_lr=1e-3, weight_decay=0.01), range(6))
    net = small_network()
    first = MuonAndAdamW(net.named_parameters(), lr=1e-2, small_lr=1e-3, weight_decay=0.01)
    steps(net, first, range(3))

    second = MuonAndAdamW(net.named_parameters(), lr=1e-2, small_lr=1e-3, weight_decay=0.01)
    second.load_state_dict(first.state_dict())
    steps(net, second, range(3, 6))

    assert all(torch.equal(weight, weights(whole)[name]) for name, weight in weights(net).items())


def test_without_its_state_an_optimiser_goes_elsewhere():
    """The test above would pass if the state did not matter."""
    whole, net = small_network(), small_network()
    steps(whole, MuonAndAdamW(whole.named_parameters(), lr=1e-2, small_lr=1e-3), range(6))

    for seeds in (range(3), range(3, 6)):
        steps(net, MuonAndAdamW(net.named_parameters(), lr=1e-2, small_lr=1e-3), seeds)

    assert not torch.equal(net["line"].weight, whole["line"].weight)
    assert not torch.equal(net["norm"].weight, whole["norm"].weight)


def test_a_schedule_moves_both_step_sizes():
    net = small_network()
    optimizer = MuonAndAdamW(net.named_parameters(), lr=1e-2, small_lr=1e-3)
    before = weights(net)

    optimizer.param_groups[0]["lr"] = 0.0
    steps(net, optimizer, [1])

    assert all(torch.equal(weight, before[name]) for name, weight in weights(net).items())


def test_frozen_weights_stay_as_they_are():
    net = small_network()
    net["conv"].requires_grad_(requires_grad=False)
    before = weights(net)

    steps(net, MuonAndAdamW(net.named_parameters(), lr=1e-2, small_lr=1e-3), range(2))

    assert torch.equal(net["conv"].weight, before["conv.weight"])
    assert not torch.equal(net["line"].weight, before["line.weight"])


def test_the_rate_rises_stays_and_falls_to_nothing():
    factor = warm_stable_decay(1000, warm=100, stable=0.6)

    rates = [factor(step) for step in range(1001)]

    assert all(a < b for a, b in pairwise(rates[:100]))
    assert set(rates[100:600]) == {1.0}
    assert all(a > b for a, b in pairwise(rates[601:]))
    assert rates[1000] == 0
