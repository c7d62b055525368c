from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from sample_folders import blocks_of, contents, make_samples, picture_of, request_of, screened
from torchvision import tv_tensors
from webdataset.autodecode import Decoder, imagehandler
from webdataset.tariterators import group_by_keys, tar_file_expander

from synthaug import ShardDataset, write_shards
from synthaug.errors import OutputError, SettingError, UnusableFileError
from synthaug.manifest import Manifest
from synthaug.pixels import digest, read_image, save_png
from synthaug.records import Request, Sample


@pytest.fixture
def drawn(tmp_path):
    """Makes a folder of samples without drawing."""

    def make(count=5, *, name="drawn", order=None, **settings):
        return make_samples(tmp_path / name, order or range(count), **settings)

    return make


def read(urls, **settings):
    return {target["index"]: image for image, target in ShardDataset(urls, target="dict", **settings)}


def test_samples_come_back_as_they_were_drawn(drawn, tmp_path):
    write_shards(drawn(5), tmp_path / "out", per_shard=2)

    rows = list(ShardDataset(tmp_path / "out", target="dict"))

    assert [target for _, target in rows] == [{"label": 0, "index": i, "seed": 1000 + i, "prompt": f"いりこ number {i}"} for i in range(5)]
    assert all(torch.equal(image, picture_of(target["index"])) for image, target in rows)
    assert all(isinstance(image, tv_tensors.Image) for image, _ in rows)


@pytest.mark.parametrize("label", [7, "腹切れ"])
def test_labels_are_read_by_us_and_by_webdataset_itself(drawn, tmp_path, label):
    write_shards(drawn(1, label=label), tmp_path / "out")

    [(_, ours)] = ShardDataset(tmp_path / "out")
    with (tmp_path / "out" / "shard-000000.tar").open("rb") as stream:
        [raw] = group_by_keys(tar_file_expander([{"url": "x", "stream": stream}]))
    theirs = Decoder([imagehandler("rgb8")])(raw)

    assert ours == label
    assert theirs["cls" if isinstance(label, int) else "label.txt"] == label
    assert torch.equal(torch.from_numpy(theirs["png"].copy()).permute(2, 0, 1), picture_of(0))


def test_each_sample_carries_what_is_needed_to_draw_it_again(drawn, tmp_path):
    manifest = screened(drawn(1), {0})
    write_shards(manifest, tmp_path / "out")

    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        members = {Path(m.name).suffix: tar.extractfile(m).read() for m in tar.getmembers()}

    about = json.loads(members[".json"])
    assert Request.from_json(about["request"]) == request_of(0)
    assert about["sha256"] == digest(picture_of(0))
    assert about["verdict"] == {"keep": True, "reason": "", "scores": {"typical": 0.5}}
    assert about["infotext"] == Image.open(io.BytesIO(members[".png"])).text["parameters"] == "いりこ\nSeed: 1000"


def test_a_jpeg_carries_the_infotext_where_a1111_looks_for_it(drawn, tmp_path):
    write_shards(drawn(1, picture=blocks_of), tmp_path / "out", image="jpg")

    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        [data] = [tar.extractfile(m).read() for m in tar.getmembers() if m.name.endswith(".jpg")]

    comment = Image.open(io.BytesIO(data)).getexif().get_ifd(0x8769)[0x9286]
    assert comment.removeprefix(b"UNICODE\0").decode("utf-16-be") == "いりこ\nSeed: 1000"
    assert float((read_image("x.jpg", data=data).float() - blocks_of(0).float()).abs().mean()) < 3


def test_equal_samples_give_equal_bytes_whatever_the_order_and_time_of_drawing(drawn, tmp_path):
    write_shards(drawn(5), tmp_path / "a", per_shard=2)
    later = drawn(name="later", order=[3, 0, 4, 1, 2])
    for file in later.folder.iterdir():
        os.utime(file, (1, 1))

    write_shards(later, tmp_path / "b", per_shard=2)

    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert set(contents(tmp_path / "a")) == {"index.json", *(f"shard-{n:06d}.tar" for n in range(3))}


def test_only_kept_samples_of_a_screened_folder_are_written(drawn, tmp_path):
    index = write_shards(screened(drawn(5), {1, 3}), tmp_path / "out")

    assert index.count == 2
    assert list(read(tmp_path / "out")) == [1, 3]


def test_the_index_names_every_shard_with_count_size_and_hash(drawn, tmp_path):
    write_shards(drawn(5), tmp_path / "out", per_shard=3)

    index = json.loads((tmp_path / "out" / "index.json").read_text())

    assert [(row["file"], row["count"]) for row in index["shards"]] == [("shard-000000.tar", 3), ("shard-000001.tar", 2)]
    for row in index["shards"]:
        data = (tmp_path / "out" / row["file"]).read_bytes()
        assert (row["bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


class Killed(BaseException):
    """Stands for whatever ends a run."""


def kill_after(monkeypatch, name, calls):
    """Let a function of the writer work a few times and then end the run; returns the number of calls so far."""
    from synthaug.datasets import shards

    real, seen = getattr(shards, name), []

    def counted(*args, **settings):
        seen.append(args)
        if calls is not None and len(seen) > calls:
            raise Killed
        return real(*args, **settings)

    monkeypatch.setattr(shards, name, counted)
    return seen


@pytest.mark.parametrize("images", [0, 1, 3, 4])
def test_a_killed_run_leaves_no_half_shard_and_goes_on_to_the_same_bytes(drawn, tmp_path, monkeypatch, images):
    manifest = drawn(5)
    write_shards(manifest, tmp_path / "whole", per_shard=2)
    with monkeypatch.context() as patch:
        kill_after(patch, "digest", images)
        with pytest.raises(Killed):
            write_shards(manifest, tmp_path / "killed", per_shard=2)
    left = contents(tmp_path / "killed")

    seen = kill_after(monkeypatch, "digest", None)
    write_shards(manifest, tmp_path / "killed", per_shard=2)

    whole = contents(tmp_path / "whole")
    assert contents(tmp_path / "killed") == whole
    assert left.items() - {("index.json", left.get("index.json"))} <= whole.items()
    assert len(seen) == 5 - images // 2 * 2  # finished shards were not made again


def test_a_run_killed_between_a_shard_and_its_index_goes_on_to_the_same_bytes(drawn, tmp_path, monkeypatch):
    manifest = drawn(4)
    write_shards(manifest, tmp_path / "whole", per_shard=2)
    with monkeypatch.context() as patch:
        patch.setattr("synthaug.datasets.shard_index.ShardIndex.write", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            write_shards(manifest, tmp_path / "killed", per_shard=2)

    write_shards(manifest, tmp_path / "killed", per_shard=2)

    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-600] + bytes(600))])
def test_a_lost_or_damaged_shard_is_written_again(drawn, tmp_path, harm):
    manifest = drawn(5)
    write_shards(manifest, tmp_path / "out", per_shard=2)
    before = contents(tmp_path / "out")
    path = tmp_path / "out" / "shard-000001.tar"
    path.write_bytes(b"\x01" + path.read_bytes()[1:])
    harm(path)

    write_shards(manifest, tmp_path / "out", per_shard=2)

    assert contents(tmp_path / "out") == before


def test_samples_added_at_the_end_extend_the_shards(drawn, tmp_path):
    write_shards(drawn(3), tmp_path / "out", per_shard=2)
    longer = drawn(6, name="longer")
    write_shards(longer, tmp_path / "fresh", per_shard=2)

    write_shards(longer, tmp_path / "out", per_shard=2)

    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_shards_of_other_samples_are_not_written_over(drawn, tmp_path):
    write_shards(drawn(4), tmp_path / "out", per_shard=2)
    before = contents(tmp_path / "out")
    other = drawn(name="other", order=[0, 1, 2, 9])

    with pytest.raises(SettingError, match=r"already holds shards of other samples \(shard-000001.tar is the first that differs\)"):
        write_shards(other, tmp_path / "out", per_shard=2)
    with pytest.raises(SettingError, match="already holds shards of other samples"):
        write_shards(drawn(name="fewer", count=1), tmp_path / "out", per_shard=2)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(("settings", "sentence"), [({"per_shard": 3}, "per_shard=2, got 3"), ({"image": "jpg"}, "image='png', got 'jpg'")])
def test_shards_of_another_layout_are_not_mixed(drawn, tmp_path, settings, sentence):
    write_shards(drawn(4), tmp_path / "out", per_shard=2)

    with pytest.raises(SettingError, match=sentence):
        write_shards(tmp_path / "drawn", tmp_path / "out", **{"per_shard": 2, **settings})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_more_is_named_with_what_is_finished(drawn, tmp_path, monkeypatch, number):
    manifest, out = drawn(5), tmp_path / "out"
    write_shards(manifest, tmp_path / "whole", per_shard=2)
    real = os.fsync
    synced = []

    def full(descriptor):
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("synthaug.datasets.shards.os.fsync", full)
        with pytest.raises(
            OutputError, match=rf"shard-000001.tar could not be written \({os.strerror(number)}\); 1 of 3 shards are finished"
        ):
            write_shards(manifest, out, per_shard=2)

    assert set(contents(out)) == {"index.json", "shard-000000.tar"}
    write_shards(manifest, out, per_shard=2)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_folder_that_cannot_be_made_is_named(drawn, tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(OutputError, match=r"file.out.shard-000000.tar could not be written \(Not a directory\); 0 of 1 shards"):
        write_shards(drawn(1), tmp_path / "file" / "out")


def test_an_image_that_was_changed_or_lost_is_refused_with_its_name(drawn, tmp_path):
    manifest = drawn(2)
    second = manifest.folder / manifest.samples[1].file
    save_png(picture_of(99), second)

    with pytest.raises(UnusableFileError, match=r"000001-\w+.png is not the image that was drawn"):
        write_shards(manifest, tmp_path / "out")
    second.unlink()
    with pytest.raises(UnusableFileError, match=r"000001-\w+.png cannot be read \(No such file"):
        write_shards(manifest, tmp_path / "out")


def test_sources_without_usable_samples_are_refused(drawn, tmp_path):
    with pytest.raises(SettingError, match=r"there is no manifest.jsonl in .*typo"):
        write_shards(tmp_path / "typo", tmp_path / "out")
    with pytest.raises(SettingError, match="holds no samples; draw some"):
        write_shards(Manifest(tmp_path / "empty"), tmp_path / "out")
    with pytest.raises(SettingError, match=r"all 2 samples in .* were rejected"):
        write_shards(screened(drawn(2), set()), tmp_path / "out")
    assert not (tmp_path / "typo").exists()


def test_samples_drawn_after_the_screening_are_not_lost_silently(drawn, tmp_path):
    manifest = screened(drawn(2), {0, 1})
    request = request_of(2)
    manifest.append(Sample(file="late.png", request=request, sha256=""))

    with pytest.raises(SettingError, match=r"1 of 3 samples in .* have no verdict; run synthaug curate again"):
        write_shards(manifest, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"per_shard": 0}, "per_shard must be 1 or more, got 0"), ({"image": "gif"}, "unknown image format 'gif'; choose one of: jpg, png")],
)
def test_settings_that_cannot_be_used_are_refused(drawn, tmp_path, settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        write_shards(drawn(1), tmp_path / "out", **settings)
