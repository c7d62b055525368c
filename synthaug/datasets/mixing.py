"""Real photos and drawn images in one data set, at a fixed share."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, Protocol, runtime_checkable

from torch.utils.data import Dataset, IterableDataset
from typing_extensions import override

from synthaug.datasets.passes import Ticket
from synthaug.datasets.progress import Progress, mark_of
from synthaug.errors import SettingError, require
from synthaug.seeds import seed_for

__all__ = ["Drawn", "MixedDataset"]


@runtime_checkable
class Drawn(Protocol):
    """What images are taken from; ``SyntheticDataset``, ``ShardDataset`` and ``RequestStream`` are of this kind.

    A ``mark``, if there is one, tells it from others that hand out other images, so that a state is not resumed with them.
    """

    def check_enough(self, count: int) -> None:
        """Refuse if a pass is too short for so many images in all parts together."""

    def images(self, number: int, *, start: int = 0, stop: int | None = None) -> Generator[Any]:
        """Images of this part in a pass: those from ``start`` to ``stop``; a pass that is shorter begins again."""


class MixedDataset(IterableDataset[Any]):
    """Every item of a real data set once per pass, with drawn ones spread evenly between them.

    Of any stretch of items, ``share`` is drawn, to within one: a batch of 10 at a share of 0.3 has 3. A pass has as many items as
    that makes of the real ones (its length is fixed), in an order that is a function of seed and pass. Workers and
    ``torch.distributed`` processes split both without doubles. Real and drawn items should have the same form, so that they can
    stand in one batch; each keeps the transforms of its own data set.

    Args:
        real: A map-style data set, such as ``torchvision.datasets.ImageFolder``.
        synthetic: A ``SyntheticDataset``, best without ``count``, as the share decides how many are drawn; or a ``ShardDataset``. A pool
            or shards with fewer images are gone through again.
        share: Share of drawn items, in [0, 1).
        shuffle: Take the real ones in another order in each pass.
        seed: Seed of the order.

    Yields:
        Items as ``real`` and ``synthetic`` have them.

    Raises:
        SettingError: If a value cannot be used, or ``synthetic`` has fewer images per pass than are needed; while iterating, if a
            state is resumed with another number of workers; when a state of other data or settings is loaded.

    Example:
        >>> MixedDataset(["photo"] * 7, None, share=1.5)
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: share of drawn items must be from 0 to below 1, got 1.5

    Resuming: ``state_dict`` as in torchdata's StatefulDataLoader,
    https://meta-pytorch.org/data/main/torchdata.stateful_dataloader.html.
    """

    def __init__(self, real: Dataset[Any], synthetic: Any, *, share: float = 0.5, shuffle: bool = True, seed: int = 0) -> None:
        super().__init__()
        require({"share of drawn items must be from 0 to below 1": (0 <= share < 1, share)})
        if not (hasattr(real, "__len__") and hasattr(real, "__getitem__")) or len(real) == 0:
            raise SettingError(f"real must be a data set with items and a length, got {real!r:.60}; give a map-style data set")
        if not isinstance(synthetic, Drawn):
            raise SettingError(
                f"synthetic must be a SyntheticDataset or a ShardDataset, got {synthetic!r:.60}; a folder of images is mixed with "
                "ConcatDataset"
            )
        self.real, self.synthetic, self.share, self.shuffle, self.seed = real, synthetic, share, shuffle, seed
        self._counts = (len(real), round(len(real) * share / (1 - share)))
        synthetic.check_enough(self._counts[1])
        self._progress = Progress()

    @property
    def _mark(self) -> str:
        return mark_of([self._counts, self.shuffle, self.seed, getattr(self.synthetic, "mark", "")])

    def __len__(self) -> int:
        rank, world = self._progress.share.rank_and_world()
        return sum(len(range(rank, count, world)) for count in self._counts)

    @override
    def __iter__(self) -> Iterator[Any]:
        return self._run(self._progress.ticket())

    def state_dict(self) -> dict[str, Any]:
        """Where this part is: the pass, and how many of its items were handed out."""
        return self._progress.state_dict(plan=self._mark)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iterator go on where a state was taken, with exactly the items that were left."""
        self._progress.load_state_dict(state, plan=self._mark)

    def _run(self, ticket: Ticket) -> Iterator[Any]:
        number, yielded = self._progress.begin(ticket)
        part, parts = self._progress.share.part()
        real, drawn = (len(range(part, count, parts)) for count in self._counts)
        taken = _drawn_among(yielded, drawn, real)
        order = self._order(number)[part::parts]
        with closing(self.synthetic.images(number, start=taken, stop=drawn)) as images:
            for place in range(yielded, real + drawn):
                is_drawn = _drawn_among(place + 1, drawn, real) > taken
                item = next(images) if is_drawn else self.real[order[place - taken]]
                taken += is_drawn
                self._progress.handed_out(number, place + 1)
                yield item
        self._progress.end(number)

    def _order(self, number: int) -> list[int]:
        order = list(range(self._counts[0]))
        if self.shuffle:
            random.Random(seed_for(self.seed, "real", number)).shuffle(order)  # noqa: S311  # an order, not a secret
        return order


def _drawn_among(places: int, drawn: int, real: int) -> int:
    """How many of the first items are drawn ones when those are spread evenly."""
    return places * drawn // (drawn + real) if places else 0
