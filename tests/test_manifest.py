from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthaug.errors import OutputError, UnusableFileError
from synthaug.manifest import Manifest
from synthaug.records import Request, Sample, Verdict


def a_sample(index=0, prompt="a fish"):
    return Sample(file=f"{index:06d}.png", request=Request(prompt=prompt, seed=index, index=index), sha256=f"{index:064d}", seconds=0.25)


def drawn(folder, count=3):
    manifest = Manifest(folder)
    for index in range(count):
        manifest.append(a_sample(index))
    return manifest


def test_what_was_appended_is_read_again_in_the_order_of_the_plan(tmp_path):
    manifest = Manifest(tmp_path / "new" / "folder")
    for index in (2, 0, 1):
        manifest.append(a_sample(index))

    assert Manifest(manifest.folder).samples == [a_sample(0), a_sample(1), a_sample(2)]


@pytest.mark.parametrize("prompt", ["いりこ", "two\nlines", "a\u2028b", "a\x85b", 'quote " and \\'])
def test_any_prompt_survives(tmp_path, prompt):
    manifest = Manifest(tmp_path)
    manifest.append(a_sample(0, prompt))
    manifest.append(a_sample(1))

    assert [sample.request.prompt for sample in Manifest(tmp_path).samples] == [prompt, "a fish"]


@pytest.mark.parametrize("cut", [1, 40])
def test_a_line_cut_short_by_a_crash_is_dropped_and_drawing_goes_on(tmp_path, cut):
    drawn(tmp_path, 2)
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])

    again = Manifest(tmp_path)
    assert again.samples == [a_sample(0)]
    again.append(a_sample(1))

    assert Manifest(tmp_path).samples == [a_sample(0), a_sample(1)]


def test_a_first_line_cut_short_leaves_an_empty_folder(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"file": "0000')

    manifest = Manifest(tmp_path)
    manifest.append(a_sample())

    assert Manifest(tmp_path).samples == [a_sample()]


def test_reading_changes_nothing_on_disk(tmp_path):
    drawn(tmp_path, 1)
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(path.read_bytes() + b'{"file"')
    before = path.read_bytes()

    Manifest(tmp_path)

    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line", ["not json", "[]", '{"file": "a.png"}', '{"file": "a", "sha256": "0", "seconds": 0, "request": {"prompt": "x", "seed": -1}}']
)
def test_a_bad_line_in_the_middle_is_named_with_its_number(tmp_path, line):
    drawn(tmp_path, 1)
    path = tmp_path / "manifest.jsonl"
    path.write_text(path.read_text() + line + "\n" + path.read_text())

    with pytest.raises(UnusableFileError, match=r"manifest\.jsonl, line 2 is not a sample .*; delete the line to go on"):
        Manifest(tmp_path)


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path):
    (tmp_path / "manifest.jsonl").write_bytes(b"\xff\xfe\x00\n")

    with pytest.raises(UnusableFileError, match="line 1 is not a sample"):
        Manifest(tmp_path)


def test_a_request_is_there_only_when_its_picture_is(tmp_path):
    manifest = drawn(tmp_path, 2)
    (tmp_path / a_sample(1).file).write_bytes(b"a picture")

    assert a_sample(1).request in manifest
    assert a_sample(0).request not in manifest
    assert a_sample(5).request not in manifest


def test_verdicts_are_kept_and_replaced_as_a_whole(tmp_path):
    manifest = drawn(tmp_path)
    first, second, third = manifest.samples
    manifest.judge([(first, Verdict(keep=True, scores={"typical": 0.5})), (second, Verdict(keep=False, reason="odd: いりこ"))])

    again = Manifest(tmp_path)

    assert [sample.file for sample in again.kept] == [first.file]
    assert again.samples[1].verdict == Verdict(keep=False, reason="odd: いりこ")
    assert again.samples[2].verdict is None
    again.judge([(third, Verdict(keep=True))])
    assert again.samples == Manifest(tmp_path).samples
    assert [sample.file for sample in again.kept] == [third.file]


def test_no_verdicts_at_all_can_be_read_again(tmp_path):
    drawn(tmp_path).judge([])

    assert Manifest(tmp_path).kept == []


@pytest.mark.parametrize("content", ["nonsense\n", '{"keep": true}\n', '{"file": "a", "keep": true, "mood": 1}\n', "[]\n"])
def test_verdicts_that_cannot_be_read_are_refused_with_the_way_out(tmp_path, content):
    drawn(tmp_path)
    (tmp_path / "verdicts.jsonl").write_text(content)

    with pytest.raises(UnusableFileError, match=r"verdicts\.jsonl holds no verdicts .*; delete it and run synthaug curate again"):
        Manifest(tmp_path)


def test_a_full_disk_is_said_and_nothing_written_before_is_lost(tmp_path, monkeypatch):
    manifest = drawn(tmp_path, 2)

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OutputError, match=r"manifest\.jsonl could not be written \(No space left on device\); free some space"):
            manifest.append(a_sample(2, prompt="half a line"))
    assert len(manifest.samples) == 2
    manifest.append(a_sample(2))

    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["request"]["prompt"] for line in lines] == ["a fish"] * 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_the_device_that_is_always_full_is_said_too(tmp_path):
    manifest = Manifest(tmp_path)
    (tmp_path / "manifest.jsonl").symlink_to("/dev/full")

    with pytest.raises(OutputError, match="No space left on device"):
        manifest.append(a_sample())


def test_verdicts_on_a_full_disk_leave_the_old_ones(tmp_path, monkeypatch):
    manifest = drawn(tmp_path, 1)
    manifest.judge([(manifest.samples[0], Verdict(keep=True))])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(OutputError, match=r"verdicts\.jsonl could not be written"):
            manifest.judge([(manifest.samples[0], Verdict(keep=False))])

    assert len(manifest.kept) == len(Manifest(tmp_path).kept) == 1


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match=r"the folder .*file cannot be made \(File exists\)"):
        Manifest(tmp_path / "file")
