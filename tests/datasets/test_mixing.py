from __future__ import annotations

import pytest
from sample_folders import make_samples
from streams import PLAN, Watched, draw_seed, without_batches
from torch import distributed

from synthaug import ShardDataset, write_shards
from synthaug.datasets import MixedDataset, Pool
from synthaug.datasets.stream import RequestStream
from synthaug.errors import SettingError

REAL = [f"photo {index}" for index in range(14)]


def mixed(draw=draw_seed, *, share=0.3, real=REAL, seed=0, **settings):
    return MixedDataset(real, RequestStream(PLAN, draw, **{"draw_batch": 2, **settings}), share=share, seed=seed)


def names(items):
    """``photo 3`` for a real one, (index, seed) for a drawn one."""
    return [item if isinstance(item, str) else (item[1].index, item[1].seed) for item in items]


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_a_pass_has_every_real_item_and_the_share_once_whatever_the_worker_count(workers):
    items = names(without_batches(mixed(), workers))

    assert sorted(item for item in items if isinstance(item, str)) == sorted(REAL)
    assert sorted(item for item in items if not isinstance(item, str)) == [(i, PLAN.request(i).seed) for i in range(6)]


def test_drawn_items_are_spread_evenly():
    items = [isinstance(item, str) for item in names(mixed())]

    assert [items[start : start + 10].count(False) for start in (0, 10)] == [3, 3]
    assert len(mixed()) == len(items) == 20


def test_every_pass_has_another_order_and_other_drawn_items_and_a_seed_gives_both_again():
    data = mixed()
    first, second, again, other = names(data), names(data), names(mixed()), names(mixed(seed=1))

    assert first == again
    assert [n for n in first if isinstance(n, str)] != [n for n in second if isinstance(n, str)]
    assert not {n for n in first if not isinstance(n, str)} & {n for n in second if not isinstance(n, str)}
    assert [n for n in first if isinstance(n, str)] != [n for n in other if isinstance(n, str)]


@pytest.mark.parametrize("taken", [0, 1, 7, 19, 20])
def test_it_resumes_exactly(taken):
    data = mixed(prefetch=2)
    names(data)
    running = iter(data)
    for _ in range(taken):
        next(running)
    state = data.state_dict()
    left, after = names(running), names(data)
    resumed = mixed(prefetch=2)

    resumed.load_state_dict(state)

    assert names(resumed) == left
    assert names(resumed) == after


@pytest.mark.parametrize("other", [{"share": 0.2}, {"seed": 1}, {"real": REAL[1:]}, {"fixed": True}])
def test_it_is_not_resumed_with_other_data_or_settings(other):
    state = mixed().state_dict()

    with pytest.raises(SettingError, match=f"the state is of plan {state['plan']}, this is plan "):
        mixed(**other).load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_are_mixed_in_and_gone_through_again(tmp_path, workers):
    write_shards(make_samples(tmp_path / "drawn", range(5)), tmp_path / "out", per_shard=3)
    shards = ShardDataset(tmp_path / "out", target="dict", shuffle=3)

    items = list(without_batches(MixedDataset(REAL, shards, share=0.3), workers))

    drawn = [item[1]["index"] for item in items if not isinstance(item, str)]
    assert len(drawn) == 6
    assert set(drawn) == {0, 1, 2, 3, 4}
    assert sorted(item for item in items if isinstance(item, str)) == sorted(REAL)


def test_a_mix_with_shards_resumes_exactly(tmp_path):
    write_shards(make_samples(tmp_path / "drawn", range(5)), tmp_path / "out", per_shard=3)

    def data():
        return MixedDataset(REAL, ShardDataset(tmp_path / "out", target="dict", shuffle=3), share=0.5)

    first = data()
    running = iter(first)
    for _ in range(17):
        next(running)
    resumed = data()

    resumed.load_state_dict(first.state_dict())

    assert labels(resumed) == labels(running)
    assert labels(resumed) == labels(first)


def labels(items):
    return [item if isinstance(item, str) else item[1]["index"] for item in items]


def test_ranks_split_both(monkeypatch):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    seen, lengths = [], []

    for rank in range(2):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        lengths.append(len(mixed()))
        seen.append(names(mixed()))

    assert lengths == [len(part) for part in seen] == [10, 10]
    monkeypatch.undo()
    assert sorted(map(str, seen[0] + seen[1])) == sorted(map(str, names(mixed())))


def test_no_more_is_drawn_than_is_handed_out():
    draw = Watched()

    names(mixed(draw, prefetch=2, draw_batch=4))

    assert draw.drawn == list(range(6))


def test_a_pool_that_is_too_small_is_gone_through_again():
    draw = Watched()

    items = [item for item in names(mixed(draw, pool=Pool(keep=4))) if not isinstance(item, str)]

    assert len(items) == 6
    assert len(set(items)) == 4
    assert draw.drawn == [0, 1, 2, 3]


def test_a_share_of_0_draws_nothing():
    draw = Watched()

    assert sorted(names(mixed(draw, share=0))) == sorted(REAL)
    assert draw.batches == []


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: mixed(share=1.0), "share of drawn items must be from 0 to below 1, got 1.0"),
        (lambda: mixed(real=[]), r"real must be a data set with items and a length, got \[\]"),
        (lambda: MixedDataset(REAL, REAL), r"synthetic must be a SyntheticDataset or a ShardDataset, got \['photo 0'"),
        (lambda: mixed(count=5), "6 images per pass are wanted, the stream has count=5; leave count out"),
    ],
)
def test_what_cannot_be_mixed_is_refused(make, sentence):
    with pytest.raises(SettingError, match=sentence):
        make()


def test_more_workers_than_images_in_a_pool_are_refused():
    with pytest.raises(SettingError, match=r"each worker needs an image of its own .* there are 1; use fewer workers"):
        next(MixedDataset(REAL, _SecondOfTwo(PLAN, draw_seed, pool=Pool(keep=1)), share=0.5).synthetic.images(0, stop=3))


class _SecondOfTwo(RequestStream):
    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self._progress.share.part = lambda: (1, 2)
