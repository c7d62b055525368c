from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from torch import distributed
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from synthaug import SyntheticDataset
from synthaug.datasets import Pool
from synthaug.datasets.stream import RequestStream
from synthaug.errors import SettingError, UnusableFileError, WrongBaseModelError
from synthaug.generation import Plan
from synthaug.lora.file import LoraFile

PLAN = Plan(prompts=("a photo of iriko",), size=(8, 16))


def draw_seed(requests):
    """Pixels that say which request they are of."""
    return torch.stack([torch.full((3, 8, 16), request.seed % 251, dtype=torch.uint8) for request in requests])


def indices_and_seeds(loader):
    return [(request.index, request.seed) for _, request in loader]


def without_batches(stream, workers):
    return DataLoader(stream, batch_size=None, num_workers=workers)


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_every_request_is_drawn_once_whatever_the_worker_count(workers):
    stream = RequestStream(PLAN, draw_seed, count=7, draw_batch=2)

    seen = indices_and_seeds(without_batches(stream, workers))

    assert sorted(seen) == [(i, PLAN.request(i).seed) for i in range(7)]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_pass_draws_new_requests(workers):
    stream = RequestStream(PLAN, draw_seed, count=4)

    passes = [indices_and_seeds(without_batches(stream, workers)) for _ in range(3)]

    assert len({seed for one in passes for _, seed in one}) == 12
    assert all(sorted(index for index, _ in one) == [0, 1, 2, 3] for one in passes)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fixed_stream_draws_the_same_in_every_pass(workers):
    stream = RequestStream(PLAN, draw_seed, count=4, fixed=True)

    first, second = (sorted(indices_and_seeds(without_batches(stream, workers))) for _ in range(2))

    assert first == second == [(i, PLAN.request(i).seed) for i in range(4)]


def test_second_pass_is_the_same_with_and_without_workers():
    alone, shared = RequestStream(PLAN, draw_seed, count=5), RequestStream(PLAN, draw_seed, count=5)
    list(alone), list(without_batches(shared, 2))

    assert sorted(indices_and_seeds(alone)) == sorted(indices_and_seeds(without_batches(shared, 2)))


def test_an_endless_stream_goes_on_and_has_no_length():
    stream = RequestStream(PLAN, draw_seed)
    drawn = iter(stream)

    seen = [next(drawn)[1].index for _ in range(100)]

    assert seen == list(range(100))
    with pytest.raises(TypeError, match="no length; give count="):
        len(stream)


def test_a_second_pass_over_an_endless_stream_does_not_begin_with_the_same_images():
    stream = RequestStream(PLAN, draw_seed)

    first, second = next(iter(stream))[1], next(iter(stream))[1]

    assert first.seed != second.seed


def test_ranks_split_the_requests_and_length_is_that_of_the_rank(monkeypatch):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    seen, lengths = [], []

    for rank in range(2):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        stream = RequestStream(PLAN, draw_seed, count=7)
        lengths.append(len(stream))
        seen.append([index for index, _ in indices_and_seeds(stream)])

    assert seen == [[0, 2, 4, 6], [1, 3, 5]]
    assert lengths == [4, 3]


@pytest.mark.parametrize("taken", [0, 1, 4, 5, 6])
def test_a_resumed_stream_gives_exactly_the_requests_that_were_left(taken):
    stream = RequestStream(PLAN, draw_seed, count=7, draw_batch=3)
    list(stream)  # so that the pass to resume is not the first
    running = iter(stream)
    for _ in range(taken):
        next(running)
    state = pickle.loads(pickle.dumps(stream.state_dict()))
    left = indices_and_seeds(running)
    after = indices_and_seeds(stream)

    resumed = RequestStream(PLAN, draw_seed, count=7, draw_batch=3)
    resumed.load_state_dict(state)

    assert resumed.state_dict() == state
    assert indices_and_seeds(resumed) == left
    assert indices_and_seeds(resumed) == after


def test_a_state_taken_at_the_end_of_a_pass_resumes_with_the_next_pass():
    stream = RequestStream(PLAN, draw_seed, count=3)
    list(stream)
    resumed = RequestStream(PLAN, draw_seed, count=3)

    resumed.load_state_dict(stream.state_dict())
    iter(resumed)  # torchdata makes one iterator for the finished pass and never advances it

    assert indices_and_seeds(resumed) == indices_and_seeds(stream)


class Saving(RequestStream):
    """Hands out the state after each image, as torchdata's workers do, and begins from a given one."""

    states = None

    def _run(self, ticket):
        from torch.utils.data import get_worker_info

        if self.states is not None:
            self.load_state_dict(self.states[get_worker_info().id])
        for _, request in super()._run(ticket):
            yield request.index, request.seed, self.state_dict()


def test_each_worker_resumes_its_own_part():
    whole = list(without_batches(Saving(PLAN, draw_seed, count=9, draw_batch=2), 2))
    states = {state["part"]: state for _, _, state in whole[:5]}
    resumed = Saving(PLAN, draw_seed, count=9, draw_batch=2)
    resumed.states = states

    left = list(without_batches(resumed, 2))

    assert sorted(row[:2] for row in left) == sorted(row[:2] for row in whole[5:])


def test_resuming_with_another_number_of_workers_is_refused_with_both_numbers():
    stream = RequestStream(PLAN, draw_seed, count=7)
    next(iter(stream))
    state = stream.state_dict()
    stream.load_state_dict(state)

    with pytest.raises(SettingError, match=r"the state is of part 0 of 1, this is part \d of 2"):
        list(without_batches(stream, 2))


@pytest.mark.parametrize(
    ("plan", "settings"),
    [
        ({"steps": 19}, {}),
        ({"prompts": ("a photo of a fish",)}, {}),
        ({"seed": 1}, {}),
        ({}, {"fixed": True}),
        ({}, {"pool": Pool(keep=7)}),
    ],
)
def test_resuming_with_another_plan_is_refused(plan, settings):
    state = RequestStream(PLAN, draw_seed).state_dict()
    other = RequestStream(replace(PLAN, **plan), draw_seed, **settings)

    with pytest.raises(
        SettingError, match=rf"saved with: the state is of plan {state['plan']}, this is plan {other.mark}; give .* arguments"
    ):
        other.load_state_dict(state)


def test_a_plan_with_more_images_or_another_label_may_go_on():
    stream, other = RequestStream(PLAN, draw_seed, count=7), RequestStream(replace(PLAN, label="sound", count=3), draw_seed, count=9)
    drawn = iter(stream)
    seen = [next(drawn)[1].seed for _ in range(2)]

    other.load_state_dict(stream.state_dict())

    left = [request for _, request in other]
    assert [*seen, *(request.seed for request in left)] == [PLAN.request(index).seed for index in range(9)]
    assert {request.label for request in left} == {"sound"}


@pytest.mark.parametrize("state", [{"x": 1}, None, {"pass": 0, "yielded": -1, "part": 0, "parts": 1, "plan": "c0ffee00"}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(SettingError, match=r"a state must be what state_dict gave, with pass, yielded, part, parts and plan, got .*; hand"):
        RequestStream(PLAN, draw_seed).load_state_dict(state)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"count": -3}, "count must not be negative, got -3; leave it out"), ({"draw_batch": 0}, "draw_batch must be 1 or more, got 0")],
)
def test_a_stream_refuses_numbers_that_cannot_be(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        RequestStream(PLAN, draw_seed, **settings)


def images_by_index(dataset, **loading):
    return {int(target["index"]): image for image, target in DataLoader(dataset, batch_size=None, **loading)}


def test_images_are_equal_for_any_number_of_workers_and_any_draw_batch(tiny_lora):
    def dataset(draw_batch):
        return SyntheticDataset(tiny_lora, count=5, steps=2, target="dict", draw_batch=draw_batch)

    alone = images_by_index(dataset(5))
    others = [images_by_index(dataset(1)), images_by_index(dataset(2), num_workers=2)]

    for other in others:
        assert other.keys() == alone.keys()
        assert max(int((other[i].int() - alone[i].int()).abs().max()) for i in alone) <= 1
    assert not torch.equal(alone[0], alone[1])


def test_everything_left_out_is_read_from_the_lora_file(tiny_lora):
    image, target = next(iter(SyntheticDataset(tiny_lora, steps=1, target="dict", label="sound", seed=3)))

    assert isinstance(image, tv_tensors.Image)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 32, 32)
    expected = Plan.for_lora(tiny_lora, seed=3).request(0)
    assert target == {"label": "sound", "index": 0, "seed": expected.seed, "prompt": "a photo of iriko"}


def test_a_loader_gives_batches_of_images_and_labels_after_the_transform(tiny_lora):
    dataset = SyntheticDataset(tiny_lora, count=4, steps=1, label=2, size=(16, 32), transform=v2.ToDtype(torch.float32, scale=True))

    [(images, labels)] = DataLoader(dataset, batch_size=4)

    assert images.shape == (4, 3, 16, 32)
    assert images.dtype == torch.float32
    assert labels.tolist() == [2, 2, 2, 2]
    assert len(dataset) == 4


def test_a_data_set_resumes_in_the_middle_of_a_pass(tiny_lora):
    dataset = SyntheticDataset(tiny_lora, count=5, steps=1, target="dict", draw_batch=2)
    running = iter(dataset)
    next(running), next(running), next(running)
    state = dataset.state_dict()
    resumed = SyntheticDataset(tiny_lora, count=5, steps=1, target="dict", draw_batch=2)

    resumed.load_state_dict(state)

    assert [target["seed"] for _, target in resumed] == [target["seed"] for _, target in running]


def test_a_data_set_survives_pickling(tiny_lora):
    dataset = SyntheticDataset(tiny_lora, count=1, steps=1, draw_batch=1)

    [(image, _)], [(twin, _)] = list(pickle.loads(pickle.dumps(dataset))), list(dataset)

    assert torch.equal(image, twin)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"target": "mask"}, "unknown target 'mask'; choose one of: dict, label"),
        ({"prompt": " "}, r"prompt must not be empty, got ' '; leave it out to use the caption of .*iriko.safetensors"),
        ({"prompt": "a {thing}"}, r"unknown placeholder \{thing\}"),
        ({"count": -1}, "count must not be negative, got -1"),
        ({"size": (30, 32)}, r"each a multiple of 8, got \(30, 32\)"),
        ({"steps": 0}, "steps must be 1 to 1000, got 0"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_before_anything_is_drawn(tiny_lora, settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        SyntheticDataset(tiny_lora, **settings)


def test_a_lora_without_a_caption_wants_a_prompt(tiny_lora, tmp_path):
    file = LoraFile.read(tiny_lora)
    silent = tmp_path / "silent.safetensors"
    metadata = {key: value for key, value in file.metadata.items() if key != "synthaug.caption"}
    LoraFile(layers=file.layers, metadata=metadata).write(silent)

    with pytest.raises(SettingError, match=r"silent.safetensors does not say which caption brings it out; give a prompt"):
        SyntheticDataset(silent)


def test_another_base_is_refused_before_anything_is_drawn(tiny_lora, other_base):
    with pytest.raises(WrongBaseModelError, match=r"iriko.safetensors was made for base .*tiny.* is loaded; pass --base"):
        SyntheticDataset(tiny_lora, base=str(other_base))


def test_a_missing_lora_is_refused_with_its_name(tmp_path):
    with pytest.raises(UnusableFileError, match=r"there is no LoRA file .*gone.safetensors"):
        SyntheticDataset(tmp_path / "gone.safetensors")
