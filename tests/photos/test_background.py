from __future__ import annotations

import pytest
import torch
from conftest import make_photo
from still_life import still_life

from synthaug.errors import PhotoFolderError, SettingError
from synthaug.photos.background import COLOURS, Ground, chosen, colour_name, read_grounds, replaced, surface
from synthaug.photos.foreground import Foreground, find_foreground, linear
from synthaug.photos.shadows import displayed

BLUE = Ground(words="blue", colour=COLOURS["blue"])


def pictures(folder, names=("wooden_table_03.png", "PA_BDP01.png")):
    folder.mkdir()
    for index, name in enumerate(names):
        make_photo((30, 50), seed=index).save(folder / name)
    return folder


def test_colours_hex_folders_and_the_own_ground_are_understood(tmp_path):
    folder = pictures(tmp_path / "grounds")

    colour, hexed, own, files = read_grounds(f"light_gray, #3a6ea5,OWN,{folder}")

    assert colour == (Ground(words="light grey", colour=COLOURS["light grey"]),)
    assert hexed == (Ground(words="blue", colour=(0x3A, 0x6E, 0xA5)),)
    assert own == (Ground(words="its own background"),)
    assert [ground.words for ground in files] == ["patterned", "wooden table"]
    assert read_grounds("") == ()


def test_an_unknown_colour_is_refused_with_the_list():
    with pytest.raises(SettingError, match=r"a folder of pictures, a colour such as #3a6ea5, own, or one of: white, .*beige; got 'blu'"):
        read_grounds("white,blu")


def test_a_background_folder_must_hold_pictures_that_can_be_read(tmp_path):
    (tmp_path / "empty").mkdir()
    folder = pictures(tmp_path / "grounds")
    (folder / "half.jpg").write_bytes((folder / "PA_BDP01.png").read_bytes()[:200])

    with pytest.raises(PhotoFolderError, match=r"the background folder .*empty holds no picture"):
        read_grounds(str(tmp_path / "empty"))
    with pytest.raises(PhotoFolderError, match=r"every picture of a background folder must be readable: .*half\.jpg is damaged"):
        read_grounds(str(folder))


def test_every_ground_comes_once_before_one_comes_again(tmp_path):
    grounds = read_grounds(f"red,blue,own,{pictures(tmp_path / 'grounds')}")

    first = [chosen(grounds, "a.jpg", at) for at in range(8)]

    assert {next(part for part, some in enumerate(grounds) if one in some) for one in first[:4]} == {0, 1, 2, 3}
    assert {one.words for one in first if one.picture} == {"wooden table", "patterned"}
    assert first == [chosen(grounds, "a.jpg", at) for at in range(8)]
    assert len({tuple(chosen(grounds, f"{name}.jpg", at).words for at in range(4)) for name in range(20)}) > 3


def test_a_coloured_surface_has_its_colour_and_differs_a_little_by_seed():
    one, other = (surface(BLUE, (40, 60), seed=seed) for seed in (1, 2))

    assert one.shape == (3, 40, 60)
    assert (one.float().mean((1, 2)) - torch.tensor(BLUE.colour)).abs().max() < 12
    assert not torch.equal(one, other)
    assert torch.equal(one, surface(BLUE, (40, 60), seed=1))


def test_a_piece_of_a_picture_is_as_large_as_the_photo(tmp_path):
    ((ground, _),) = read_grounds(str(pictures(tmp_path / "grounds")))

    assert surface(ground, (64, 32), seed=3).shape == (3, 64, 32)


def test_the_thing_lies_on_the_new_ground_without_a_seam_of_the_old_one():
    photo = still_life(shift=(0, 0))
    found = find_foreground(photo.picture)
    ground = surface(BLUE, (180, 240), seed=0)

    out = replaced(photo.picture, found, ground)

    assert torch.equal(out[:, found.matte == 1], photo.picture[:, found.matte == 1])
    far = found.matte == 0
    assert (out.int() - ground.int()).abs()[:, far].float().mean() < 6


def test_a_soft_rim_mixes_with_the_new_ground_and_no_more_with_the_old_one():
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(100.0), indexing="ij")
    matte = ((26 - (x - 50).hypot(y - 40)) / 6).clamp(0, 1)
    thing, paper = (torch.tensor(light)[:, None, None].expand(3, 80, 100) for light in ([0.05, 0.1, 0.2], [0.8, 0.78, 0.7]))
    picture = displayed(matte * thing + (1 - matte) * paper)
    found = Foreground(matte=matte, ground=paper.clone(), others=torch.zeros(80, 100))
    ground = surface(BLUE, (80, 100), seed=0)

    out = replaced(picture, found, ground, shadows=1.0)

    ideal = displayed(matte * thing + (1 - matte) * linear(ground))
    rim = (matte > 0.1) & (matte < 0.9)
    assert (out.int() - ideal.int()).abs()[:, rim].float().mean() < 4


def test_a_shadow_goes_along_or_is_left_behind():
    photo = still_life()
    found = find_foreground(photo.picture)
    ground = surface(Ground(words="white", colour=(240, 240, 240)), (180, 240), seed=0)
    inner = photo.shadow & (found.matte < 0.02)

    kept, none = (
        linear(replaced(photo.picture, found, ground, shadows=s))[:, inner].mean() / linear(ground)[:, inner].mean() for s in (0.0, 1.0)
    )

    assert 0.5 < float(kept) < 0.8
    assert float(none) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("colour", "name"), [((250, 250, 250), "white"), ((205, 205, 210), "light grey"), ((180, 30, 30), "red"), ((0, 0, 0), "black")]
)
def test_colours_have_names(colour, name):
    assert colour_name(colour) == name
