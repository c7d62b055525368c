import pytest

from synthaug.cli import main
from synthaug.demo.run import demo
from synthaug.errors import SettingError


def test_a_folder_with_something_else_in_it_is_never_emptied(tmp_path):
    treasure = tmp_path / "thesis.txt"
    treasure.write_text("three years of work", encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model:\n", encoding="utf-8")

    with pytest.raises(SettingError, match=r"the demo empties its folder first, .* holds something else; give --out another folder"):
        demo(out=tmp_path, recipe=recipe)

    assert treasure.read_text(encoding="utf-8") == "three years of work"


def test_a_missing_recipe_is_a_sentence_and_exit_1(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--out", str(tmp_path / "demo"), "--recipe", str(tmp_path / "none.yaml")])

    assert ended.value.code == 1
    assert "the demo needs its recipe, there is no" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_the_demo_leaves_a_report_with_everything_in_it(tmp_path):
    out = tmp_path / "demo"

    demo(out=out, images=24, sound=24, test=20)

    report = (out / "report.html").read_text(encoding="utf-8")
    for title in ("What the base draws", "What the LoRA draws", "Crossed out", "What it did for the detector", "<svg", "AUROC"):
        assert title in report
    assert 'src="data:image/jpeg;base64,' in report
    assert "http" not in report
    assert (out / "iriko.safetensors").exists()
    assert list((out / "shards").glob("*.tar"))
