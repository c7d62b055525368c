from pathlib import Path

import pytest

from synthaug.errors import OutputError, SettingError
from synthaug.generation import Plan, RegularImages, Sampler
from synthaug.photos.folder import read_folder
from synthaug.pixels import read_image

WANTED = {"caption": "a photo of a {fish|screw}", "count": 4, "size": (32, 40), "seed": 3, "mark": "ab"}


def drawn(base: Path, cache: Path, how: dict | None = None, **other) -> Path:
    return RegularImages(**{"steps": 2, "device": "cpu", **(how or {})}).draw_regular(str(base), cache=cache, **{**WANTED, **other})


def test_pictures_are_those_of_a_plan_without_lora_each_with_its_caption(tiny_base, tmp_path):
    folder = drawn(tiny_base, tmp_path)

    plan = Plan(prompts=(WANTED["caption"],), count=4, size=(32, 40), seed=3, steps=2, base=str(tiny_base))
    found = read_folder(folder, caption="", fewest=1).photos
    assert [photo.caption for photo in found] == [request.prompt for request in plan]
    assert len({photo.caption for photo in found}) == 2
    by_sampler = Sampler(str(tiny_base), device="cpu")(list(plan))
    assert all((read_image(photo.path).int() - picture.int()).abs().max() <= 1 for photo, picture in zip(found, by_sampler, strict=True))


def test_pictures_are_drawn_once(tiny_base, tmp_path, monkeypatch):
    folder = drawn(tiny_base, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
    monkeypatch.setattr(Sampler, "__call__", lambda *_: pytest.fail("drawn again"))
    monkeypatch.setattr("synthaug.generation.networks.load_base", lambda *_, **__: pytest.fail("the base was loaded again"))

    assert drawn(tiny_base, tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"} == before


def test_a_run_that_was_stopped_goes_on(tiny_base, tmp_path, monkeypatch, capsys):
    draw = Sampler.draw

    def once(self, requests, images=None):
        if requests[0].index >= 2:
            raise KeyboardInterrupt
        return draw(self, requests, images)

    monkeypatch.setattr(Sampler, "draw", once)
    with pytest.raises(KeyboardInterrupt):
        drawn(tiny_base, tmp_path, {"batch_size": 2})
    monkeypatch.undo()
    capsys.readouterr()

    folder = drawn(tiny_base, tmp_path, {"batch_size": 2})

    assert "regularisation pictures: 2 of 2 drawn" in capsys.readouterr().out
    assert len(list(folder.glob("*.png"))) == len(list(folder.glob("*.txt"))) == 4


@pytest.mark.parametrize(
    ("how", "other"),
    [
        ({}, {"mark": "cd"}), ({}, {"caption": "a screw"}), ({}, {"count": 3}), ({}, {"size": (40, 32)}), ({}, {"seed": 4}),
        ({"steps": 3}, {}), ({"guidance": 2.0}, {}), ({"negative_prompt": "a cat"}, {}), ({"sampler": "DDIM"}, {}),
    ],
    ids=str,
)  # fmt: skip
def test_whatever_pictures_depend_on_has_a_folder_of_its_own(how, other, tiny_base, tmp_path, monkeypatch):
    monkeypatch.setattr("synthaug.generation.regular.draw_into", lambda *_, **__: 0)

    assert drawn(tiny_base, tmp_path, how, **other) != drawn(tiny_base, tmp_path)
    assert drawn(tiny_base, tmp_path, {"batch_size": 2, "precision": "fp32"}) == drawn(tiny_base, tmp_path)


def test_a_folder_that_cannot_be_made_is_a_sentence(tiny_base, tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(OutputError, match=r"could not be written \(.*\); choose another --data.cache"):
        drawn(tiny_base, tmp_path / "file")


@pytest.mark.parametrize(
    ("how", "sentence"), [({"steps": 0}, "steps must be 1 to 1000, got 0"), ({"batch_size": 0}, "batch_size must be at least 1, got 0")]
)
def test_a_number_outside_its_range_is_refused(how, sentence):
    with pytest.raises(SettingError, match=sentence):
        RegularImages(**how)
