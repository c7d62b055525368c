from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import distributed
from torch.utils.data import DataLoader, IterableDataset

from synthaug.datasets.passes import Passes, Share


class PassNumbers(IterableDataset):
    """Yields the number of its pass and its part, once per worker."""

    def __init__(self):
        self.passes, self.share = Passes(), Share()

    def __iter__(self):
        return self._run(self.passes.ticket())

    def _run(self, ticket):
        yield torch.tensor([self.passes.number(ticket), *self.share.part()])


def numbers(loader: DataLoader) -> list[list[int]]:
    return sorted(row.tolist() for row in loader)


@pytest.mark.parametrize("persistent", [False, True])
def test_all_workers_of_a_pass_agree_on_its_number_and_the_next_pass_has_the_next_one(persistent):
    loader = DataLoader(PassNumbers(), batch_size=None, num_workers=3, persistent_workers=persistent)

    seen = [numbers(loader) for _ in range(3)]

    assert seen == [[[n, part, 3] for part in range(3)] for n in range(3)]


def test_passes_go_on_counting_when_torch_is_seeded_alike_before_each():
    loader = DataLoader(PassNumbers(), batch_size=None, num_workers=2)
    seen = []

    for _ in range(3):
        torch.manual_seed(0)
        seen.append({row[0] for row in numbers(loader)})

    assert seen == [{0}, {1}, {2}]


def test_passes_go_on_counting_when_the_number_of_workers_changes():
    stream = PassNumbers()

    seen = [{row[0] for row in numbers(DataLoader(stream, batch_size=None, num_workers=n))} for n in (0, 1, 3, 0)]

    assert seen == [{0}, {1}, {2}, {3}]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda passes: pickle.loads(pickle.dumps(passes))])
def test_a_copy_begins_where_the_original_was_and_counts_by_itself(copied):
    passes = Passes()
    passes.number(passes.ticket())

    twin = copied(passes)

    assert [twin.number(twin.ticket()), twin.number(twin.ticket()), passes.number(passes.ticket())] == [1, 2, 1]
    assert twin._table.is_shared()


def test_an_iterator_that_is_never_used_takes_no_number():
    stream = PassNumbers()

    iter(stream)
    used = next(iter(stream))

    assert used[0] == 0


def test_the_rank_travels_with_the_pickle_and_ranks_take_turns(monkeypatch):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 3)
    packed = pickle.dumps(Share())
    monkeypatch.undo()

    assert pickle.loads(packed).part() == (1, 3)
    assert Share().part() == (0, 1)
