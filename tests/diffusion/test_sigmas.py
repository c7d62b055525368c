from __future__ import annotations

import math

import pytest
import torch

from synthaug.diffusion.schedule import NoiseSchedule
from synthaug.diffusion.sigmas import COURSES, Levels, beta_quantile, levels_of_run
from synthaug.errors import SettingError

LEVELS = Levels.of(*NoiseSchedule().scales())
NOISY = Levels.of(*NoiseSchedule(last=1 / 250).scales())


def levels_of_sd15() -> list[float]:
    kept, found = 1.0, []
    for step in range(1000):
        kept *= 1 - (math.sqrt(0.00085) + step / 999 * (math.sqrt(0.012) - math.sqrt(0.00085))) ** 2
        found.append(math.sqrt((1 - kept) / kept))
    return found


SD15 = levels_of_sd15()


def between(t: float) -> float:
    low = min(int(t), 998)
    return SD15[low] ** (1 - t + low) * SD15[low + 1] ** (t - low)


def expected(name: str, n: int) -> list[float]:
    """k-diffusion's and A1111's published formulas, in plain numbers."""
    low, high = SD15[0], SD15[-1]
    ways = [i / (n - 1) for i in range(n)]
    ays = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]

    def from_table(at: float) -> float:
        i = min(int(at), 9)
        return math.exp(math.log(ays[i]) * (1 - at + i) + math.log(ays[i + 1]) * (at - i))

    return {
        "Uniform": lambda: [between(999 * (1 - w)) for w in ways],
        "Normal": lambda: [between(999 * (1 - w)) for w in ways],
        "SGM Uniform": lambda: [between(999 - 999 * i / n) for i in range(n)],
        "Karras": lambda: [(high ** (1 / 7) + w * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for w in ways],
        "Exponential": lambda: [high * (low / high) ** w for w in ways],
        "Polyexponential": lambda: [high * (low / high) ** w for w in ways],
        "Simple": lambda: [SD15[-(1 + int(i * 1000 / n))] for i in range(n)],
        "DDIM": lambda: [SD15[1 + i * (1000 // n)] for i in reversed(range(n))],
        "KL Optimal": lambda: [math.tan(i / n * math.atan(low) + (1 - i / n) * math.atan(high)) for i in range(n)],
        "Align Your Steps": lambda: [from_table(10 * w) for w in ways],
    }[name]()


@pytest.mark.parametrize("n", [10, 20, 30])
@pytest.mark.parametrize("name", [name for name in COURSES if name != "Beta"])
def test_levels_are_those_of_the_published_formula(name, n):
    found = levels_of_run(name, LEVELS, n).tolist()

    assert found == pytest.approx(expected(name, n), rel=1e-3)


@pytest.mark.parametrize("n", [10, 20, 30])
def test_beta_has_even_shares_of_its_distribution_between_its_levels(n):
    low, high = SD15[0], SD15[-1]

    found = levels_of_run("Beta", LEVELS, n).tolist()

    assert (found[0], found[-1]) == pytest.approx((high, low), rel=1e-4)
    shares = [share_below((sigma - low) / (high - low)) for sigma in found]
    assert shares == pytest.approx([1 - i / (n - 1) for i in range(n)], abs=1e-3)


def share_below(x: float) -> float:
    """Of Beta(0.6, 0.6), by the midpoint rule over u = t ** 0.6, which takes the pole at 0 away."""
    if x > 0.5:
        return 1 - share_below(1 - x)
    pieces = 4000
    step = max(0.0, x) ** 0.6 / pieces
    area = sum((1 - ((i + 0.5) * step) ** (1 / 0.6)) ** -0.4 for i in range(pieces)) * step / 0.6
    return area * math.gamma(1.2) / math.gamma(0.6) ** 2


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (2.0, 5.0), (0.5, 0.5)])
def test_the_quantile_is_where_the_share_lies_below(a, b):
    exact = {(0.5, 0.5): lambda p: math.sin(math.pi * p / 2) ** 2}.get((a, b))
    drawn = torch.distributions.Beta(a, b)
    torch.manual_seed(3)
    samples = drawn.sample((200_000,)).double()

    for p in (0.0, 0.013, 0.3, 0.5, 0.71, 0.999, 1.0):
        found = beta_quantile(p, a, b)
        assert float((samples <= found).double().mean()) == pytest.approx(p, abs=4e-3)
        if exact:
            assert found == pytest.approx(exact(p), rel=1e-9)


@pytest.mark.parametrize("levels", [LEVELS, NOISY], ids=["stock", "noise alone"])
@pytest.mark.parametrize("name", COURSES)
@pytest.mark.parametrize("n", [1, 2, 3, 37, 250, 1000])
def test_levels_fall_and_stay_within_those_of_the_base(name, n, levels):
    found = levels_of_run(name, levels, n)

    assert found.shape == (n,)
    assert (found.diff() < 0).all()
    assert float(found.max()) <= levels.loudest * 1.0001
    assert float(found.min()) >= levels.lowest * 0.99
    if name != "DDIM" or n == 1:
        assert float(found[0]) == pytest.approx(levels.loudest, rel=1e-3), "a base that ends in noise alone begins there"


def test_align_your_steps_has_a_table_of_its_own_for_sdxl():
    sd, xl = (levels_of_run("Align Your Steps", LEVELS, 11, family=family).tolist() for family in ("sd1", "sdxl"))

    assert sd[1:3] == pytest.approx([6.475, 3.861])
    assert xl[1:3] == pytest.approx([6.315, 3.771])


def test_time_and_level_are_each_others_inverse():
    t = torch.tensor([0.0, 0.4, 1.0, 500.25, 998.9, 999.0], dtype=torch.float64)

    assert torch.allclose(LEVELS.time_of(LEVELS.at(t)), t, atol=1e-6)
    assert LEVELS.time_of(torch.tensor([1e-9, 1e9])).tolist() == [0, 999]
    assert torch.allclose(LEVELS.kept.double(), NoiseSchedule().scales()[0].double() ** 2, atol=1e-6)


def test_more_steps_than_a_schedule_has_levels_are_refused():
    with pytest.raises(SettingError, match="Simple has as many levels as the base has training steps, 1000, got 1001 steps; take fewer"):
        levels_of_run("Simple", LEVELS, 1001)
