"""Random numbers from a counter: Philox-4x32-10, and normal numbers from it as CUDA's ``torch.randn`` makes them.

Code name    Paper          Meaning
counter      c0 … c3        four 32-bit words that are scrambled
key          k0, k1         two 32-bit words that decide how
ROUND        M0, M1         multipliers of a round
WEYL         W0, W1         what the key grows by after each round

Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3, https://doi.org/10.1145/2063384.2063405.
Box & Muller 1958, https://doi.org/10.1214/aoms/1177706645.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["normals", "philox"]

ROUND = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Ten rounds: words in int64 (4, N), each 0 to 2**32 - 1, to as many that look random.

    Example:
        >>> [f"{word:08x}" for word in philox(torch.zeros(4, 1, dtype=torch.int64), (0, 0)).flatten().tolist()]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        one, two = c0 * ROUND[0], c2 * ROUND[1]  # a product of 64 bits may come out negative: its bits are right all the same
        c0, c1, c2, c3 = (two >> 32) & WORD ^ c1 ^ k0, two & WORD, (one >> 32) & WORD ^ c3 ^ k1, one & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return torch.stack([c0, c1, c2, c3])


def normals(seed: int, call: int, count: int) -> Tensor:
    """What the ``call``-th ``torch.randn`` after ``torch.cuda.manual_seed(seed)`` gives, fp32 (count,), up to its rounding.

    It holds as long as a card has a thread for every number. Logarithm and sine are taken in fp64, so that every machine gives the same.

    Args:
        seed: 0 to 2**64 - 1.
        call: From 0.
        count: How many.

    Example:
        >>> normals(0, 0, 3)
        tensor([-0.9247, -0.4253, -2.6438])
    """
    element = torch.arange(count)
    zero = torch.zeros_like(element)
    words = philox(torch.stack([zero + call, zero, element, zero]), (seed & WORD, seed >> 32 & WORD))
    share, turn = ((words[row].float() * 2.0**-32 + 2.0**-33) for row in (0, 1))  # in (0, 1]
    radius = (-2 * share.double().log()).sqrt()
    return (radius * (turn.double() * 2 * math.pi).sin()).float()
