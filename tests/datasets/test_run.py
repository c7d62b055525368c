from __future__ import annotations

import json

import pytest
from sample_folders import make_samples

from synthaug import ShardDataset
from synthaug.cli import main
from synthaug.generation import Plan


@pytest.fixture
def drawn(tmp_path):
    """Makes a folder of samples without drawing."""

    def make(count=5, *, name="drawn", order=None, **settings):
        return make_samples(tmp_path / name, order or range(count), **settings)

    return make


def plan_for(lora, count=5):
    return Plan.for_lora(lora, count=count, steps=1, label=1)


def test_the_command_writes_shards_and_prints_what_it_did(drawn, tmp_path, capsys):
    manifest = drawn(3)

    with pytest.raises(SystemExit) as ended:
        main(["shards", "--source", str(manifest.folder), "--out", str(tmp_path / "out"), "--per_shard", "2"])

    assert ended.value.code == 0
    assert "3 images in 2 shards, " in capsys.readouterr().out


def test_the_command_draws_a_plan_file(tiny_lora, tmp_path, capsys):
    (tmp_path / "plan.json").write_text(json.dumps(plan_for(tiny_lora, 2).to_json()))

    with pytest.raises(SystemExit):
        main(["shards", "--source", str(tmp_path / "plan.json"), "--out", str(tmp_path / "out")])

    assert "2 images in 1 shards, " in capsys.readouterr().out
    assert [target["index"] for _, target in ShardDataset(tmp_path / "out", target="dict")] == [0, 1]


def test_the_command_says_a_mistake_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["shards", "--source", str(tmp_path / "typo"), "--out", str(tmp_path / "out")])

    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("synthaug shards: there is no manifest.jsonl in ")
