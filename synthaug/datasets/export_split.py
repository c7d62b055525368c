"""Split pictures into training and test so that what belongs together stays together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from synthaug.errors import SettingError
from synthaug.seeds import seed_for

__all__ = ["Side", "split"]

Side = Literal["train", "test"]


def split(links: Sequence[Sequence[str]], defective: Sequence[bool], *, share: float, seed: int, defects_to_test: bool) -> list[Side]:
    """Where each picture goes; pictures that share a link, directly or through others, go to the same side.

    Sets of linked pictures with a defect among them, and those without, are split apart, each by ``share`` of its number of sets and at
    least one to either side. The order in which sets are taken for the test is a function of the seed and their links alone.

    Args:
        links: Names of what each picture belongs to; at least one each.
        defective: Whether it shows, or is the source of, a defect.
        share: Of the sets that go to the test, in [0, 1); 0 puts everything into training, unless it must be in the test.
        seed: Another one splits otherwise.
        defects_to_test: Whether every set with a defect is for the test, as layouts have it whose training part is normal.

    Raises:
        SettingError: If there is one set alone where two are needed.

    Example:
        >>> split([["a"], ["a", "b"], ["b"], ["c"]], [False] * 4, share=0.5, seed=0, defects_to_test=False)
        ['train', 'train', 'train', 'test']
    """
    roots = _joined(links)
    bad = {root for root, is_bad in zip(roots, defective, strict=True) if is_bad}
    names: dict[int, str] = {}
    for root, own in zip(roots, links, strict=True):
        names[root] = min([*own, *([names[root]] if root in names else [])])
    test = set(bad) if defects_to_test else _taken(bad, names, share, seed, "pictures with defects")
    test |= _taken(set(roots) - bad, names, share, seed, "normal pictures")
    return ["test" if root in test else "train" for root in roots]


def _taken(sets: set[int], names: dict[int, str], share: float, seed: int, what: str) -> set[int]:
    """The sets that go to the test."""
    if not sets or not share:
        return set()
    if len(sets) < 2:
        raise SettingError(
            f"groups are never split between training and test, so there must be at least 2 of {what}, got 1; give more, another group "
            "rule, or --test 0 to put all into training"
        )
    ordered = sorted(sets, key=lambda root: (seed_for(seed, "split", names[root]), names[root]))
    return set(ordered[: min(max(round(share * len(ordered)), 1), len(ordered) - 1)])


def _joined(links: Sequence[Sequence[str]]) -> list[int]:
    """Number of the set that each picture belongs to (union and find)."""
    above = list(range(len(links)))

    def root(index: int) -> int:
        while above[index] != index:
            above[index] = above[above[index]]
            index = above[index]
        return index

    first: dict[str, int] = {}
    for index, own in enumerate(links):
        for name in own:
            above[root(index)] = root(first.setdefault(name, index))
    return [root(index) for index in range(len(links))]
