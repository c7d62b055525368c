from __future__ import annotations

import pytest
import torch

from synthaug.diffusion.philox import normals, philox


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_ten_rounds_give_the_known_answers_of_random123(counter, key, wanted):
    words = philox(torch.tensor(counter)[:, None].expand(4, 3), key)

    assert {" ".join(f"{word:08x}" for word in column) for column in words.T.tolist()} == {wanted}


def test_normal_numbers_are_those_of_torch_on_cuda_after_seed_0():
    """Twelve numbers that ``torch.cuda.manual_seed(0)`` gives on every NVIDIA card."""
    wanted = [
        -0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122, -0.32838709,
        -1.07454231, -0.36314407, -1.67105067, 2.26550497,
    ]  # fmt: skip

    torch.testing.assert_close(normals(0, 0, 12), torch.tensor(wanted), rtol=0, atol=5e-7)


def test_seeds_beyond_32_bits_and_calls_give_noise_of_their_own():
    noises = [normals(seed, call, 4000) for seed, call in ((5, 0), (5 + 2**32, 0), (5, 1), (2**63 - 1, 0))]

    table = torch.corrcoef(torch.stack(noises))
    assert (table - torch.eye(4)).abs().max() < 0.08
    assert all(abs(float(noise.mean())) < 0.06 and abs(float(noise.std()) - 1) < 0.05 for noise in noises)
