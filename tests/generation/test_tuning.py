from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import nn

from synthaug import Request, Sampler
from synthaug.generation.tuning import leave_when_done, onednn_suits
from synthaug.records import LoraUse


def request(**fields):
    return Request(**{"prompt": "a photo of a fish", "seed": 7, "steps": 3, "size": (32, 40), **fields})


@pytest.fixture(scope="module")
def plain(tiny_base):
    """Nothing tuned."""
    with mock.patch("synthaug.generation.tuning.onednn_suits", return_value=False):
        sampler = Sampler(str(tiny_base), channels_last=False)
        assert sampler.base.unet is not None
    return sampler


@pytest.mark.parametrize("settings", [{}, {"channels_last": True}, {"fuse_qkv": True}], ids=str)
def test_what_changes_time_changes_no_pixel_beyond_rounding(tiny_base, tiny_lora, plain, settings):
    sampler = Sampler(str(tiny_base), **settings)
    worn = (LoraUse(path=str(tiny_lora)),)

    for wanted in ([request()], [request(loras=worn), request(seed=8, loras=worn)], [request()]):
        assert (sampler(wanted).int() - plain(wanted).int()).abs().max() <= 1


@pytest.mark.skipif(not onednn_suits(), reason="this processor has no AVX-512, so PyTorch's own way is kept")
def test_linear_layers_follow_their_weights_as_they_are_now(tiny_base):
    layer = next(m for m in Sampler(str(tiny_base)).base.unet.modules() if type(m) is nn.Linear)
    x = torch.randn(3, layer.in_features)

    for factor in (1.0, 2.0):
        layer.weight.mul_(factor)
        assert torch.allclose(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias), atol=1e-5)
        assert layer.forward.func.__name__ == "_linear"


def test_text_encoders_come_when_they_are_asked_and_leave_when_the_unet_is():
    encoder, unet, moves = nn.Linear(2, 2), nn.Linear(2, 2), []
    encoder.device = torch.device("cpu")
    encoder.to = lambda place: moves.append(str(place)) or setattr(encoder, "device", place)
    leave_when_done([encoder], unet, device=torch.device("cpu", 0), home=torch.device("cpu"))

    for network in (encoder, encoder, unet, unet, encoder):
        network(torch.zeros(1, 2))

    assert moves == ["cpu:0", "cpu:0", "cpu", "cpu:0"]
