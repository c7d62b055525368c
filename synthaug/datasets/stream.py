"""Requests of a plan as images, split among workers and processes, resumable at any image."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import cached_property
from itertools import count as count_from
from itertools import cycle, islice
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info
from torchvision import tv_tensors
from typing_extensions import override

from synthaug.datasets.cache import by_content
from synthaug.datasets.drawer import Draw
from synthaug.datasets.passes import Ticket
from synthaug.datasets.pool import Pool
from synthaug.datasets.prefetch import prefetched
from synthaug.datasets.progress import Progress, mark_of
from synthaug.datasets.stores import MemoryStore, NoStore, Store, looked_ahead
from synthaug.errors import SettingError, require
from synthaug.generation import Plan
from synthaug.records import Request
from synthaug.seeds import seed_for

__all__ = ["RequestStream"]


class RequestStream(IterableDataset[tuple[tv_tensors.Image, Request]]):
    """Images of a plan, drawn on demand, each request exactly once per pass.

    What an image shows depends on its request alone, never on the number of workers, the batch size or
    what was drawn before. Part k of n (n = processes x workers) draws requests k, k + n, k + 2n …, so the
    *order* does depend on the number of workers. Pass 0 draws the plan; pass e draws the same plan from
    another seed, derived from the plan's and e. With a pool, part k keeps the places k, k + n … instead.

    Args:
        plan: What to draw; its own count is not looked at.
        draw: Does the drawing. It is copied into every worker.
        count: Requests per pass; None goes on without end.
        fixed: Draw the same requests in every pass.
        draw_batch: Requests per call of ``draw``; unrelated to the loader's batch size.
        pool: Keeps images from pass to pass, instead of ``count`` and ``fixed``.
        store: Where drawn images are looked up and kept; a pool without one keeps them in memory.
        prefetch: Draw batches made ahead in a thread, while the last ones are used; 0 is off. In a worker it is
            off, as the loader lets workers work ahead.

    Yields:
        Pairs of ``tv_tensors.Image``, uint8 (3, H, W), and its request.

    Raises:
        SettingError: If a number cannot be, or a pool is given with ``count`` or ``fixed``; when a state is loaded that is of another
            plan; while iterating, if a state is resumed with another number of workers, or a pool is in memory and there are workers.

    Example:
        >>> import torch
        >>> def draw_grey(requests):
        ...     return torch.full((len(requests), 3, 8, 8), 128, dtype=torch.uint8)
        >>> plan = Plan(prompts=("a photo of iriko",))
        >>> [(image, request)] = RequestStream(plan, draw_grey, count=1)
        >>> image.shape, request.prompt
        (torch.Size([3, 8, 8]), 'a photo of iriko')

    Splitting among workers: ``torch.utils.data.IterableDataset``, PyTorch documentation.
    """

    def __init__(
        self,
        plan: Plan,
        draw: Draw,
        *,
        count: int | None = None,
        fixed: bool = False,
        draw_batch: int = 8,
        pool: Pool | None = None,
        store: Store | None = None,
        prefetch: int = 0,
    ) -> None:
        super().__init__()
        if count is not None and count < 0:
            raise SettingError(f"count must not be negative, got {count}; leave it out to draw without end")
        require({
            "draw_batch must be 1 or more": (draw_batch >= 1, draw_batch),
            "prefetch must be 0 or more": (prefetch >= 0, prefetch),
            "a pool says by itself how many images a pass has; leave count out": (pool is None or count is None, count),
            "a pool says by itself what is drawn again; leave fixed out, or give it refresh=0": (pool is None or not fixed, fixed),
        })  # fmt: skip
        self.plan, self.count, self.fixed, self.draw_batch, self.pool, self.prefetch = plan, count, fixed, draw_batch, pool, prefetch
        self.store: Store = store or (NoStore() if pool is None else MemoryStore())
        self._draw = draw
        self._progress = Progress()

    def __len__(self) -> int:
        if self._per_pass is None:
            raise TypeError("a stream without a count has no length; give count=...")
        rank, world = self._progress.share.rank_and_world()
        return len(range(rank, self._per_pass, world))

    @property
    def _per_pass(self) -> int | None:
        """Images of a pass in all parts together; None if it has no end."""
        return self.count if self.pool is None else self.pool.keep

    @cached_property
    def mark(self) -> str:
        """Tells streams apart that hand out other images; count, label and places of files make no difference."""
        pool = None if self.pool is None else asdict(self.pool)
        return mark_of({"plan": by_content(self.plan.to_json()), "fixed": self.fixed, "pool": pool})

    @override
    def __iter__(self) -> Iterator[tuple[tv_tensors.Image, Request]]:
        return self.passing()

    def passing(self) -> Generator[tuple[tv_tensors.Image, Request]]:
        """An iterator over the next pass, which can be closed; its number is taken when the first image is wanted."""
        return self._run(self._progress.ticket())

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is: the pass, and how many of its images this part has handed out, whatever is drawn ahead."""
        return self._progress.state_dict(plan=self.mark)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iterator go on where a state was taken, with exactly the requests that were left."""
        self._progress.load_state_dict(state, plan=self.mark)

    def check_enough(self, count: int) -> None:
        """Refuse a count that is too small for so many images per pass; a pool is gone through again.

        Raises:
            SettingError: If it is.
        """
        if self.count is not None and self.count < count:
            raise SettingError(f"{count} images per pass are wanted, the stream has count={self.count}; leave count out")

    def requests(self, number: int, *, start: int = 0, stop: int | None = None) -> Iterator[Request]:
        """Requests of this part in a pass.

        Args:
            number: Of the pass.
            start: How many to leave out.
            stop: How many to have in all, those left out included; a pass that is shorter begins again. None takes the pass as it is.

        Raises:
            SettingError: If it is to begin again and this part has none.
        """
        moves_on = number > 0 and not self.fixed and self.pool is None
        plan = replace(self.plan, seed=seed_for(self.plan.seed, "pass", number)) if moves_on else self.plan
        part, parts = self._progress.share.part()
        indices = self._indices(number)
        if indices is None:
            chosen: Iterable[int] = (
                count_from(part + start * parts, parts) if stop is None else range(part, part + stop * parts, parts)[start:]
            )
        elif stop is None or stop <= len(indices):
            chosen = indices[start:stop]
        else:
            chosen = islice(cycle(self._not_empty(indices)), start, stop)
        return (plan.request(index) for index in chosen)

    def images(self, number: int, *, start: int = 0, stop: int | None = None) -> Generator[tuple[tv_tensors.Image, Request]]:
        """Images of this part in a pass, as :meth:`requests` has them; they are not counted as handed out."""
        if self.pool is not None:
            part, parts = self._progress.share.part()
            for index in self.pool.replaced(self.plan.seed, number, part=part, parts=parts):
                self.store.discard(self.store.key(self.plan.request(index)))
        pairs = looked_ahead(self.requests(number, start=start, stop=stop), self._draw, self.store, draw_batch=self.draw_batch)
        batches = iter(lambda: list(islice(pairs, self.draw_batch)), [])
        with closing(prefetched(batches, 0 if get_worker_info() is not None else self.prefetch)) as ready:
            for batch in ready:
                yield from ((tv_tensors.Image(image), request) for image, request in batch)

    def _run(self, ticket: Ticket) -> Generator[tuple[tv_tensors.Image, Request]]:
        number, yielded = self._progress.begin(ticket)
        with closing(self.images(number, start=yielded)) as images:
            for pair in images:
                yielded += 1
                self._progress.handed_out(number, yielded)
                yield pair
        self._progress.end(number)

    def _indices(self, number: int) -> Sequence[int] | None:
        """Requests of this part in a pass, as indices into its plan; None if they have no end."""
        part, parts = self._progress.share.part()
        if self.pool is not None:
            return self.pool.indices(self.plan.seed, number, part=part, parts=parts)
        return None if self.count is None else range(part, self.count, parts)

    def _not_empty(self, indices: Sequence[int]) -> Sequence[int]:
        if not indices:
            raise SettingError(f"each worker needs an image of its own to begin again, there are {self._per_pass}; use fewer workers")
        return indices
