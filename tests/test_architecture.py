"""The house rules that can be checked: who may import whom, what is public, what an import costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

import synthaug

HOUSE = Path(synthaug.__file__).parent
GROUND = {"errors", "seeds", "records", "pixels", "templates", "manifest"}
EVERYTHING = {path.stem for path in HOUSE.iterdir() if path.is_dir() or path.suffix == ".py"}

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "seeds": set(),
    "records": {"errors"},
    "pixels": {"errors"},
    "templates": {"errors"},
    "diffusion": {"errors"},
    "prompts": {"errors"},
    "manifest": {"errors", "records", "pixels"},
    "photos": GROUND,
    "lora": {"errors"},
    "models": GROUND | {"lora", "pocket"},
    "pocket": GROUND | {"diffusion"},
    "training": GROUND | {"photos", "models", "diffusion", "prompts", "lora"},
    "generation": GROUND | {"photos", "models", "diffusion", "prompts", "lora"},
    "curation": GROUND | {"photos"},
    "defects": GROUND | {"photos", "generation", "curation"},
    "datasets": GROUND | {"generation", "defects"},
    "evaluation": GROUND | {"photos", "datasets", "defects"},
    "studio": EVERYTHING,
    "cli": {"errors"},
    "__main__": {"cli"},
    "demo": EVERYTHING,  # docs/decisions/0005
    "__init__": EVERYTHING,  # names for type checkers; at run time they are loaded by name
}
"""Room -> rooms it may import: the table of DESIGN.md, section 4."""

COMMANDS = {"synthaug.pocket.distill", "synthaug.pocket.evaluate", "synthaug.pocket.likeness", "synthaug.pocket.spot_check"}
"""Modules that are run and never imported by another room, so that they may use every room: docs/decisions/0008 and 0015."""

LIVES_IN = {
    "lightning": {"training", "evaluation", "pocket", "demo"},
    "diffusers": {"models", "training", "generation", "pocket"},
    "webdataset": {"datasets"},
    "ray": {"datasets"},
}
"""Library -> the only rooms that may import it."""

PUBLIC = {
    "SyntheticDataset": "datasets",
    "SyntheticVariation": "datasets",
    "SyntheticDefect": "defects",
    "LoraTraining": "training",
    "PhotoData": "training",
    "Plan": "generation",
    "Request": "records",
    "Sampler": "generation",
    "write_shards": "datasets",
    "ShardDataset": "datasets",
    "LoraFile": "lora",
    "evaluate_gain": "evaluation",
}
"""Public name -> the room it comes from: DESIGN.md, section 5."""

MODULES = {".".join(path.relative_to(HOUSE.parent).with_suffix("").parts): path for path in sorted(HOUSE.rglob("*.py"))}


def room_of(module: str) -> str:
    """``synthaug.lora.file`` lies in ``lora``."""
    return module.split(".")[1]


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of everything that a piece of code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_part(name: str) -> str | None:
    """The module of ours that ``synthaug.lora.file.LoraFile`` needs; None for other people's."""
    while name.startswith("synthaug."):
        for candidate in (name, f"{name}.__init__"):
            if candidate in MODULES:
                return candidate
        name = name.rpartition(".")[0]
    return None


@cache
def parse(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_what_the_table_allows(module):
    room = room_of(module)

    rooms = {room_of(name) for found in imported(parse(module)) if (name := module_part(found)) and room_of(name) != "__init__"}

    assert room in MAY_IMPORT, f"{room} is not in the table"
    if module in COMMANDS:
        return
    assert not rooms - MAY_IMPORT[room] - {room}, f"{module} imports {rooms - MAY_IMPORT[room] - {room}}"


@pytest.mark.parametrize("module", MODULES)
def test_no_room_imports_a_command(module):
    if module not in COMMANDS:
        assert not {module_part(found) for found in imported(parse(module))} & COMMANDS


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_imported_only_where_it_lives(module):
    libraries = {name.split(".")[0] for name in imported(parse(module))}

    astray = {library for library in libraries & set(LIVES_IN) if room_of(module) not in LIVES_IN[library]}

    assert not astray


def test_training_and_generation_never_import_each_other():
    assert "training" not in MAY_IMPORT["generation"]
    assert "generation" not in MAY_IMPORT["training"]


def test_modules_do_not_import_each_other_in_a_circle():
    needs: dict[str, set[str]] = {}
    for module in MODULES:
        if module == "synthaug.__init__":
            continue
        top = ast.Module([node for node in parse(module).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        found = {name for line in imported(top) if (name := module_part(line)) and name != "synthaug.__init__"}
        packages = {f"synthaug.{room_of(name)}.__init__" for name in found if room_of(name) != room_of(module)}
        needs[module] = found | (packages & set(MODULES))

    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")

    assert len(order) == len(needs)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_names_what_it_offers_and_its_name_says_something(module):
    assigned = {t.id for node in parse(module).body for t in _targets(node) if isinstance(t, ast.Name)}

    assert "__all__" in assigned or module == "synthaug.__main__"
    assert not {"utils", "util", "helpers", "helper", "common", "misc"} & set(module.split("."))


def _targets(node: ast.stmt) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


@pytest.mark.parametrize("module", MODULES)
def test_a_file_has_at_most_300_lines(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 300


def test_a_room_lies_at_most_two_levels_deep():
    assert max(len(module.split(".")) for module in MODULES) == 3


def test_public_names_are_exactly_those_of_the_design():
    there = {name for name, room in PUBLIC.items() if (HOUSE / room).exists()}

    assert set(synthaug.__all__) == there
    assert dir(synthaug) == sorted(there)


@pytest.mark.parametrize("name", synthaug.__all__)
def test_a_public_name_resolves_and_is_documented(name):
    found = getattr(synthaug, name)

    assert found.__name__ == name
    assert found.__doc__
    assert not found.__doc__.startswith(f"{name}("), "a dataclass without a docstring writes its signature there"


@pytest.mark.parametrize("name", synthaug.__all__)
def test_every_argument_of_a_public_name_is_described(name):
    found = getattr(synthaug, name)
    wanted = {p.name for p in inspect.signature(found).parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}

    assert not {argument for argument in wanted - fields_with_a_docstring(found) if f"    {argument}: " not in found.__doc__}


def fields_with_a_docstring(found: object) -> set[str]:
    """Fields of a record whose meaning stands on the line below."""
    bodies = [ast.parse(inspect.getsource(kind)).body[0].body for kind in _own_kinds(found)]
    pairs = [pair for body in bodies for pair in pairwise(body)]
    return {a.target.id for a, b in pairs if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr) and isinstance(b.value, ast.Constant)}


def _own_kinds(found: object) -> list[object]:
    """A class and those of ours that it inherits from."""
    return [kind for kind in getattr(found, "__mro__", (found,)) if getattr(kind, "__module__", "").startswith("synthaug.")]


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'synthaug' has no attribute 'utils'"):
        importlib.import_module("synthaug").utils  # noqa: B018  # asking is the test


COST = """
import resource, sys
{code}
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, *sorted({{"torch", "numpy", "lightning", "jsonargparse"}} & set(sys.modules)), sep="|")
"""

HELP = """
from synthaug.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
"""


@pytest.mark.parametrize(("code", "seconds"), [("import synthaug", 0.3), (HELP, 0.5)], ids=["import", "help"])
def test_importing_and_asking_for_help_cost_next_to_nothing(code, seconds):
    runs = [
        subprocess.run([sys.executable, "-c", COST.format(code=code)], check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        for _ in range(3)
    ]

    times, loaded = zip(*[(float(run.split("|")[0]), run.split("|")[1:]) for run in runs], strict=True)

    assert loaded == ([], [], [])
    assert min(times) < seconds
