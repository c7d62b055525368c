from __future__ import annotations

import json
import tarfile

import pytest
from sample_folders import contents

from synthaug import ShardDataset, write_shards
from synthaug.errors import OutputError, SettingError
from synthaug.generation import Plan, Sampler


def read(urls, **settings):
    return {target["index"]: image for image, target in ShardDataset(urls, target="dict", **settings)}


class Killed(BaseException):
    """Stands for whatever ends a run."""


def plan_for(lora, count=5):
    return Plan.for_lora(lora, count=count, steps=1, label=1)


def test_a_plan_is_drawn_into_shards_and_says_how(tiny_lora, tmp_path):
    plan = plan_for(tiny_lora)

    write_shards(plan, tmp_path / "out", per_shard=3, draw_batch=2)

    again = Sampler(plan.base)(list(plan))
    images = read(tmp_path / "out")
    assert list(images) == [0, 1, 2, 3, 4]
    assert all(int((images[i].int() - again[i].int()).abs().max()) <= 1 for i in images)
    assert set(contents(tmp_path / "out")) == {"index.json", "shard-000000.tar", "shard-000001.tar"}
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        about = json.loads(tar.extractfile(tar.getmembers()[1]).read())
    assert about["infotext"].startswith("a photo of iriko <lora:iriko:1>\nSteps: 1, Sampler: DPM++ 2M")
    assert 'Lora hashes: "iriko: ' in about["infotext"]


def test_a_killed_plan_draws_only_what_is_missing_and_ends_with_the_same_bytes(tiny_lora, tmp_path, monkeypatch):
    plan = plan_for(tiny_lora, count=7)
    write_shards(plan, tmp_path / "whole", per_shard=4, draw_batch=2)
    draw, seen = Sampler.draw, []

    def drawing(self, requests, *given):
        seen.append([request.index for request in requests])
        if len(seen) == 4:
            raise Killed
        return draw(self, requests, *given)

    monkeypatch.setattr(Sampler, "draw", drawing)
    with pytest.raises(Killed):
        write_shards(plan, tmp_path / "killed", per_shard=4, draw_batch=2)
    write_shards(plan, tmp_path / "killed", per_shard=4, draw_batch=2)

    assert seen == [[0, 1], [2, 3], [4, 5], [6], [6]]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_plan_with_a_lora_that_was_trained_again_is_not_mixed_in(tiny_lora, tiny_base, tmp_path):
    from conftest import make_tiny_lora

    lora = tmp_path / "iriko.safetensors"
    make_tiny_lora(tiny_base, seed=0).write(lora)
    write_shards(plan_for(lora, 2), tmp_path / "out")
    make_tiny_lora(tiny_base, seed=1).write(lora)

    with pytest.raises(SettingError, match="already holds shards of other samples"):
        write_shards(plan_for(lora, 2), tmp_path / "out")


def test_a_full_disk_while_a_plan_is_drawn_is_named_with_what_is_finished(tiny_lora, tmp_path, monkeypatch):
    def full(*_args, **_settings):
        raise OutputError("000000.png could not be written (No space left on device); free some space")

    monkeypatch.setattr("synthaug.generation.folder.save_image", full)

    with pytest.raises(OutputError, match=r"shard-000000.tar could not be written \(000000.png .* 0 of 1 shards are finished"):
        write_shards(plan_for(tiny_lora, 1), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar*"))


def test_an_empty_plan_and_an_empty_batch_are_refused(tiny_lora, tmp_path):
    with pytest.raises(SettingError, match="got count=0; give a count"):
        write_shards(plan_for(tiny_lora, 0), tmp_path / "out")
    with pytest.raises(SettingError, match="draw_batch must be 1 or more, got 0"):
        write_shards(plan_for(tiny_lora, 1), tmp_path / "out", draw_batch=0)
