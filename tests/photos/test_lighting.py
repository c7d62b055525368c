from __future__ import annotations

import pytest
import torch

from synthaug.errors import SettingError
from synthaug.photos import prepare
from synthaug.photos.lighting import contrast, flattened
from synthaug.pixels import read_image, save_mask, save_png


def paper(height=90, width=120):
    """Plain paper in uneven light: a third as bright at the right as at the left."""
    light = torch.linspace(1, 1 / 3, width).expand(3, height, width) * torch.tensor([0.8, 0.78, 0.7])[:, None, None]
    return (light ** (1 / 2.2) * 255).round().to(torch.uint8)


def marked(picture, box, factor):
    """The picture with a box of it darker by a factor, in linear light, and the box's mask."""
    (top, bottom), (left, right) = box
    out, mask = picture.clone(), torch.zeros(picture.shape[1:], dtype=torch.uint8)
    part = ((picture[:, top:bottom, left:right].float() / 255) ** 2.2 * factor) ** (1 / 2.2) * 255
    out[:, top:bottom, left:right] = part.round().to(torch.uint8)
    mask[top:bottom, left:right] = 1
    return out, mask


def test_even_light_is_left_as_it_is():
    even = torch.full((3, 60, 80), 180, dtype=torch.uint8)

    assert (flattened(even).int() - 180).abs().max() <= 1


def test_uneven_light_is_taken_out_and_the_paper_keeps_its_colour():
    picture = paper()

    flat = flattened(picture)

    inner = flat[:, 10:-10, 10:-10].float()
    assert float(inner.mean(0).std()) < 0.25 * float(picture[:, 10:-10, 10:-10].float().mean(0).std())
    before, after = picture.float().mean((1, 2)), flat.float().mean((1, 2))
    assert torch.allclose(before / before.sum(), after / after.sum(), atol=0.01)


def test_a_thing_in_uneven_light_keeps_its_contrast():
    picture, mask = marked(paper(), ((40, 50), (20, 100)), 0.4)

    flat = flattened(picture)

    assert contrast(flat, mask) > 0.85 * contrast(picture, mask)


def test_a_stain_as_large_as_the_light_is_evened_out_and_that_is_measured():
    picture, mask = marked(torch.full((3, 90, 120), 200, dtype=torch.uint8), ((0, 90), (0, 70)), 0.5)

    assert contrast(flattened(picture), mask) < 0.7 * contrast(picture, mask)


def test_half_strength_takes_out_half():
    spread = [float(flattened(paper(), strength=s)[:, 10:-10, 10:-10].float().mean(0).std()) for s in (0.0, 0.5, 1.0)]

    assert spread[2] < spread[1] < spread[0]
    assert torch.equal(flattened(paper(), strength=0.0), paper())


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_a_strength_outside_of_its_range_is_refused(strength):
    with pytest.raises(SettingError, match="strength must be from 0 to 1"):
        flattened(paper(), strength=strength)


@pytest.mark.parametrize(("box", "warned"), [(((40, 50), (20, 100)), False), (((0, 90), (0, 70)), True)])
def test_prepare_evens_out_the_light_and_warns_where_a_marked_defect_fades(box, warned, tmp_path, capsys):
    folder = tmp_path / "photos"
    (folder / "mask").mkdir(parents=True)
    for index in range(5):
        picture, mask = marked(torch.full((3, 90, 120), 200 - index, dtype=torch.uint8) if warned else paper(), box, 0.5)
        picture[0, 0, index] = 9
        save_png(picture, folder / f"{index}.png")
        save_mask(mask, folder / "mask" / f"{index}.png")

    prepare(photos=folder, out=tmp_path / "out", size=(88, 120), trigger="x", flatten=1.0)

    said = "evening out the light takes away much of the marked defect in 5 photos, such as 0.png" in capsys.readouterr().out
    assert said == warned
    prepare(photos=folder, out=tmp_path / "plain", size=(88, 120), trigger="x")
    assert not read_image(tmp_path / "out" / "2.png").equal(read_image(tmp_path / "plain" / "2.png"))
