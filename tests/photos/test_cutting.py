from __future__ import annotations

import torch

from synthaug.photos.cutting import likelier, walked


def test_the_walk_solves_the_screened_equation():
    random = torch.Generator().manual_seed(0)
    guess, trust, features = (
        torch.rand(5, 6, generator=random),
        0.05 + torch.rand(5, 6, generator=random),
        torch.rand(2, 5, 6, generator=random),
    )
    number = torch.arange(30).reshape(5, 6)
    matrix = torch.diag(trust.flatten())
    for one, other in [
        *zip(number[1:].flatten(), number[:-1].flatten(), strict=True),
        *zip(number[:, 1:].flatten(), number[:, :-1].flatten(), strict=True),
    ]:
        flat = features.flatten(1)
        weight = torch.exp(-3.0 * (flat[:, one] - flat[:, other]).square().sum()) + 1e-3
        matrix[one, one] += weight
        matrix[other, other] += weight
        matrix[one, other] -= weight
        matrix[other, one] -= weight

    expected = torch.linalg.solve(matrix, (trust * guess).flatten()).reshape(5, 6)

    assert torch.allclose(walked(guess, trust, features, beta=3.0), expected, atol=1e-3)


def test_a_sure_pixel_speaks_for_all_that_look_like_it_and_no_further_than_an_edge():
    features = torch.zeros(1, 20, 30)
    features[:, :, 12:] = 1.0
    guess, trust = torch.full((20, 30), 0.5), torch.full((20, 30), 1e-5)
    guess[3, 3], trust[3, 3] = 0.0, 1.0
    guess[10, 25], trust[10, 25] = 1.0, 1.0

    out = walked(guess, trust, features)

    assert out[:, :12].max() < 0.3
    assert out[:, 12:].min() > 0.7


def test_pixels_are_told_apart_by_what_was_learned():
    random = torch.Generator().manual_seed(0)
    features = torch.randn(3, 40, 40, generator=random)
    features[:, :, 20:] = 0.5 * torch.randn(3, 40, 20, generator=random) + torch.tensor([4.0, -2.0, 0.0])[:, None, None]
    left = torch.zeros(40, 40, dtype=torch.bool)
    left[:20, :20] = True
    right = torch.zeros(40, 40, dtype=torch.bool)
    right[:20, 20:] = True

    ratio = likelier(features, left, right)

    assert (ratio[20:, :20] > 0).float().mean() > 0.97
    assert (ratio[20:, 20:] < 0).float().mean() > 0.97
    assert ratio.abs().max() <= 8
