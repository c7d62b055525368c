"""Every recipe must be one that ``synthaug fit`` takes; nothing is loaded for that."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from synthaug.training.run import fit

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def leaves(table, at=()):
    """Every value of nested tables with the names that lead to it."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*at, key))
        else:
            yield (*at, key), value


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_fit_takes_every_key_and_value_of_a_recipe(recipe, capsys):
    with pytest.raises(SystemExit, match="^0$"):
        fit(["--config", str(recipe), "--data.photos", "photos", "--print_config"])

    taken = dict(leaves(yaml.safe_load(capsys.readouterr().out)))
    for names, value in leaves(yaml.safe_load(recipe.read_text(encoding="utf-8"))):
        assert taken[names] == value, names


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_is_for_and_how_it_is_called(recipe):
    first, *others = recipe.read_text(encoding="utf-8").splitlines()

    assert first.startswith("# ")
    assert any(f"synthaug fit --config recipes/{recipe.name}" in line for line in others[:4])


def test_there_is_a_recipe_for_every_kind_of_card_and_use():
    assert {path.stem for path in RECIPES} >= {"defect", "iriko", "sd15-8gb", "sd15-8gb-pascal", "sdxl-8gb"}
