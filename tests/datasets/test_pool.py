from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from streams import PLAN, Watched, draw_seed, indices_and_seeds, tells_its_request, without_batches

from synthaug.datasets import Pool
from synthaug.datasets.cache import ImageCache
from synthaug.datasets.stream import RequestStream
from synthaug.errors import SettingError

POOL = Pool(keep=10, refresh=0.2)


def in_memory(draw=draw_seed, **settings):
    return RequestStream(PLAN, draw, **{"pool": POOL, "draw_batch": 4, **settings})


def in_folder(folder, draw=draw_seed, **settings):
    return in_memory(draw, store=ImageCache(folder, PLAN, base="f00d"), **settings)


@pytest.fixture(params=["memory", "folder"])
def pooled(request, tmp_path):
    return in_memory if request.param == "memory" else lambda *args, **settings: in_folder(tmp_path / "cache", *args, **settings)


def test_a_pass_hands_out_the_whole_pool_shuffled_and_redraws_a_share(pooled):
    draw = Watched()
    stream = pooled(draw)

    passes = [list(stream) for _ in range(4)]

    shown = [[request.index for _, request in one] for one in passes]
    assert all(tells_its_request(image, request) for one in passes for image, request in one)
    assert all(sorted(index % 10 for index in one) == list(range(10)) for one in shown)
    assert len({tuple(index % 10 for index in one) for one in shown}) == 4
    assert [len(set(after) - set(before)) for before, after in pairwise(shown)] == [2, 2, 2]
    assert len(draw.drawn) == 10 + 3 * 2
    assert len(stream) == 10


def test_new_images_of_a_pass_are_drawn_together():
    draw = Watched()
    stream = in_memory(draw)
    list(stream), draw.batches.clear()

    list(stream)

    assert [len(batch) for batch in draw.batches] == [2]


def test_every_place_is_redrawn_equally_often():
    ages = Counter(index % 10 for number in range(1, 11) for index in set(POOL.indices(3, number)) - set(POOL.indices(3, number - 1)))

    assert set(ages.values()) == {2}
    assert POOL.replaced(3, 1) != POOL.replaced(4, 1)


def test_what_was_replaced_is_kept_no_longer(tmp_path):
    memory, folder = in_memory(), in_folder(tmp_path)
    for _ in range(5):
        list(memory), list(folder)

    assert len(memory.store) == 10
    assert len(list(tmp_path.glob("*/*.npy"))) == 10


def test_workers_keep_each_their_own_places(tmp_path):
    alone, stream = in_memory(), in_folder(tmp_path)

    for _ in range(3):
        assert sorted(indices_and_seeds(without_batches(stream, 2))) == sorted(indices_and_seeds(alone))
    assert stream.store.counts.written == 10 + 2 * 2


def test_a_pool_in_memory_is_refused_in_workers_with_the_way_out():
    with pytest.raises(SettingError, match=r"belongs to one process.* give cache=FOLDER, or use num_workers=0"):
        list(without_batches(in_memory(), 1))


@pytest.mark.parametrize("taken", [0, 3, 10])
def test_a_pool_resumes_exactly_although_its_images_are_gone(taken):
    stream = in_memory(prefetch=2)
    list(stream), list(stream)
    running = iter(stream)
    for _ in range(taken):
        next(running)
    state = stream.state_dict()
    left, after = indices_and_seeds(running), indices_and_seeds(stream)
    resumed = in_memory(prefetch=2)

    resumed.load_state_dict(state)

    assert indices_and_seeds(resumed) == left
    assert indices_and_seeds(resumed) == after


def test_nothing_is_redrawn_at_a_share_of_0_and_at_least_one_above():
    assert sorted(Pool(keep=5, refresh=0).indices(0, 9)) == list(range(5))
    assert Pool(keep=5, refresh=0.01).redrawn == 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Pool(keep=0), "a pool must keep 1 image or more, got 0"),
        (lambda: Pool(keep=5, refresh=1.5), "share of a pool that is redrawn must be from 0 to 1, got 1.5"),
        (lambda: in_memory(count=5), "how many images a pass has; leave count out, got 5"),
        (lambda: in_memory(fixed=True), "leave fixed out, or give it refresh=0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make, sentence):
    with pytest.raises(SettingError, match=sentence):
        make()
