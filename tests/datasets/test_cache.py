from __future__ import annotations

import errno
import logging
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from streams import PLAN, Watched, draw_seed, indices_and_seeds, tells_its_request, without_batches

from synthaug.datasets import cache as cache_module
from synthaug.datasets.cache import CacheCounts, ImageCache
from synthaug.datasets.stream import RequestStream
from synthaug.errors import OutputError, SettingError, UnusableFileError
from synthaug.records import LoraUse

BASE = "f00d"


def stream(folder, draw=draw_seed, **settings):
    kept = ImageCache(folder, settings.pop("plan", PLAN), base=settings.pop("base", BASE))
    return RequestStream(PLAN, draw, store=kept, **{"fixed": True, "count": 7, "draw_batch": 3, **settings})


def files(folder):
    return sorted(folder.glob("*/*.npy"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_pass_reads_what_the_first_has_drawn(tmp_path, workers):
    draw = Watched()
    kept = stream(tmp_path, draw)

    passes = [list(without_batches(kept, workers)) for _ in range(2)]

    assert all(tells_its_request(image, request) for one in passes for image, request in one)
    assert [sorted(request.index for _, request in one) for one in passes] == [list(range(7))] * 2
    assert kept.store.counts == CacheCounts(read=7, written=7, damaged=0)
    assert workers or draw.batches == [[0, 1, 2], [3, 4, 5], [6]]


def test_another_process_draws_nothing(tmp_path):
    list(stream(tmp_path))
    draw = Watched()

    seen = indices_and_seeds(stream(tmp_path, draw))

    assert draw.batches == []
    assert seen == [(i, PLAN.request(i).seed) for i in range(7)]


def test_what_is_missing_is_drawn_in_full_batches_although_it_lies_scattered(tmp_path):
    kept = stream(tmp_path, count=20)
    list(kept)
    for index in (1, 5, 6, 9, 17):
        kept.store.discard(kept.store.key(PLAN.request(index)))
    draw = Watched()

    images = list(stream(tmp_path, draw, count=20))

    assert draw.batches == [[1, 5, 6], [9, 17]]
    assert [request.index for _, request in images] == list(range(20))
    assert all(tells_its_request(image, request) for image, request in images)


def test_an_image_may_be_changed_without_changing_the_cache(tmp_path):
    kept = stream(tmp_path)
    for image, _ in (*kept, *kept):
        image.fill_(0)

    assert all(tells_its_request(image, request) for image, request in kept)


def cut(data):
    return data[:-20]


def flip(data):
    return data[:200] + bytes([data[200] ^ 1]) + data[201:]


@pytest.mark.parametrize("damage", [cut, flip, lambda _: b""])
def test_a_damaged_file_is_drawn_again_and_counted(tmp_path, damage, caplog):
    list(stream(tmp_path))
    victim = files(tmp_path)[2]
    whole = victim.read_bytes()
    victim.write_bytes(damage(whole))
    draw = Watched()
    again = stream(tmp_path, draw)

    images = list(again)

    assert all(tells_its_request(image, request) for image, request in images)
    assert len(draw.drawn) == 1
    assert again.store.counts == CacheCounts(read=6, written=1, damaged=1)
    assert victim.read_bytes() == whole
    assert f"{victim} is damaged; its image is drawn again" in caplog.text


def test_a_full_disk_is_said_once_and_drawing_goes_on(tmp_path, monkeypatch, caplog):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = stream(tmp_path)
    monkeypatch.setattr(cache_module, "_write", full)

    images = list(kept) + list(kept)

    assert len(images) == 14
    assert all(tells_its_request(image, request) for image, request in images)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said == [f"{tmp_path} takes no more images (No space left on device); what is drawn from now on is not kept"]
    assert kept.store.is_full


def test_an_unfinished_file_never_has_an_image_s_name(tmp_path, monkeypatch):
    kept = stream(tmp_path)

    def torn(path, data):
        with path.open("wb") as opened:
            opened.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", torn)
    list(kept)

    assert [entry.name for entry in tmp_path.rglob("*") if entry.is_file()] == ["plan.json"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": 30}, "steps is 20 there and 30 here; give another folder"),
        ({"seed": 1, "guidance": 2.0}, "guidance is 4.0 there and 2.0 here; seed is 0 there and 1 here"),
        ({"prompts": ("a fish",)}, r'prompts is \["a photo of iriko"\] there and \["a fish"\] here'),
    ],
)
def test_the_cache_of_another_plan_is_refused_with_what_differs(tmp_path, changes, sentence):
    stream(tmp_path)

    with pytest.raises(SettingError, match=f"{tmp_path} is the cache of another plan: {sentence}"):
        stream(tmp_path, plan=replace(PLAN, **changes))


def test_another_base_is_another_plan(tmp_path):
    stream(tmp_path)

    with pytest.raises(SettingError, match='base is "f00d" there and "beef" here'):
        stream(tmp_path, base="beef")


def test_count_label_and_the_place_of_files_may_differ(tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    first.write_bytes(b"lora")
    shutil.copy(first, second)
    plans = [replace(PLAN, loras=(LoraUse(path=str(file)),)) for file in (first, second)]

    one = ImageCache(tmp_path / "cache", plans[0], base=BASE)
    two = ImageCache(tmp_path / "cache", replace(plans[1], label=3, count=99), base=BASE)
    keys = one.key(plans[0].request(4)), two.key(replace(plans[1], label=3).request(4))

    assert keys[0] == keys[1]
    second.write_bytes(b"trained again")
    assert two.key(plans[1].request(4)) != keys[0]
    with pytest.raises(SettingError, match="is the cache of another plan: loras is"):
        ImageCache(tmp_path / "cache", plans[1], base=BASE)


def test_a_folder_with_other_things_is_refused_by_one_of_their_names(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")

    with pytest.raises(SettingError, match=r"holds other things \(holiday.jpg\); give another"):
        stream(tmp_path)


def test_a_plan_that_cannot_be_read_is_said(tmp_path):
    stream(tmp_path)
    (tmp_path / "plan.json").write_text("[1")

    with pytest.raises(UnusableFileError, match=r"plan.json does not say what the cache holds"):
        stream(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OutputError, match=r"the cache .*file/cache cannot be written \(Not a directory\); give another folder"):
        stream(tmp_path / "file" / "cache")


def test_counts_are_of_all_copies_of_the_data_set_in_workers(tmp_path):
    kept = stream(tmp_path)

    list(without_batches(kept, 3, multiprocessing_context="fork"))

    assert kept.store.counts.written == 7
    assert pickle.loads(pickle.dumps(kept)).store._counts.is_shared()


@pytest.mark.parametrize("side", [128, 512])
def test_files_are_plain_npy_to_others(tmp_path, side):
    import numpy as np

    kept = ImageCache(tmp_path, PLAN, base=BASE)
    image = torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    kept.write("ab01", image)

    assert np.array_equal(np.load(tmp_path / "ab" / "01.npy"), image.numpy())
    assert torch.equal(kept.read("ab01"), image)
