from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys

import pytest

from synthaug import cli
from synthaug.cli import COMMANDS, main
from synthaug.errors import SettingError


def run(*words):
    """Exit code of a command line."""
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code


@pytest.fixture
def command(monkeypatch):
    """Puts a function into the table of commands, under the name ``try``."""

    def put(function):
        monkeypatch.setitem(COMMANDS, "try", ("nowhere:nothing", "a trial"))
        monkeypatch.setattr(cli, "_load", lambda _: function)

    return put


def test_help_lists_every_command_with_its_line(capsys):
    assert run("--help") == 0

    said = capsys.readouterr().out
    assert all(f"  {name} " in said and line in said for name, (_, line) in COMMANDS.items())


def test_no_command_shows_the_same_and_is_wrong_usage(capsys):
    assert run() == 2

    assert "usage: synthaug COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_wrong_usage_and_lists_those_there_are(capsys):
    assert run("genrate") == 2

    assert capsys.readouterr().err == f"synthaug: unknown command 'genrate'; choose one of: {', '.join(COMMANDS)}\n"


def test_the_version_is_printed(capsys):
    assert run("--version") == 0

    assert capsys.readouterr().out.startswith("synthaug 0.")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_exists_and_every_option_is_described(name):
    module, _, function = COMMANDS[name][0].partition(":")

    found = getattr(importlib.import_module(module), function)

    assert found.__doc__
    if name not in cli._TAKES_ARGV:
        options = inspect.signature(found).parameters.values()
        assert all(option.kind in (option.KEYWORD_ONLY, option.VAR_KEYWORD) for option in options)
        stars = {inspect.Parameter.VAR_KEYWORD: "**"}
        assert not [one.name for one in options if f"        {stars.get(one.kind, '')}{one.name}: " not in found.__doc__]


def test_options_come_from_the_signature(command):
    seen = {}

    def trial(*, count: int = 3, name: str) -> None:
        """Try.

        Args:
            count: How often.
            name: What.
        """
        seen.update(count=count, name=name)

    command(trial)

    assert run("try", "--name=iriko", "--count=5") == 0
    assert seen == {"count": 5, "name": "iriko"}
    assert run("try", "--count=five", "--name=x") == 2
    assert run("try") == 2


def test_settings_can_come_from_a_file(command, tmp_path):
    seen = {}

    def trial(*, count: int = 3) -> None:
        """Try.

        Args:
            count: How often.
        """
        seen.update(count=count)

    command(trial)
    (tmp_path / "trial.yaml").write_text("count: 9")

    assert run("try", f"--config={tmp_path}/trial.yaml") == 0
    assert seen == {"count": 9}


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (SettingError("count must be at least 1, got 0"), "synthaug try: count must be at least 1, got 0\n"),
        (KeyboardInterrupt(), "synthaug try: stopped; what was finished is kept, the same command goes on from there\n"),
    ],
)
def test_a_mistake_of_the_user_is_one_sentence_and_exit_1(command, capsys, error, sentence):
    def trial() -> None:
        """Try."""
        raise error

    command(trial)

    assert run("try") == 1
    assert capsys.readouterr().err == sentence


def test_a_mistake_of_ours_keeps_its_traceback(command):
    def trial() -> None:
        """Try."""
        raise ZeroDivisionError("ours")

    command(trial)

    with pytest.raises(ZeroDivisionError, match="ours"):
        main(["try"])


def test_a_reader_that_goes_away_is_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)

    code = "cli.COMMANDS['t'] = ('builtins:print', ''); cli._call = lambda *_: print('x', flush=True); cli.main(['t'])"

    ended = subprocess.run(
        [sys.executable, "-c", f"from synthaug import cli; {code}"],
        stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )  # fmt: skip
    os.close(writing)

    assert (ended.returncode, ended.stderr) == (1, "")


def test_the_package_runs_as_a_module():
    ended = subprocess.run([sys.executable, "-m", "synthaug", "--version"], capture_output=True, text=True, check=True)

    assert ended.stdout.startswith("synthaug 0.")


def test_a_word_of_python_is_an_option_without_the_underscore_that_python_needs(command, capsys):
    seen = {}

    def trial(*, from_: str = "") -> None:
        """Try.

        Args:
            from_: Where from.
        """
        seen.update(from_=from_)

    command(trial)
    assert run("try", "--from=here") == 0
    assert seen == {"from_": "here"}
    assert run("try", "--help") == 0
    assert "--from FROM" in capsys.readouterr().out
