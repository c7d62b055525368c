from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from synthaug.pocket.pairs import render_pair
from synthaug.pocket.scenes import random_scene


@pytest.fixture(scope="module")
def scene():
    """A surface with a hole."""
    return replace(next(s for s in map(random_scene, range(100)) if s.thing is None), flaw="hole")


def test_a_pair_differs_at_its_flaw_and_nearly_nowhere_else(scene):
    pair = render_pair(scene, 5, size=48)

    apart = np.abs(pair.flawed.astype(int) - pair.again).max(-1)
    assert pair.mask.any()
    assert np.median(apart[pair.mask == 1]) > 20
    assert np.mean(apart[pair.mask == 0] == 0) > 0.7
    assert pair.contrast > 10


def test_the_second_picture_differs_by_sensor_noise_alone(scene):
    pair, still = render_pair(scene, 5, size=48, noise=0.02), render_pair(scene, 5, size=48, noise=0.0)

    assert np.array_equal(still.normal, still.again)
    assert 0 < np.abs(pair.normal.astype(int) - pair.again).mean() < 8


def test_a_scene_without_a_flaw_has_no_mask(scene):
    pair = render_pair(replace(scene, flaw=None), 5, size=32)

    assert not pair.mask.any()
    assert np.array_equal(pair.again, pair.flawed)
    assert pair.contrast == 0
