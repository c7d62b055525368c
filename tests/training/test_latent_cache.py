import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from synthaug.training.latent_cache import Cache, cache_folder

VALUES = {"mean": torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), "n": torch.tensor([7]), "on": torch.tensor([True, False])}


def get(cache: Cache, value: float | None = None, **depends_on) -> dict[str, torch.Tensor]:
    return cache.get_or_make("numbers", depends_on, lambda: VALUES if value is None else {"value": torch.tensor([value])})


def test_what_is_read_back_is_what_was_written_bit_by_bit(tmp_path):
    get(Cache(tmp_path), photo="a")

    again = Cache(tmp_path)
    read = get(again, 99.0, photo="a")

    assert read.keys() == VALUES.keys()
    assert all(torch.equal(read[key], value) and read[key].dtype == value.dtype for key, value in VALUES.items())
    assert (again.found, again.made) == (1, 0)


def test_whatever_an_entry_depends_on_makes_another_one(tmp_path):
    cache = Cache(tmp_path)
    for value, depends_on in enumerate([{"photo": "a", "size": [8, 8]}, {"photo": "b", "size": [8, 8]}, {"photo": "a", "size": [8, 16]}]):
        assert get(cache, float(value), **depends_on)["value"] == value

    assert cache.made == 3
    assert cache.get_or_make("others", {"photo": "a", "size": [8, 8]}, lambda: {"value": torch.tensor(5.0)})["value"] == 5


def test_a_change_of_the_code_makes_everything_again(tmp_path, monkeypatch):
    get(Cache(tmp_path), 1.0)
    monkeypatch.setattr("synthaug.training.latent_cache.FORMAT", 2)

    assert get(Cache(tmp_path), 2.0)["value"] == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "words", "other"])
def test_a_damaged_entry_is_made_again_and_said(damage, tmp_path, caplog):
    get(Cache(tmp_path), 1.0)
    (file,) = tmp_path.rglob("*.safetensors")
    data = file.read_bytes()
    broken = {"cut": data[:-2], "flipped": data[:-1] + bytes([data[-1] ^ 1]), "empty": b"", "words": b"not a tensor" * 9, "other": b""}
    if damage == "other":
        get(Cache(tmp_path / "elsewhere"), 5.0, photo="x")
        broken["other"] = next((tmp_path / "elsewhere").rglob("*.safetensors")).read_bytes()[:-4] + b"\0\0\0\0"
    file.write_bytes(broken[damage])
    cache = Cache(tmp_path)

    assert get(cache, 1.0)["value"] == 1
    assert cache.damaged == 1
    assert f"{file} is damaged; it is made again" in caplog.text
    assert get(Cache(tmp_path), 9.0)["value"] == 1


def test_a_full_disk_is_said_once_and_nothing_unfinished_stays(tmp_path, caplog, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    cache = Cache(tmp_path)

    assert [float(get(cache, float(i), photo=i)["value"]) for i in range(3)] == [0, 1, 2]
    assert caplog.text.count("nothing more is cached") == 1
    assert "No space left on device" in caplog.text
    assert cache.trouble == "No space left on device"
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_folder_that_cannot_be_made_is_said_and_training_goes_on(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "cache")

    assert get(cache, 3.0)["value"] == 3
    assert "training goes on, the next start encodes again" in caplog.text


def test_without_a_folder_everything_is_made_each_time():
    cache = Cache(None)

    assert get(cache, 1.0)["value"] == 1
    assert get(cache, 2.0)["value"] == 2
    assert (cache.made, cache.found) == (2, 0)


def test_two_runs_that_write_the_same_entry_at_once_do_not_hurt_each_other(tmp_path, monkeypatch):
    runs = [Cache(tmp_path), Cache(tmp_path)]

    def and_the_other_run_comes_in_between(entry, path, **settings):
        monkeypatch.undo()
        save_file(entry, path, **settings)
        assert get(runs[1], 1.0)["value"] == 1

    monkeypatch.setattr("synthaug.training.latent_cache.save_file", and_the_other_run_comes_in_between)

    assert get(runs[0], 1.0)["value"] == 1
    assert [(run.made, run.trouble) for run in runs] == [(1, "")] * 2
    assert get(Cache(tmp_path), 9.0)["value"] == 1
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == 1


def test_the_cache_is_the_users_own_unless_another_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("auto") == tmp_path / "synthaug"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("auto") == Path.home() / ".cache" / "synthaug"
    assert cache_folder(str(tmp_path / "mine")) == tmp_path / "mine"
    assert cache_folder("none") is None
