from __future__ import annotations

import numpy as np
import pytest

from synthaug.pocket.captions import caption_of
from synthaug.pocket.fish import KINDS
from synthaug.pocket.flaws import FLAWS
from synthaug.pocket.grounds import GROUNDS
from synthaug.pocket.pictures import PART, PictureSet, render_part
from synthaug.pocket.scenes import OBJECTS, random_scene, render

SCENES = [random_scene(seed) for seed in range(600)]


def test_a_picture_is_a_function_of_its_scene_and_seed():
    for seed in range(12):
        scene = random_scene(seed)
        pictures = [render(random_scene(seed), 5, 32), render(scene, 5, 32)]

        assert np.array_equal(pictures[0].pixels, pictures[1].pixels)
        assert not np.array_equal(pictures[0].pixels, render(scene, 6, 32).pixels)


def test_facts_and_captions_are_functions_of_their_seeds():
    assert [random_scene(seed) for seed in range(50)] == SCENES[:50]
    assert [caption_of(scene, 3) for scene in SCENES] == [caption_of(scene, 3) for scene in SCENES]
    assert any(caption_of(scene, 3) != caption_of(scene, 4) for scene in SCENES)


def test_a_picture_is_uint8_of_the_wanted_size_with_masks_of_the_same():
    picture = render(SCENES[0], 0, 48)

    assert (picture.pixels.shape, picture.pixels.dtype) == ((48, 48, 3), np.uint8)
    assert picture.objects.shape == picture.flaws.shape == (48, 48)


def test_a_caption_names_the_class_of_what_lies_there():
    for scene in SCENES:
        caption = caption_of(scene, 0)
        if scene.thing is None:
            assert scene.ground in caption
        else:
            assert scene.thing in caption or OBJECTS[scene.thing].plural in caption
        assert (f"with a {scene.flaw}" in caption) == (scene.flaw is not None)


def test_no_caption_names_a_class_that_is_not_there():
    for scene in SCENES:
        words = caption_of(scene, 1).replace(",", "").split()
        others = {name for name in OBJECTS if name not in (scene.thing, scene.ground)}

        assert not others & set(words)


def test_iriko_is_not_among_what_pocket_learns():
    spoken = {word for scene in SCENES for seed in range(3) for word in caption_of(scene, seed).replace(",", "").split()}
    known = {*OBJECTS, *GROUNDS, *FLAWS, *KINDS, *(colour for thing in OBJECTS.values() for colour in thing.colours)}

    assert not {"iriko", "sardine", "sardines", "anchovy", "niboshi", "belly-burst", "dried"} & (spoken | known)


def test_every_class_ground_and_flaw_is_drawn():
    assert {scene.thing for scene in SCENES} == {*OBJECTS, None}
    assert {scene.ground for scene in SCENES} == set(GROUNDS)
    assert {scene.flaw for scene in SCENES} == {*FLAWS, None}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_covers_part_of_the_picture_and_is_seen(name):
    scene = next(scene for scene in SCENES if scene.thing == name and len(scene.poses) == 1 and scene.flaw is None)
    picture = render(scene, 1, 64)
    on, off = picture.pixels[picture.objects == 1], picture.pixels[picture.objects == 0]

    assert 0.005 < picture.objects.mean() < 0.95
    assert np.abs(on.mean(0) - off.mean(0)).max() > 2 or abs(on.std() - off.std()) > 2


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_is_marked_where_the_picture_changed(flaw):
    scene = next(scene for scene in SCENES if scene.flaw == flaw)

    picture = render(scene, 1, 64)

    assert 0 < picture.flaws.sum() < 0.6 * 64 * 64
    assert not render(next(s for s in SCENES if s.flaw is None), 1, 64).flaws.any()


def test_a_part_of_the_set_is_rendered_once_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr("synthaug.pocket.pictures.PART", 3)
    for part in (0, 1):
        render_part(part, folder=tmp_path, seed=4, size=16)
    before = (tmp_path / "pictures-00000.npy").stat().st_mtime_ns

    render_part(0, folder=tmp_path, seed=4, size=16)
    pictures = PictureSet(tmp_path)

    assert PART == 1000
    assert (tmp_path / "pictures-00000.npy").stat().st_mtime_ns == before
    assert len(pictures) == 6
    assert pictures.pixels([5, 0]).shape == (2, 16, 16, 3)
    assert all(len(facts["captions"]) == 4 for facts in pictures.facts)


def test_covers_say_which_share_of_each_cell_is_object_and_flaw(tmp_path, monkeypatch):
    monkeypatch.setattr("synthaug.pocket.pictures.PART", 12)
    render_part(0, folder=tmp_path, seed=4, size=32)

    covers, facts = PictureSet(tmp_path).covers(), PictureSet(tmp_path).facts

    assert covers.shape == (12, 2, 4, 4)
    assert [bool(cover[0].any()) for cover in covers] == [fact["thing"] is not None for fact in facts]
    assert all(not cover[1].any() for cover, fact in zip(covers, facts, strict=True) if fact["flaw"] is None)
    assert any(cover[1].any() for cover in covers)


def test_a_folder_without_pictures_says_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no rendered pictures; run `python -m synthaug.pocket.pretrain` first"):
        PictureSet(tmp_path)
