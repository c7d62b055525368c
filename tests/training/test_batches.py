from collections import Counter
from fractions import Fraction

import pytest
import torch

from synthaug.errors import SettingError
from synthaug.records import Photo
from synthaug.seeds import seed_for
from synthaug.training.batches import Order, kept_back


def order(*buckets: list[int], regular: tuple[list[int], ...] = (), share: float = 0.0, **settings) -> Order:
    usual = {"views": 3, "caption_dropout": 0.25, "seed": 11}
    return Order(
        buckets=tuple(map(torch.tensor, buckets)),
        regular=tuple(map(torch.tensor, regular)),
        share=Fraction(str(share)),
        **{**usual, **settings},
    )


def test_a_single_bucket_draws_as_it_always_did():
    drawn = order([0, 1, 1, 2, 3]).draw(6, 8)

    generator = torch.Generator().manual_seed(seed_for(11, "batch", 6))
    rows = torch.tensor([0, 1, 1, 2, 3])[torch.randperm(5, generator=generator)].repeat(2)[:8]
    views = torch.randint(3, (8,), generator=generator)
    empty = torch.rand(8, generator=generator) < 0.25

    assert torch.equal(drawn.items, rows)
    assert torch.equal(drawn.views, views)
    assert torch.equal(drawn.captioned, ~empty)
    assert not drawn.regular.any()


def test_over_a_cycle_every_bucket_has_as_many_steps_as_photos():
    turns = order([0, 1, 1, 2, 3, 4], [5, 6], [7, 8, 9, 10])

    cycles = [[turns.bucket(step) for step in range(first, first + 6)] for first in (0, 6, 12, 600)]

    assert all(Counter(cycle) == {0: 3, 1: 1, 2: 2} for cycle in cycles)
    assert len({tuple(cycle) for cycle in cycles}) > 1


def test_photos_are_shown_as_often_as_their_repeats_say_whatever_their_bucket():
    turns = order([0, 1, 1, 2], [3], [4, 5])
    shown = Counter()
    for step in range(7 * 200):
        shown.update(turns.draw(step, 3).items.tolist())

    share = {row: shown[row] / (3 * 200) for row in range(6)}
    assert share[1] == pytest.approx(2, rel=0.05)
    assert all(share[row] == pytest.approx(1, rel=0.1) for row in (0, 2, 3, 4, 5))


def test_a_batch_is_of_one_bucket_and_a_small_one_fills_it_by_repeating():
    turns = order([0, 1, 2, 3, 4, 5], [6, 7])

    for step in range(12):
        items = turns.draw(step, 5).items.tolist()
        wanted = {6, 7} if turns.bucket(step) == 1 else set(range(6))
        assert set(items) <= wanted
        assert max(Counter(items).values()) <= (3 if turns.bucket(step) == 1 else 1)


def test_processes_share_the_bucket_and_the_rows_of_a_step():
    turns = order([0, 1, 2, 3], [4, 5, 6], regular=([7, 8], [9]), share=0.3)

    for step in range(9):
        whole = turns.draw(step, 6)
        parts = [turns.draw(step, 6).part(rank, 3) for rank in range(3)]
        for name in vars(whole):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


@pytest.mark.parametrize(("share", "batch"), [(0.5, 1), (0.5, 4), (0.1, 3), (0.25, 2), (0.9, 1), (1 / 3, 5)])
def test_the_share_of_regularisation_pictures_is_exact_over_a_run(share, batch):
    turns = order([0, 1, 2], regular=([3, 4],), share=share)

    flags = torch.cat([turns.draw(step, batch).regular for step in range(120)])

    counted = flags.cumsum(0)
    expected = (torch.arange(len(flags)) + 1) * share
    assert (counted - expected).abs().max() <= 1.0001


def test_regularisation_pictures_come_from_their_bucket_in_their_only_view():
    turns = order([0, 1, 2], [3, 4], regular=([5, 6], [7]), share=0.5)

    for step in range(10):
        drawn = turns.draw(step, 4)
        assert set(drawn.items[drawn.regular].tolist()) <= ({5, 6} if turns.bucket(step) == 0 else {7})
        assert set(drawn.items[~drawn.regular].tolist()) <= ({0, 1, 2} if turns.bucket(step) == 0 else {3, 4})
        assert not drawn.views[drawn.regular].any()


def test_without_regularisation_pictures_the_photos_are_drawn_alike():
    with_some, without = order([0, 1, 2], regular=([5, 6],), share=0.5).draw(3, 6), order([0, 1, 2]).draw(3, 6)

    photos = ~with_some.regular
    assert torch.equal(with_some.items[photos], without.items[photos])
    assert torch.equal(with_some.captioned, without.captioned)


def photos(*groups: str) -> list[Photo]:
    return [Photo(path=f"{n}.png", caption="a fish", sha256=str(n), group=group) for n, group in enumerate(groups)]


def test_photos_are_kept_back_in_whole_groups():
    found = photos("a", "b", "a", "c", "b", "c", "d")

    trained, back = kept_back(found, 2, seed=4)

    assert sorted(trained + back) == list(range(7))
    assert {found[row].group for row in trained}.isdisjoint(found[row].group for row in back)
    assert len(back) in (2, 3)
    assert kept_back(found, 0, seed=4) == (list(range(7)), [])


def test_keeping_back_everything_is_refused():
    with pytest.raises(SettingError, match=r"at least two photos must be left to train on, 3 kept back in whole groups leave 0 of 4"):
        kept_back(photos("a", "a", "b", "b"), 3, seed=0)
