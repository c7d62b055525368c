"""Photos, encoded once: latents of several views of each, text states of each caption."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d as area
from torch.utils.data import DataLoader, IterableDataset
from torchvision.transforms.v2 import functional as F
from typing_extensions import override

from synthaug.errors import PhotoFolderError, SettingError, require
from synthaug.models.load import Base, load_base
from synthaug.photos.folder import PhotoFolder, read_folder
from synthaug.pixels import framed, framed_mask, read_image, read_mask, to_float
from synthaug.prompts.encode import TextStates, token_chunks
from synthaug.records import Photo
from synthaug.seeds import seed_for
from synthaug.training.lora_training import Batch

__all__ = ["PhotoData", "Views"]


@dataclass(frozen=True, kw_only=True)
class Views:
    """How many different crops of each photo are encoded."""

    count: int = 8
    """Views per photo; the first is the photo as it is."""

    zoom: float = 1.15
    """Largest magnification, 1 or more; a view is cut anywhere inside the magnified photo."""

    flip: bool = False
    """Whether a view may be mirrored left to right; wrong for parts that have a handedness."""

    def __post_init__(self) -> None:
        require({
            "views.count must be at least 1; 1 is the photo as it is": (self.count >= 1, self.count),
            "views.zoom must be from 1 to 4; 1 cuts nothing off": (1 <= self.zoom <= 4, self.zoom),
        })  # fmt: skip


class PhotoData(LightningDataModule):
    """Batches of latents and text for :class:`LoraTraining`.

    Everything is encoded once, before training; the encoders are then dropped. The batch of step k
    depends on the seed and k alone, so a resumed run goes on with the batches it would have had.

    Args:
        photos: Folder of photos; captions come from text files beside them or from the template.
        base: The base whose encoders are used; ``fit`` sets it to the model's.
        trigger: Word that will bring out what is learned.
        caption: Template of the captions; ``{trigger}`` stands for the trigger word.
        group: Rule that finds a photo's group in its name, see :func:`synthaug.photos.read_folder`.
        size: Height and width; the base's own when left out.
        batch_size: Photos per step.
        views: Crops of each photo.
        held_out: How many photos to keep back and measure the loss on, whole groups at a time; 0 trains on all.
        outside_mask: How much the photo counts outside of its mask, 0 to 1; 1 leaves masks aside. Masks lie in a sub-folder
            ``mask`` under the photos' names; a photo without one counts everywhere.
        caption_dropout: Share of samples without a caption, 0 to 1, so that guidance works.
        seed: Seed of views and batches.

    Raises:
        SettingError: If a number is outside its range.
        PhotoFolderError: In ``setup``, if the folder cannot be used.
    """

    def __init__(  # noqa: PLR0913  # they are the options of the command line
        self,
        photos: Path,
        *,
        base: str = "pocket",
        trigger: str = "iriko",
        caption: str = "a photo of {trigger}",
        group: str = "",
        size: tuple[int, int] | None = None,
        batch_size: int = 4,
        views: Views = Views(),
        held_out: int = 0,
        outside_mask: float = 1.0,
        caption_dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require({
            "batch_size must be at least 1": (batch_size >= 1, batch_size),
            "held_out must be 0 photos or more": (held_out >= 0, held_out),
            "outside_mask must be from 0 to 1; 1 leaves masks aside": (0 <= outside_mask <= 1, outside_mask),
            "caption_dropout must be from 0 to 1; 0.1 is usual": (0 <= caption_dropout <= 1, caption_dropout),
            "size must be [height, width], each a multiple of 8": (size is None or all(s >= 8 and s % 8 == 0 for s in size), size),
        })  # fmt: skip
        self.folder, self.base_name, self.trigger, self.caption, self.group = Path(photos), base, trigger, caption, group
        self.size, self.batch_size, self.views = size, batch_size, views
        self.held_out, self.outside_mask, self.caption_dropout, self.seed = held_out, outside_mask, caption_dropout, seed
        self.found: PhotoFolder | None = None

    @override
    def setup(self, stage: str) -> None:
        """Read, encode, drop the encoders."""
        if self.found is not None:
            return
        found = read_folder(self.folder, caption=self.caption, trigger=self.trigger, group=self.group)
        base = load_base(self.base_name, parts=("vae", "text"))
        self.size = self.size or base.size
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        base.to(device, torch.float32)
        self._mean, self._std = self._encode_photos(base, found.photos, self.size)
        self._encode_captions(base, found.captions)
        trained, self._kept_back = self._split(found.photos)
        self._trained = torch.tensor([row for row in trained for _ in range(found.repeats[row] if found.repeats else 1)])
        self.found = found

    def _split(self, photos: tuple[Photo, ...]) -> tuple[list[int], Tensor]:
        """Rows to train on and rows to measure on: groups are drawn until enough photos are kept back.

        Raises:
            SettingError: If fewer than two photos would be left to train on.
        """
        groups = sorted({photo.group for photo in photos}, key=lambda group: seed_for(self.seed, "held out", group))
        back: list[int] = []
        for group in groups:
            if len(back) >= self.held_out:
                break
            back += [row for row, photo in enumerate(photos) if photo.group == group]
        trained = [row for row in range(len(photos)) if row not in back]
        if len(trained) < 2:
            raise SettingError(
                f"at least two photos must be left to train on, {self.held_out} kept back in whole groups leave {len(trained)} of "
                f"{len(photos)}; use a smaller --data.held_out"
            )
        return trained, torch.tensor(back, dtype=torch.int64)

    def _encode_photos(self, base: Base, photos: tuple[Photo, ...], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Posterior mean and deviation of every view, (N, views, C, h, w), scaled."""
        assert base.vae is not None
        means, stds, weights = [], [], []
        for photo in photos:
            cut, masks = self._cut(photo, size)
            views = to_float(cut).to(base.vae.device)
            with torch.inference_mode():
                posterior = torch.stack([torch.cat(_posterior(base, view[None])) for view in views])
            means.append(posterior[:, 0].cpu())
            stds.append(posterior[:, 1].cpu())
            inside = area(masks[:, None].float(), (posterior.shape[-2], posterior.shape[-1]))
            weights.append(self.outside_mask + (1 - self.outside_mask) * inside)
        self._weights = torch.stack(weights)
        return torch.stack(means).clone(), torch.stack(stds).clone()

    def _cut(self, photo: Photo, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Views of a photo, uint8 (views, 3, *size), and the same views of its mask, uint8 (views, *size)."""
        height, width = size
        whole = read_image(photo.path)
        mask = self._mask(photo, whole)
        cut, masks = [framed(whole, size)], [framed_mask(mask, size)]
        generator = torch.Generator().manual_seed(seed_for(self.seed, "views", photo.sha256))
        for _ in range(self.views.count - 1):
            zoom, top, left, mirrored = torch.rand(4, generator=generator).tolist()
            scale = 1 + zoom * (self.views.zoom - 1)
            large, large_mask = (
                frame(of, (round(height * scale), round(width * scale))) for frame, of in ((framed, whole), (framed_mask, mask))
            )
            y, x = round(top * (large.shape[1] - height)), round(left * (large.shape[2] - width))
            view, part = large[:, y : y + height, x : x + width], large_mask[y : y + height, x : x + width]
            flip = self.views.flip and mirrored < 0.5
            cut.append(F.horizontal_flip(view) if flip else view)
            masks.append(F.horizontal_flip(part) if flip else part)
        return torch.stack(cut), torch.stack(masks)

    def _mask(self, photo: Photo, whole: Tensor) -> Tensor:
        """The photo's mask, uint8 (H, W); ones where there is none, or none is asked for.

        Raises:
            PhotoFolderError: If it is of another size, or marks nothing.
        """
        everywhere = torch.ones(whole.shape[1:], dtype=torch.uint8)
        if photo.mask is None or self.outside_mask == 1:
            return everywhere
        mask = read_mask(photo.mask)
        if mask.shape != everywhere.shape:
            raise PhotoFolderError(
                f"a mask must be as large as its photo, {photo.mask} is {tuple(mask.shape)}, {photo.path.name} {tuple(everywhere.shape)}; "
                "make it again from this photo"
            )
        if not mask.any():
            raise PhotoFolderError(f"a mask must mark something, {photo.mask} is black; paint the defect white, or delete the mask")
        return mask

    def _encode_captions(self, base: Base, captions: tuple[str, ...]) -> None:
        """Token ids and text states of every caption, and of none, all of one length."""
        assert base.tokenizer is not None
        assert base.text_encoder is not None
        texts = TextStates(base.tokenizer, base.text_encoder)
        chunks = max(texts.chunks(caption) for caption in captions)
        empty = token_chunks("", base.tokenizer)[0]
        rows = [token_chunks(text, base.tokenizer) for text in (*captions, "")]
        self._tokens = torch.tensor([[*row, *[empty] * (chunks - len(row))] for row in rows]).flatten(1)
        self._states = torch.stack([texts(text, chunks).cpu() for text in (*captions, "")])

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """The batch of step ``step``, or the part of process ``rank`` of ``world``: together they see one large batch."""
        generator = torch.Generator().manual_seed(seed_for(self.seed, "batch", step))
        count, photos = self.batch_size * world, len(self._trained)
        order = self._trained[torch.randperm(photos, generator=generator)]
        rows = order.repeat(-(-count // photos))[:count]
        views = torch.randint(self._mean.shape[1], (count,), generator=generator)
        texts = torch.where(torch.rand(count, generator=generator) < self.caption_dropout, len(self._mean), rows)
        mine = slice(rank * self.batch_size, (rank + 1) * self.batch_size)
        rows, views, texts = rows[mine], views[mine], texts[mine]
        return self._rows(rows, views, texts)

    def _rows(self, rows: Tensor, views: Tensor, texts: Tensor) -> Batch:
        return {
            "mean": self._mean[rows, views],
            "std": self._std[rows, views],
            "tokens": self._tokens[texts],
            "states": self._states[texts],
            "weight": self._weights[rows, views],
        }

    @override
    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The photos kept back, as they are, with their captions; no loader when there are none."""
        if not len(self._kept_back):
            warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")  # it is the intention
            return []
        parts = [self._rows(rows, torch.zeros_like(rows), rows) for rows in torch.split(self._kept_back, self.batch_size)]
        return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]  # a list is a map-style data set

    @override
    def train_dataloader(self) -> DataLoader[Batch]:
        if self.trainer is None:
            return DataLoader(_FromStep(self.batch, 0), batch_size=None)
        make = partial(self.batch, rank=self.trainer.global_rank, world=self.trainer.world_size)
        return DataLoader(_FromStep(make, self.trainer.global_step), batch_size=None)


class _FromStep(IterableDataset[Batch]):
    """``make(k)`` for k = first, first + 1, ... without end."""

    def __init__(self, make: Callable[[int], Batch], first: int) -> None:
        self._make, self._first = make, first

    @override
    def __iter__(self) -> Iterator[Batch]:
        step = self._first
        while True:
            yield self._make(step)
            step += 1


def _posterior(base: Base, picture: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the encoder's answer, each (1, C, h, w), scaled."""
    assert base.vae is not None
    found = base.vae.encode(picture).latent_dist
    scale = float(base.vae.config["scaling_factor"])
    return found.mean * scale, found.std * scale
