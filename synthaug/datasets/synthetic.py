"""Labelled images in a DataLoader, from one LoRA file."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset
from torchvision import tv_tensors
from typing_extensions import override

from synthaug.datasets.cache import ImageCache
from synthaug.datasets.drawer import Drawer
from synthaug.datasets.plans import Loras, lora_plan
from synthaug.datasets.pool import Pool
from synthaug.datasets.stream import RequestStream
from synthaug.datasets.targets import Target, check_target, drawn_target
from synthaug.errors import SettingError
from synthaug.generation import Sampler, Speed, base_fingerprint
from synthaug.records import Request

__all__ = ["SyntheticDataset"]


class SyntheticDataset(IterableDataset[tuple[Any, Any]]):
    """Labelled images that a LoRA draws while the training loop asks for them.

    An image depends on its request alone: the same seed and index give the same pixels with any number of
    workers and any batch size. Each request is drawn once per pass, whatever the number of workers and of
    ``torch.distributed`` processes; every pass draws new ones unless ``fixed``. What is left out is read
    from the LoRA file. The networks are loaded when the first image is wanted, once per worker: with a
    GPU, use ``num_workers=0``; the next images are then drawn in a thread while the loop works.

    Args:
        lora: The LoRA file, or a list of files or of ``LoraUse`` that are worn together; what is left out is read from
            the first.
        prompt: What to draw, or a list to draw in turn; ``{this|that}`` is decided per image; the LoRA's own caption
            when left out.
        count: Images per pass; None draws without end. A loader with workers fills each worker's last
            batch separately, so multiples of batch size x workers avoid small batches.
        label: Target of every image.
        size: Height and width in pixels, multiples of 8; the LoRA's own when left out.
        transform: Applied to each image, such as a ``torchvision.transforms.v2`` transform.
        transforms: Applied to each pair of image and target together, as in torchvision's data sets; instead of
            ``transform``.
        target: ``label``, or ``dict`` for label, index, seed and prompt, and with a ``mask`` the mask as the image is framed, a
            ``tv_tensors.Mask`` uint8 (H, W), 1 = redrawn; give ``transforms`` to change both together.
        fixed: Draw the same images in every pass.
        pool: Keep a number of images and redraw a share of them before each pass, instead of ``count`` and ``fixed``.
        cache: Folder in which drawn images are kept; what is there is read instead of drawn, also by other processes.
            Without ``fixed`` or ``pool`` it grows with every pass.
        prefetch: Draw batches made ahead in a thread; 0 draws when asked. With workers the loader's own
            ``prefetch_factor`` counts.
        seed: Seed of the whole data set.
        draw_batch: Images drawn at a time; it changes speed and memory only.
        device: ``auto``, ``cpu``, ``cuda`` …
        base: The base model; the one the LoRA was trained on when left out.
        lora_weight: How strongly to wear LoRAs that come without a weight.
        negative_prompt: What to keep away from.
        steps: Denoising steps.
        guidance: Scale of classifier-free guidance.
        speed: ``fast`` and ``draft`` take short cuts that change the images, see docs/speed.md.
        wildcards: Folder of text files whose lines ``__name__`` in the prompt stands for.
        lora_folder: Where LoRAs lie that ``<lora:name:0.8>`` in the prompt calls.
        **drawing: Any other field of ``synthaug.records.Drawing``, such as ``sampler`` or ``clip_skip``.

    Yields:
        Pairs of image and target. The image is a ``tv_tensors.Image``, uint8 (3, H, W), or what
        ``transform`` makes of it.

    Raises:
        SettingError: If a value cannot be used, no prompt is given and the file has no caption, or the cache holds
            another plan; while iterating, if a GPU was in use before worker processes were forked.
        UnusableFileError: If the LoRA file cannot be used.
        WrongBaseModelError: If ``base`` is not the one the LoRA was made for.
        OutputError: If the cache folder cannot be made.

    Example:
        >>> SyntheticDataset("iriko.safetensors", target="mask")
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: unknown target 'mask'; choose one of: dict, label

    Resuming: ``state_dict`` as in torchdata's StatefulDataLoader,
    https://meta-pytorch.org/data/main/torchdata.stateful_dataloader.html. ``transforms``: as in
    ``torchvision.datasets.VisionDataset``.
    """

    def __init__(  # noqa: PLR0913  # the public promise: one line, everything else has a default
        self,
        lora: Loras,
        *,
        prompt: str | Sequence[str] | None = None,
        count: int | None = None,
        label: int | str = 0,
        size: tuple[int, int] | None = None,
        transform: Callable[[tv_tensors.Image], Any] | None = None,
        transforms: Callable[[tv_tensors.Image, Any], tuple[Any, Any]] | None = None,
        target: Target = "label",
        fixed: bool = False,
        pool: Pool | None = None,
        cache: Path | str | None = None,
        prefetch: int = 2,
        seed: int = 0,
        draw_batch: int = 8,
        device: str = "auto",
        base: str | None = None,
        lora_weight: float = 1.0,
        negative_prompt: str = "",
        steps: int = 20,
        guidance: float = 4.0,
        speed: Speed = "exact",
        wildcards: Path | str | None = None,
        lora_folder: Path | str | None = None,
        **drawing: Any,
    ) -> None:
        super().__init__()
        check_target(target)
        if transform is not None and transforms is not None:
            raise SettingError("an image is changed by transform alone, or with its target by transforms, got both; put one into the other")
        plan = lora_plan(
            lora, prompt=prompt, base=base, weight=lora_weight, label=label, size=size, seed=seed,
            negative_prompt=negative_prompt, steps=steps, guidance=guidance, wildcards=wildcards, lora_folder=lora_folder, **drawing,
        ).at_speed(speed)  # fmt: skip
        self.cache = None if cache is None else ImageCache(cache, plan, base=base_fingerprint(plan))
        drawer = Drawer(Sampler.for_drawing(plan.base, plan, device=device))
        self.stream = RequestStream(
            plan, drawer, count=count, fixed=fixed, draw_batch=draw_batch, pool=pool, store=self.cache, prefetch=prefetch
        )
        self._transform, self._transforms, self._target = transform, transforms, target

    def __len__(self) -> int:
        return len(self.stream)

    @override
    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._finished(self.stream.passing())

    @property
    def mark(self) -> str:
        """See :attr:`RequestStream.mark`."""
        return self.stream.mark

    def check_enough(self, count: int) -> None:
        """See :meth:`RequestStream.check_enough`."""
        self.stream.check_enough(count)

    def images(self, number: int, *, start: int = 0, stop: int | None = None) -> Generator[tuple[Any, Any]]:
        """See :meth:`RequestStream.images`."""
        return self._finished(self.stream.images(number, start=start, stop=stop))

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`RequestStream.state_dict`."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :meth:`RequestStream.load_state_dict`."""
        self.stream.load_state_dict(state)

    def _finished(self, drawn: Generator[tuple[tv_tensors.Image, Request]]) -> Generator[tuple[Any, Any]]:
        with closing(drawn) as pairs:
            for image, request in pairs:
                target = drawn_target(request, self._target)
                if self._transforms is not None:
                    yield self._transforms(image, target)
                else:
                    yield (image if self._transform is None else self._transform(image)), target
