"""Images drawn while a training loop asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from torchvision import tv_tensors
from typing_extensions import override

from synthaug.datasets.passes import Passes, Share, Ticket
from synthaug.datasets.targets import Target, check_target, target_of
from synthaug.errors import SettingError
from synthaug.generation import Plan, Sampler, check_base
from synthaug.records import Request
from synthaug.seeds import seed_for

__all__ = ["Draw", "RequestStream", "SyntheticDataset", "lora_plan", "refuse_forked_gpu"]

Draw = Callable[[Sequence[Request]], Tensor]
"""Requests in, uint8 (N, 3, H, W) out, in their order."""


class RequestStream(IterableDataset[tuple[tv_tensors.Image, Request]]):
    """Images of a plan, drawn on demand, each request exactly once per pass.

    What an image shows depends on its request alone, never on the number of workers, the batch size or
    what was drawn before. Part k of n (n = processes x workers) draws requests k, k + n, k + 2n …, so the
    *order* does depend on the number of workers. Pass 0 draws the plan; pass e draws the same plan from
    another seed, derived from the plan's and e.

    Args:
        plan: What to draw; its own count is not looked at.
        draw: Does the drawing. It is copied into every worker.
        count: Requests per pass; None goes on without end.
        fixed: Draw the same requests in every pass.
        draw_batch: Requests per call of ``draw``; unrelated to the loader's batch size.

    Yields:
        Pairs of ``tv_tensors.Image``, uint8 (3, H, W), and its request.

    Raises:
        SettingError: If ``count`` is negative or ``draw_batch`` below 1; while iterating, if a state is
            resumed with another number of workers.

    Example:
        >>> def draw_grey(requests):
        ...     return torch.full((len(requests), 3, 8, 8), 128, dtype=torch.uint8)
        >>> plan = Plan(prompts=("a photo of iriko",))
        >>> [(image, request)] = RequestStream(plan, draw_grey, count=1)
        >>> image.shape, request.prompt
        (torch.Size([3, 8, 8]), 'a photo of iriko')

    Splitting among workers: ``torch.utils.data.IterableDataset``, PyTorch documentation.
    """

    def __init__(self, plan: Plan, draw: Draw, *, count: int | None = None, fixed: bool = False, draw_batch: int = 8) -> None:
        super().__init__()
        if count is not None and count < 0:
            raise SettingError(f"count must not be negative, got {count}; leave it out to draw without end")
        if draw_batch < 1:
            raise SettingError(f"draw_batch must be 1 or more, got {draw_batch}")
        self.plan, self.count, self.fixed, self.draw_batch = plan, count, fixed, draw_batch
        self._draw = draw
        self._passes, self._share = Passes(), Share()
        self._state: dict[str, Any] | None = None
        self._resumed: dict[str, Any] | None = None

    def __len__(self) -> int:
        if self.count is None:
            raise TypeError("a stream without a count has no length; give count=...")
        rank, world = self._share.rank_and_world()
        return len(range(rank, self.count, world))

    @override
    def __iter__(self) -> Iterator[tuple[tv_tensors.Image, Request]]:
        return self._run(self._passes.ticket())

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is: the pass, and how many of its requests this part has handed out."""
        part, parts = self._share.part()
        return dict(self._state or {"pass": 0, "yielded": 0, "part": part, "parts": parts})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iterator go on where a state was taken, with exactly the requests that were left.

        The state belongs to one part: in a loader with workers, each worker's copy saves and loads its own,
        as torchdata's ``StatefulDataLoader`` does.
        """
        self._state = self._resumed = dict(state)
        self._passes.restart(state["pass"])

    def requests(self, number: int, *, start: int = 0) -> Iterator[Request]:
        """Requests of this part in a pass, without the first ``start`` of them."""
        part, parts = self._share.part()
        plan = self.plan if number == 0 or self.fixed else replace(self.plan, seed=seed_for(self.plan.seed, "pass", number))
        first = part + parts * start
        indices = count_from(first, parts) if self.count is None else range(first, self.count, parts)
        return (plan.request(index) for index in indices)

    def _run(self, ticket: Ticket) -> Iterator[tuple[tv_tensors.Image, Request]]:
        number = self._passes.number(ticket)
        part, parts = self._share.part()
        yielded = self._already_yielded(number, part, parts)
        wanted = self.requests(number, start=yielded)
        while batch := list(islice(wanted, self.draw_batch)):
            for image, request in zip(self._draw(batch), batch, strict=True):
                yielded += 1
                self._state = {"pass": number, "yielded": yielded, "part": part, "parts": parts}
                yield tv_tensors.Image(image.clone()), request  # a view would keep the whole batch in memory
        self._state = {"pass": number + 1, "yielded": 0, "part": part, "parts": parts}

    def _already_yielded(self, number: int, part: int, parts: int) -> int:
        """How much of a pass was handed out before the state that was loaded, if this is the pass."""
        resumed = self._resumed
        if resumed is None or number != resumed["pass"] or not resumed["yielded"]:
            return 0
        if (part, parts) != (resumed["part"], resumed["parts"]):
            raise SettingError(
                f"a stream must be resumed with the workers and processes it was saved with: the state is of part {resumed['part']} of "
                f"{resumed['parts']}, this is part {part} of {parts}; use the same num_workers, or start the next pass"
            )
        return int(resumed["yielded"])


class SyntheticDataset(IterableDataset[tuple[Any, Any]]):
    """Labelled images that a LoRA draws while the training loop asks for them.

    An image depends on its request alone: the same seed and index give the same pixels with any number of
    workers and any batch size. Each request is drawn once per pass, whatever the number of workers and of
    ``torch.distributed`` processes; every pass draws new ones unless ``fixed``. What is left out is read
    from the LoRA file. The networks are loaded when the first image is wanted, once per worker: with a
    GPU, use ``num_workers=0``.

    Args:
        lora: The LoRA file.
        prompt: What to draw; ``{this|that}`` is decided per image; the LoRA's own caption when left out.
        count: Images per pass; None draws without end. A loader with workers fills each worker's last
            batch separately, so multiples of batch size x workers avoid small batches.
        label: Target of every image.
        size: Height and width in pixels, multiples of 8; the LoRA's own when left out.
        transform: Applied to each image, such as a ``torchvision.transforms.v2`` transform.
        target: ``label``, or ``dict`` for label, index, seed and prompt.
        fixed: Draw the same images in every pass.
        seed: Seed of the whole data set.
        draw_batch: Images drawn at a time; it changes speed and memory only.
        device: ``auto``, ``cpu``, ``cuda`` …
        base: The base model; the one the LoRA was trained on when left out.
        lora_weight: How strongly to wear the LoRA.
        negative_prompt: What to keep away from.
        steps: Denoising steps.
        guidance: Scale of classifier-free guidance.

    Yields:
        Pairs of image and target. The image is a ``tv_tensors.Image``, uint8 (3, H, W), or what
        ``transform`` makes of it.

    Raises:
        SettingError: If a value cannot be used, or no prompt is given and the file has no caption; while
            iterating, if a GPU was in use before worker processes were forked.
        UnusableFileError: If the LoRA file cannot be used.
        WrongBaseModelError: If ``base`` is not the one the LoRA was made for.

    Example:
        >>> SyntheticDataset("iriko.safetensors", target="mask")
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: unknown target 'mask'; choose one of: dict, label

    Resuming: ``state_dict`` as in torchdata's StatefulDataLoader,
    https://meta-pytorch.org/data/main/torchdata.stateful_dataloader.html.
    """

    def __init__(  # noqa: PLR0913  # the public promise: one line, everything else has a default
        self,
        lora: Path | str,
        *,
        prompt: str | None = None,
        count: int | None = None,
        label: int | str = 0,
        size: tuple[int, int] | None = None,
        transform: Callable[[tv_tensors.Image], Any] | None = None,
        target: Target = "label",
        fixed: bool = False,
        seed: int = 0,
        draw_batch: int = 8,
        device: str = "auto",
        base: str | None = None,
        lora_weight: float = 1.0,
        negative_prompt: str = "",
        steps: int = 20,
        guidance: float = 4.0,
    ) -> None:
        super().__init__()
        check_target(target)
        plan = lora_plan(
            lora, prompt=prompt, base=base, weight=lora_weight, label=label, size=size, seed=seed,
            negative_prompt=negative_prompt, steps=steps, guidance=guidance,
        )  # fmt: skip
        self._sampler = Sampler(plan.base, device=device)
        self.stream = RequestStream(plan, self._draw, count=count, fixed=fixed, draw_batch=draw_batch)
        self._transform, self._target = transform, target

    def __len__(self) -> int:
        return len(self.stream)

    @override
    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._finished(iter(self.stream))

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`RequestStream.state_dict`."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :meth:`RequestStream.load_state_dict`."""
        self.stream.load_state_dict(state)

    def _finished(self, drawn: Iterator[tuple[tv_tensors.Image, Request]]) -> Iterator[tuple[Any, Any]]:
        for image, request in drawn:
            yield (image if self._transform is None else self._transform(image)), target_of(request, self._target)

    def _draw(self, requests: Sequence[Request]) -> Tensor:
        refuse_forked_gpu(self._sampler.device)
        return self._sampler(requests)


def lora_plan(lora: Path | str, *, prompt: str | None, base: str | None, **settings: Any) -> Plan:
    """Plan for a LoRA, with every mistake that can be seen without drawing named now.

    Args:
        lora: The file.
        prompt: None takes the file's own caption.
        base: None takes the file's own; another one is opened to see whether it fits.
        **settings: As for :meth:`Plan.for_lora`.

    Raises:
        SettingError: If a value cannot be used.
        UnusableFileError: If the LoRA file or the base cannot be used.
        WrongBaseModelError: If the base is another one.
    """
    if prompt is not None and not prompt.strip():
        raise SettingError(f"prompt must not be empty, got {prompt!r}; leave it out to use the caption of {lora}")
    plan = Plan.for_lora(lora, prompts=None if prompt is None else (prompt,), base=base, **settings)
    plan.request(0)  # a size, a number of steps or a placeholder that cannot be used is refused by the request
    if base is not None:
        check_base(plan)
    return plan


def refuse_forked_gpu(device: torch.device) -> None:
    """Say what to do instead, before CUDA says that it cannot.

    Raises:
        SettingError: In a worker that was forked from a process that uses its GPU.
    """
    if device.type == "cuda" and get_worker_info() is not None and torch.cuda._is_in_bad_fork():
        raise SettingError(
            "a GPU that is in use cannot be used again by a forked DataLoader worker; use num_workers=0 (one process draws fastest), "
            "or multiprocessing_context='spawn'"
        )
