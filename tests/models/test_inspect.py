from __future__ import annotations

from synthaug.models.inspect import inspect


def test_inspect_prints_what_the_file_says_of_itself(tiny_lora, capsys):
    inspect(file=tiny_lora)
    short = capsys.readouterr().out
    inspect(file=tiny_lora, all=True)
    long = capsys.readouterr().out

    assert "caption" in short
    assert "a photo of iriko" in short
    assert "photos seen" in short
    assert "synthaug.base_hash" not in short
    assert "synthaug.base_hash" in long
