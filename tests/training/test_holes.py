import torch

from synthaug.training.holes import hole_of


def test_a_mask_that_marks_something_is_the_hole():
    mask = torch.zeros(20, 30, dtype=torch.uint8)
    mask[3, 4] = 1

    assert hole_of(mask, (20, 30), seed=0) is mask


def test_without_one_the_hole_is_drawn_from_its_seed_alone():
    empty = torch.zeros(40, 56, dtype=torch.uint8)

    first, again, other = hole_of(None, (40, 56), seed=1), hole_of(empty, (40, 56), seed=1), hole_of(None, (40, 56), seed=2)

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_random_holes_are_of_many_sizes_never_empty_and_now_and_then_everything():
    shares = torch.stack([hole_of(None, (48, 64), seed=seed).float().mean() for seed in range(200)])

    assert shares.min() > 0
    assert 0.1 < float((shares == 1).float().mean()) < 0.3
    assert float(((shares > 0.02) & (shares < 0.6)).float().mean()) > 0.6
    assert shares[shares < 1].std() > 0.08
