from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import torch
from streams import PLAN, Watched, draw_seed, indices_and_seeds, tells_its_request, without_batches

from synthaug.datasets.drawer import Drawer, refuse_forked_gpu
from synthaug.datasets.prefetch import prefetched
from synthaug.datasets.stream import RequestStream
from synthaug.errors import NumericsError, SettingError


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "synthaug-prefetch"]


def waited_for(what, seconds=5.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.002)
    return False


@pytest.fixture(autouse=True)
def no_thread_is_left_over():
    assert waited_for(lambda: not threads())
    yield
    assert waited_for(lambda: not threads())


def test_items_are_made_ahead_but_no_more_than_asked_for():
    made = []
    source = (made.append(n) or n for n in range(10))

    ready = prefetched(source, 3)

    assert next(ready) == 0
    assert waited_for(lambda: made == [0, 1, 2, 3])
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]
    ready.close()


def test_without_depth_nothing_is_made_ahead_and_there_is_no_thread():
    made = []
    ready = prefetched((made.append(n) or n for n in range(10)), 0)

    next(ready)

    assert made == [0]
    assert not threads()


def test_a_forgotten_iterator_ends_its_thread():
    ready = prefetched(iter(range(10)), 2)
    next(ready)
    assert threads()

    del ready

    assert waited_for(lambda: not threads())


def test_what_goes_wrong_in_the_thread_is_raised_after_the_items_before_it():
    def source():
        yield 1
        yield 2
        raise NumericsError("the network answered NaN; use --precision fp32")

    ready = prefetched(source(), 2)

    assert [next(ready), next(ready)] == [1, 2]
    with pytest.raises(NumericsError, match="answered NaN; use --precision fp32"):
        next(ready)
    assert waited_for(lambda: not threads())


def test_a_stream_draws_while_its_images_are_used_and_counts_what_it_handed_out():
    draw = Watched()
    stream = RequestStream(PLAN, draw, count=40, draw_batch=4, prefetch=2)
    running = iter(stream)

    image, request = next(running)

    assert tells_its_request(image, request)
    assert waited_for(lambda: len(draw.batches) == 3)
    assert stream.state_dict() == {"pass": 0, "yielded": 1, "part": 0, "parts": 1, "plan": stream.mark}
    running.close()


@pytest.mark.parametrize("taken", [0, 1, 4, 5, 9])
def test_a_stream_that_works_ahead_resumes_exactly(taken):
    def stream():
        return RequestStream(PLAN, draw_seed, count=9, draw_batch=4, prefetch=2)

    begun = stream()
    list(begun)
    running = iter(begun)
    for _ in range(taken):
        next(running)
    state = begun.state_dict()
    resumed = stream()
    resumed.load_state_dict(state)

    assert indices_and_seeds(resumed) == list(indices_and_seeds(running))


def test_workers_do_not_prefetch_in_threads_of_their_own():
    class Threads(RequestStream):
        def images(self, number, **settings):
            for image, _ in super().images(number, **settings):
                yield image, len(threads())

    stream = Threads(PLAN, draw_seed, count=40, draw_batch=1, prefetch=2)

    assert {number for _, number in without_batches(stream, 1)} == {0}
    assert 1 in {number for _, number in without_batches(stream, 0)}


def test_two_iterators_of_one_data_set_never_draw_at_the_same_time():
    class Slow:
        device = torch.device("cpu")
        inside = 0

        def __call__(self, requests):
            self.inside += 1
            assert self.inside == 1
            time.sleep(0.003)
            self.inside -= 1
            return draw_seed(requests)

    stream = RequestStream(PLAN, Drawer(Slow()), count=12, draw_batch=1, prefetch=2)

    first, second = iter(stream), iter(stream)
    pairs = list(zip(first, second, strict=True))

    assert len(pairs) == 12


class Held:
    """Stands for a sampler that is caught by a fork in the middle of a drawing."""

    device = torch.device("cpu")
    copied = False

    def __init__(self):
        self.started, self.go_on = threading.Event(), threading.Event()

    def __copy__(self):
        fresh = type(self)()
        fresh.go_on.set()
        fresh.copied = True
        return fresh

    def __call__(self, requests):
        self.started.set()
        assert self.go_on.wait(10)
        return torch.full((len(requests), 3, 8, 16), int(self.copied), dtype=torch.uint8)


def test_workers_forked_in_the_middle_of_a_drawing_draw_with_a_sampler_of_their_own():
    sampler = Held()
    stream = RequestStream(PLAN, Drawer(sampler), count=2, draw_batch=1)
    drawing = threading.Thread(target=lambda: next(iter(stream)))
    drawing.start()
    sampler.started.wait(10)

    images = [image for image, _ in without_batches(stream, 1, multiprocessing_context="fork", timeout=10)]

    sampler.go_on.set()
    drawing.join()
    assert all((image == 1).all() for image in images)


def test_a_forked_worker_with_a_gpu_in_use_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr("synthaug.datasets.drawer.get_worker_info", object)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)

    refuse_forked_gpu(torch.device("cpu"))
    with pytest.raises(SettingError, match=r"forked DataLoader worker; use num_workers=0 .*, or multiprocessing_context='spawn'"):
        refuse_forked_gpu(torch.device("cuda"))


ENDS = """
import time
from streams import PLAN, draw_seed
from synthaug.datasets.stream import RequestStream

def draw(requests):
    time.sleep(0.05)
    return draw_seed(requests)

running = iter(RequestStream(PLAN, draw, draw_batch=1, prefetch=2))
next(running)
print("ended", flush=True)
"""


@pytest.mark.slow
def test_a_process_that_is_drawing_ahead_ends_by_itself(request):
    run = subprocess.run(
        [sys.executable, "-c", ENDS], check=False, capture_output=True, text=True, timeout=60, cwd=request.config.rootpath / "tests"
    )

    assert (run.returncode, run.stdout, run.stderr) == (0, "ended\n", "")


@pytest.mark.gpu
def test_a_gpu_draws_on_a_stream_of_its_own():
    seen = []

    class Watching:
        device = torch.device("cuda")

        def __call__(self, requests):
            seen.append(torch.cuda.current_stream())
            return draw_seed(requests)

    torch.cuda.init()
    list(RequestStream(PLAN, Drawer(Watching()), count=4, draw_batch=1, prefetch=2))

    assert len({stream.cuda_stream for stream in seen}) == 1
    assert seen[0] != torch.cuda.default_stream()
