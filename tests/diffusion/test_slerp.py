from __future__ import annotations

import numpy as np
import pytest
import torch

from synthaug.diffusion.slerp import slerp


def noises(*, height=5):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(4, height, 7, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_each_column_is_turned_by_its_own_angle(share):
    start, end = noises()
    wanted = np.empty(start.shape)
    for channel in range(4):
        for column in range(7):
            a, b = start[channel, :, column].double().numpy(), end[channel, :, column].double().numpy()
            angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            wanted[channel, :, column] = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)

    assert np.abs(slerp(start, end, share).numpy() - wanted).max() < 1e-6


def test_the_ends_are_the_two_noises():
    start, end = noises()

    torch.testing.assert_close(slerp(start, end, 0.0), start, rtol=0, atol=1e-6)
    torch.testing.assert_close(slerp(start, end, 1.0), end, rtol=0, atol=1e-6)


@pytest.mark.parametrize("height", [1, 5])
def test_noise_that_has_no_angle_to_the_other_is_mixed_straight(height):
    start, end = noises(height=height)
    other = end if height == 1 else 2 * start  # a column of one place points up or down and nowhere else

    torch.testing.assert_close(slerp(start, other, 0.25), torch.lerp(start, other, 0.25))
