"""The command line: find the command, load it and nothing else, turn the user's mistakes into a sentence.

Ends 0 when it worked, 1 when it failed (one sentence on stderr), 2 on wrong usage.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from synthaug.errors import SynthaugError

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("synthaug.demo.run:demo", "show the whole road on made-up photos: train, draw, screen, shard, evaluate"),
    "prepare": ("synthaug.photos.prepare:prepare", "check photos and write them upright, framed and captioned"),
    "caption": ("synthaug.photos.caption:caption", "write captions beside photos, or edit the ones that are there"),
    "fit": ("synthaug.training.run:fit", "train a LoRA on a folder of photos"),
    "generate": ("synthaug.generation.run:generate", "draw images with a LoRA or a plan"),
    "curate": ("synthaug.curation.run:curate", "screen images: odd ones, blanks and near-copies are crossed out with a reason"),
    "bank": ("synthaug.defects.bank_run:bank", "cut defects out of pictures with masks, to put them into normal pictures"),
    "shards": ("synthaug.datasets.run:shards", "write images as WebDataset shards"),
    "export": ("synthaug.datasets.export:export", "write pictures with masks as MVTec AD, CSV, COCO or YOLO"),
    "evaluate": ("synthaug.evaluation.run:evaluate", "measure what synthetic images do for a detector"),
    "plan": ("synthaug.models.plan:plan", "say whether a run fits a card's memory, and choose settings that do"),
    "inspect": ("synthaug.models.inspect:inspect", "say what is in a LoRA file"),
}
"""Command -> "module:function" and a line of help."""

_TAKES_ARGV = {"fit"}
"""Commands that read their options themselves."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        raise SystemExit(0 if words else 2)
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"synthaug {version('synthaug')}")
        raise SystemExit(0)
    if words[0] not in COMMANDS:
        print(f"synthaug: unknown command {words[0]!r}; choose one of: {', '.join(COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    raise SystemExit(_run(words[0], words[1:]))


def _run(command: str, words: list[str]) -> int:
    """Load a command, run it, and say in a sentence what went wrong."""
    try:
        _call(command, _load(COMMANDS[command][0]), words)
    except SynthaugError as error:
        print(f"synthaug {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"synthaug {command}: stopped; what was finished is kept, the same command goes on from there", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _load(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def _call(command: str, function: Callable[..., Any], words: list[str]) -> None:
    """Turn options into arguments: the function's signature and docstring are the parser."""
    if command in _TAKES_ARGV:
        function(words)
        return
    from jsonargparse import ArgumentParser, auto_cli, set_parsing_settings

    class Parser(ArgumentParser):
        """Leaves out the underscore that Python needs behind words of its own, as in ``from_``."""

        def parse_args(self, *args: Any, **settings: Any) -> Any:
            for action in self._actions:
                for option in [each for each in action.option_strings if each.endswith("_")]:
                    action.option_strings = [option.rstrip("_")]
                    self._option_string_actions[option.rstrip("_")] = self._option_string_actions.pop(option)
            return super().parse_args(*args, **settings)

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    auto_cli(function, args=words, prog=f"synthaug {command}", as_positional=False, parser_class=Parser)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    last = "synthaug COMMAND --help lists a command's options; each takes --config FILE.yaml"
    return "\n".join(["usage: synthaug COMMAND [options]", "", *lines, "", last])
