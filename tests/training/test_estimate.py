import torch
from diffusers import UNet2DConditionModel

from synthaug.models.load import load_base
from synthaug.training.estimate import cost_of, rate_of


class Planned:
    def __init__(self, **config):
        with torch.device("meta"):
            self.config = UNet2DConditionModel(**config).config


def test_stable_diffusion_costs_what_others_have_counted():
    """803 GFLOP at 512 x 512: facts of the U-Net, counted on meta tensors before this code was written."""
    cost = cost_of(Planned(sample_size=64, cross_attention_dim=768), (64, 64))

    assert abs(cost.operations / 803e9 - 1) < 0.01
    assert abs(cost.weights / 859.5e6 - 1) < 0.001


def test_twice_the_area_costs_at_least_twice_as_much(tiny_base):
    unet = load_base(str(tiny_base), parts=("unet",)).unet
    small, large = cost_of(unet, (8, 8)), cost_of(unet, (8, 16))

    assert large.operations >= 1.9 * small.operations
    assert large.activations >= 1.6 * small.activations
    assert large.weights == small.weights


def test_counting_leaves_the_network_alone(tiny_base):
    unet = load_base(str(tiny_base), parts=("unet",)).unet
    before = [weight.clone() for weight in unet.parameters()]

    cost_of(unet, (4, 4))

    assert all(torch.equal(a, b) for a, b in zip(before, unet.parameters(), strict=True))
    assert not any(weight.requires_grad for weight in unet.parameters())


def test_the_rate_of_this_machine_is_a_rate():
    assert 1e8 < rate_of(torch.device("cpu"), torch.float32) < 1e14


def test_the_rate_is_that_of_the_idle_moments_of_a_loaded_machine(monkeypatch):
    seconds = iter([9.0, 7.0, 8.0, 9.0, 6.0, 0.5, *[9.0] * 20])
    clock, products = [0.0], []

    def product(*_):
        clock[0] += next(seconds)
        products.append(clock[0])

    monkeypatch.setattr("synthaug.training.estimate.torch.mm", product)
    monkeypatch.setattr("synthaug.training.estimate.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("synthaug.training.estimate.time.sleep", lambda _: None)

    rate = rate_of(torch.device("cpu"), torch.float32)

    assert len(products) > 5
    assert rate == 2 * 1024**3 / 0.5
