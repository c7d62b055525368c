from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from synthaug.diffusion.schedule import NoiseSchedule
from synthaug.pocket.denoiser import DenoiserPretraining, LatentBatches, places
from synthaug.pocket.pictures import KEPT_BACK


class Knowing(nn.Module):
    """Answers as a network would that takes every picture for ``guess``."""

    def __init__(self, kind, guess):
        super().__init__()
        self.kind, self.guess = kind, guess
        self.alpha, self.sigma = NoiseSchedule().scales()

    def forward(self, z, t, _text, **_settings):
        alpha, sigma = (scale[t].reshape(-1, 1, 1, 1) for scale in (self.alpha, self.sigma))
        eps = (z - alpha * self.guess) / sigma
        return [eps if self.kind == "epsilon" else alpha * eps - sigma * self.guess]


class Mute(nn.Module):
    def forward(self, tokens):
        return [tokens]


def loss_of(kind, guess, x, *, counts=None, **settings):
    torch.manual_seed(0)
    module = DenoiserPretraining(Knowing(kind, guess), Mute(), NoiseSchedule(), kind=kind, noise_offset=0.0, latent_noise=0.0, **settings)
    return module.loss(x, torch.zeros(len(x), 77), torch.ones(len(x), 1, *x.shape[2:]) if counts is None else counts)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_network_that_knows_the_picture_has_no_loss(kind):
    x = torch.randn(16, 2, 4, 4)

    assert float(loss_of(kind, x, x)) < 1e-6
    assert float(loss_of(kind, torch.zeros_like(x), x)) > 0.1


def test_the_loss_counts_errors_in_v_whatever_the_network_predicts():
    """1 / alpha**2 turns an error in epsilon into one in v; what is left is the sum of the weights it is divided by."""
    x = torch.randn(64, 2, 4, 4)
    alpha, sigma = NoiseSchedule().scales()
    torch.manual_seed(0)
    torch.randn_like(x)  # the latent noise that loss() draws first
    t = ((torch.arange(64) + torch.rand(64)) / 64 * 1000).long()
    weight = (5 * (sigma[t] / alpha[t]) ** 2).clamp(max=1)

    epsilon, v = (loss_of(kind, torch.zeros_like(x), x, noisiest=1e9) for kind in ("epsilon", "v_prediction"))

    assert float(epsilon * (weight / alpha[t] ** 2).mean()) == pytest.approx(float(v * weight.mean()), rel=1e-3)


def test_pictures_kept_back_are_never_drawn_and_weights_say_how_often_the_others_are(tmp_path):
    count = KEPT_BACK + 4
    latents = np.arange(count, dtype=np.float16).reshape(-1, 1, 1, 1)
    np.save(tmp_path / "latents.npy", latents)
    np.save(tmp_path / "tokens.npy", np.zeros((count, 1, 77), np.int16))
    np.save(tmp_path / "places.npy", latents + 1)

    class Spelling:
        def __call__(self, texts, **_settings):
            return type("Ids", (), {"input_ids": [[7] * 77 for _ in texts]})

    weights = [1.0, 0.0, 2.0, 1.0] + [5.0] * KEPT_BACK
    batches = LatentBatches(tmp_path, Spelling(), [["a fish"]] * count, weights=weights, batch_size=2000, blank=0.25, strange=0.0)

    drawn, tokens, counts = batches(np.random.default_rng(0))

    shares = np.bincount(drawn.flatten().int().numpy(), minlength=4) / 2000
    assert shares == pytest.approx([0.25, 0, 0.5, 0.25], abs=0.04)
    assert torch.equal(counts, drawn + 1)
    assert float((tokens[:, 0] == 7).float().mean()) == pytest.approx(0.25, abs=0.04)
    assert batches.held_out(3)[0].flatten().tolist() == [1001.0, 1002.0, 1003.0]


def test_an_error_where_a_place_counts_double_costs_double():
    x, guess = torch.randn(16, 2, 4, 4), torch.zeros(16, 2, 4, 4)
    guess[..., 2:, :] = x[..., 2:, :]  # only the upper half is wrong
    counts = torch.ones(16, 1, 4, 4)
    counts[..., :2, :] = 2

    assert float(loss_of("v_prediction", guess, x, counts=counts)) == pytest.approx(2 * float(loss_of("v_prediction", guess, x)))


def test_objects_count_double_and_a_third_of_flaw_counts_in_full():
    covers = np.zeros((1, 2, 4, 4), np.uint8)
    covers[0, 0, :2, :2] = 255
    covers[0, 1, 2:, 2:] = 85

    found = places(covers, 2)

    assert found.shape == (1, 1, 2, 2)
    assert found[0, 0].tolist() == [[2.0, 1.0], [1.0, 5.0]]
