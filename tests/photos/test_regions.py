from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from synthaug.photos.regions import blurred, filled, grown, opened, parts, shrunk


def blobs(seed, height=23, width=31, share=0.55):
    return (torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share).float()


def flooded(area):
    """Connected parts by walking, as an independent way."""
    left = {(int(y), int(x)) for y, x in area.nonzero()}
    found = []
    while left:
        part, todo = set(), [left.pop()]
        while todo:
            y, x = todo.pop()
            part.add((y, x))
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    todo.append(near)
        found.append(frozenset(part))
    return found


@pytest.mark.parametrize("reach", [0, 1, 2, 4, 7, 40])
def test_growing_is_the_largest_value_in_a_square(reach):
    plane = torch.rand(17, 29, generator=torch.Generator().manual_seed(reach))

    expected = F.max_pool2d(F.pad(plane[None], (reach,) * 4, value=-1.0), 2 * reach + 1, 1)[0]

    assert torch.equal(grown(plane, reach), expected)
    assert torch.equal(shrunk(plane, reach), -grown(-plane, reach))


@pytest.mark.parametrize("reach", [1, 5, 40])
def test_blurring_is_the_mean_of_a_square(reach):
    planes = torch.rand(2, 17, 29, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    expected = F.avg_pool2d(F.pad(planes[None], (reach,) * 4, mode="replicate"), 2 * reach + 1, 1)[0]

    assert torch.allclose(blurred(planes.float(), reach), expected.float(), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_what_can_be_walked_to_without_leaving_the_area(seed):
    area = blobs(seed)

    found = parts(area, least=0)

    assert {frozenset((int(y), int(x)) for y, x in part.nonzero()) for part in found} == set(flooded(area))
    sizes = [int(part.sum()) for part in found]
    assert sizes == sorted(sizes, reverse=True)


def test_small_parts_are_left_out():
    area = torch.zeros(20, 20)
    area[2:8, 2:8] = 1
    area[15, 15] = 1

    assert [int(part.sum()) for part in parts(area, least=0.01)] == [36]
    assert parts(torch.zeros(5, 5)) == []


def test_what_an_area_encloses_is_filled_and_a_bay_is_not():
    area = torch.zeros(12, 12)
    area[2:10, 2:10] = 1
    area[4:6, 4:6] = 0
    area[7, 5:12] = 0

    full = filled(area)

    assert full[4:6, 4:6].min() == 1
    assert full[7, 6] == 0


def test_opening_takes_away_a_thin_bridge_and_keeps_the_thick_parts_whole():
    area = torch.zeros(20, 30)
    area[4:14, 2:12] = 1
    area[8, 12:28] = 1

    out = opened(area, 2)

    assert torch.equal(out[:, :12], area[:, :12])
    assert out[:, 16:].sum() == 0
