"""Photos, encoded once: latents of several views of each, text states of each caption."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from typing_extensions import override

from synthaug.errors import SettingError, require
from synthaug.models.base import Prediction
from synthaug.models.load import Base, load_base
from synthaug.models.numerics import PrecisionName
from synthaug.photos.buckets import Buckets
from synthaug.photos.folder import PhotoFolder, read_folder
from synthaug.photos.kohya import TrainingSet, read_training_set
from synthaug.photos.set_settings import share_kept_back
from synthaug.photos.tags import CaptionRules
from synthaug.records import Photo
from synthaug.training.batches import FromStep, Order, as_they_are, kept_back
from synthaug.training.contents import contents_of
from synthaug.training.data_settings import DataSettings, Facts, Settled, settled
from synthaug.training.encoded_set import EncodedSet
from synthaug.training.encoders import Encoders
from synthaug.training.encoding import PhotoEncoding
from synthaug.training.items import Item, items_of, magnified, regular_items, rows_by_size
from synthaug.training.latent_cache import Cache, cache_folder
from synthaug.training.lora_training import Batch
from synthaug.training.regular import DrawRegular, check_regular, share_of
from synthaug.training.views import Views

__all__ = ["PhotoData", "Views"]

Size = tuple[int, int]


class PhotoData(LightningDataModule):
    """Batches of latents and text for :class:`LoraTraining`.

    Everything is encoded once, before training, and remembered in a cache from which the next run starts without the encoders.
    The batch of step k depends on the seed and k alone, so a resumed run goes on with the batches it would have had.

    Args:
        photos: Folder of photos, a folder tree as kohya's scripts have it, or their ``.toml`` file; captions come from text files
            beside the photos or from the template.
        base: The base whose encoders are used; ``fit`` sets it to the model's.
        prediction: What the base predicts, where it does not say; ``fit`` sets it to the model's.
        trigger: Word that will bring out what is learned.
        caption: Template of the captions; ``{trigger}`` stands for the trigger word.
        caption_variants: How many captions are drawn for a photo whose caption varies (shuffled tags, wildcards); each step picks one.
        group: Rule that finds a photo's group in its name, see :func:`synthaug.photos.read_folder`.
        size: Height and width; left out, what the file of the photos says, or the base's own.
        buckets: Sizes of other shapes and about the same area; left out, what the file of the photos says, or none.
        batch_size: Photos per step; left out, what the file of the photos says, or 4.
        views: Views of each photo.
        held_out: How many photos to keep back and measure the loss on, whole groups at a time; 0 trains on all. Left out, what the
            file of the photos says (``validation_split``), or none; ``synthaug fit`` chooses then: two of twelve groups or more, else a
            view of each photo.
        held_out_views: How many views of each photo to keep back and measure the loss on, where there are too few photos.
        outside_mask: How much the photo counts outside of its mask, 0 to 1; 1 leaves masks aside. Masks lie in a sub-folder
            ``mask`` under the photos' names; a photo without one counts everywhere. Left out, what the file of the photos says, or 1.
        caption_dropout: Share of samples without a caption, 0 to 1, so that guidance works; left out, what the file of the photos says,
            or 0.1.
        regular: Folder of regularisation pictures, which the base should still be able to draw afterwards, with text files beside them,
            or of folders such as ``1_fish``.
        regular_share: Share of them in all batches, 0 to below 1; half when left out.
        regular_count: How many to draw with the bare base instead, once.
        regular_caption: What the drawn ones show, and those in ``regular`` without a text file, such as ``a photo of a fish``.
        drawer: What draws them, such as ``synthaug.generation.RegularImages``.
        cache: Folder that remembers encoded photos and drawn pictures, ``auto`` for the user's cache folder, or ``none``.
        encode_precision: What photos are encoded in: ``fp32``, ``fp16``, ``bf16`` or ``auto``.
        seed: Seed of views and batches.

    Raises:
        SettingError: If a number is outside its range, or settings contradict each other; some only in ``setup``.
        PhotoFolderError: In ``setup``, if a folder cannot be used.
        NumericsError: In ``setup``, if the encoder answers NaN.
    """

    def __init__(  # noqa: PLR0913  # they are the options of the command line
        self,
        photos: Path,
        *,
        base: str = "pocket",
        prediction: Prediction | None = None,
        trigger: str = "iriko",
        caption: str = "a photo of {trigger}",
        caption_variants: int = 8,
        group: str = "",
        size: tuple[int, int] | None = None,
        buckets: Buckets | None = None,
        batch_size: int | None = None,
        views: Views = Views(),
        held_out: int | None = None,
        held_out_views: int = 0,
        outside_mask: float | None = None,
        caption_dropout: float | None = None,
        regular: Path | None = None,
        regular_share: float | None = None,
        regular_count: int = 0,
        regular_caption: str = "",
        drawer: DrawRegular | None = None,
        cache: str = "auto",
        encode_precision: PrecisionName = "fp32",
        seed: int = 0,
    ) -> None:
        super().__init__()
        require({
            "caption_variants must be at least 1; 8 is usual": (caption_variants >= 1, caption_variants),
            "held_out must be 0 photos or more": (held_out is None or held_out >= 0, held_out),
            "held_out_views must be 0 views or more": (held_out_views >= 0, held_out_views),
        })  # fmt: skip
        self._given = DataSettings(
            size=size, batch_size=batch_size, buckets=buckets, flip=views.flip, caption_dropout=caption_dropout, outside_mask=outside_mask
        )
        self.folder, self.base_name, self.trigger, self.caption, self.group = Path(photos), base, trigger, caption, group
        check_regular(
            regular, share=regular_share, count=regular_count, caption=regular_caption, drawer=drawer, cache=cache,
            from_file=self.folder.suffix == ".toml",
        )  # fmt: skip
        self.size, self.batch_size, self.views, self.caption_variants = size, batch_size or 4, views, caption_variants
        self.held_out, self.held_out_views, self.seed, self.prediction = held_out, held_out_views, seed, prediction
        self.outside_mask = 1.0 if outside_mask is None else outside_mask
        self.caption_dropout = 0.1 if caption_dropout is None else caption_dropout
        self.regular, self.regular_share, self.regular_count = regular, regular_share, regular_count
        self.regular_caption, self.drawer, self.cache, self.encode_precision = regular_caption, drawer, cache, encode_precision
        self.found: PhotoFolder | None = None

    @override
    def prepare_data(self) -> None:
        """With several processes the first one fills the cache, from which the others read."""
        if self.trainer is not None and self.trainer.world_size > 1 and self.cache != "none":
            self.setup("fit")

    @override
    def setup(self, stage: str) -> None:
        """Read, encode what the cache does not know, drop the encoders."""
        if self.found is not None:
            return
        started = time.perf_counter()
        found = read_training_set(
            self.folder, caption=self.caption, trigger=self.trigger, group=self.group, regular=self.regular,
            regular_caption=self.regular_caption,
        )  # fmt: skip
        base = load_base(self.base_name, parts=(), prediction=self.prediction)
        chosen = self._settle(found, base)
        device = "cpu" if self.trainer is None else self.trainer.strategy.root_device
        encoders, cache = self._encoders(device), Cache(cache_folder(self.cache))
        photos = items_of(found.photos, found.rules, chosen.buckets, chosen.size)
        trained, back = kept_back(found.photos.photos, self.held_out or 0, seed=self.seed)
        self._items = [*photos, *self._regular_items(found, {photos[row].size for row in trained}, encoders)]
        self._order = self._ordered(trained, photos=len(photos))
        encoding = PhotoEncoding(
            encoders=encoders, cache=cache, views=replace(self.views, count=self.views.count + self.held_out_views),
            masked=self.outside_mask < 1, inpaints=base.inpaints, seed=self.seed,
        )  # fmt: skip
        self._encoded = EncodedSet.of(
            self._items, encoding, variants=self.caption_variants, outside_mask=self.outside_mask, tells_sizes=base.family == "sdxl"
        )
        views = range(self.views.count, self.views.count + self.held_out_views)
        self._kept_back = [*((row, 0) for row in back), *((row, view) for row in trained for view in views)]
        self.found = found.photos
        self._facts = self._facts_of(trained, back, encoders, cache, seconds=time.perf_counter() - started)

    def _encoders(self, device: torch.device | str) -> Encoders:
        return Encoders(self.base_name, device=device, precision=self.encode_precision, prediction=self.prediction)

    def _facts_of(self, trained: list[int], back: list[int], encoders: Encoders, cache: Cache, *, seconds: float) -> Facts:
        return Facts(
            photos=len(trained), held_out=len(back), held_out_views=self.held_out_views, regular=len(self.seen) - len(trained) - len(back),
            views=self.views.count, captions=len(self._encoded.bank), magnified=magnified(self._items),
            buckets=tuple(sorted(Counter(self._items[row].size for row in trained).items())), cache=str(cache.folder or ""),
            cache_trouble=cache.trouble, found=cache.found, made=cache.made, damaged=cache.damaged, loaded=tuple(encoders.loaded),
            repairs=encoders.repairs, seconds=seconds,
        )  # fmt: skip

    def _settle(self, found: TrainingSet, base: Base) -> Settled:
        """Decide what was left out, and note it where others look for it.

        Raises:
            SettingError: If views that are kept back would be the photos themselves.
        """
        chosen = settled(self._given, found.settings, base.size)
        self.size, self.batch_size, self.outside_mask = chosen.size, chosen.batch_size, chosen.outside_mask
        self.caption_dropout, self.views = chosen.caption_dropout, replace(self.views, flip=chosen.flip)
        if self.held_out is None:
            self.held_out = 0 if self.held_out_views else share_kept_back(found.settings.held_out, len(found.photos.photos))
        if self.held_out_views and not self.views.differ:
            raise SettingError(
                f"views that are kept back must differ from the photo, held_out_views is {self.held_out_views} and views.zoom 1; give "
                "--data.views.zoom 1.15"
            )
        return chosen

    def _regular_items(self, found: TrainingSet, sizes: set[Size], encoders: Encoders) -> list[Item]:
        """Regularisation pictures, as they were found and as they are drawn; none when there should be no share of them.

        Raises:
            SettingError: If there should be a share of them, but there are none.
        """
        items: list[Item] = []
        if self.regular_share == 0:
            return items
        if found.regular is not None:
            items += regular_items(found.regular, found.regular_rules, sizes)
        if self.regular_count:
            drawn = read_folder(self._drawn(encoders), caption=self.regular_caption, fewest=1)
            items += regular_items(drawn, (CaptionRules(),) * len(drawn.photos), sizes)
        if self.regular_share and not items:
            raise SettingError(
                f"regular_share ({self.regular_share}) needs regularisation pictures, {self.folder} names none; give --data.regular FOLDER"
            )
        return items

    def _drawn(self, encoders: Encoders) -> Path:
        """The folder of pictures drawn by the base."""
        place = cache_folder(self.cache)
        assert place is not None
        assert self.drawer is not None
        assert self.size is not None
        return self.drawer.draw_regular(
            self.base_name, caption=self.regular_caption, count=self.regular_count, size=self.size, seed=self.seed,
            mark=" ".join(encoders.mark(part) for part in ("unet", "vae", "text")), cache=place / "regular",
        )  # fmt: skip

    def _ordered(self, trained: list[int], *, photos: int) -> Order:
        """What is drawn when."""
        buckets = rows_by_size(self._items, trained)
        regular = rows_by_size(self._items, range(photos, len(self._items)))
        share = share_of(self.regular_share, len(self._items) - photos)
        return Order(
            buckets=tuple(buckets.values()), regular=tuple(regular[size] for size in buckets) if share else (), share=share,
            views=self.views.count, caption_dropout=self.caption_dropout, seed=self.seed,
        )  # fmt: skip

    def facts(self) -> Facts:
        """What became of the photos; after ``setup``."""
        return self._facts

    @property
    def seen(self) -> tuple[Photo, ...]:
        """Every picture that is encoded, regularisation pictures included, each once; after ``setup``."""
        return tuple({item.photo.path: item.photo for item in self._items}.values())

    @property
    def captions(self) -> tuple[str, ...]:
        """The first caption of every photo, under the rules of the file of the photos; after ``setup``."""
        return tuple(self._encoded.texts[row][0] for row, item in enumerate(self._items) if not item.regular)

    def contents(self) -> dict[str, list[str]]:
        """Hashes of everything that is trained on; after ``setup``."""
        masked = self.outside_mask < 1 or "inpaint" in self._encoded.entries[0]
        return contents_of(self._items, self._encoded.texts, masked=masked)

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """The batch of step ``step``, or the part of process ``rank`` of ``world``: together they see one large batch."""
        return self._encoded.batch(self._order.draw(step, self.batch_size * world).part(rank, world))

    @override
    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Photos kept back, as they are, and views kept back, with their captions; no loader when there are none."""
        if not self._kept_back:
            warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")  # it is the intention
            return []
        by_size: dict[Size, list[tuple[int, int]]] = {}
        for row, view in self._kept_back:
            by_size.setdefault(self._items[row].size, []).append((row, view))
        parts = [some[at : at + self.batch_size] for some in by_size.values() for at in range(0, len(some), self.batch_size)]
        return DataLoader([self._encoded.batch(as_they_are(part)) for part in parts], batch_size=None)  # type: ignore[arg-type]  # a list is a map-style data set

    @override
    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches from the step on that the trainer is at; what it accumulates are the parts of one large batch."""
        if self.trainer is None:
            return DataLoader(FromStep(self.batch, 0), batch_size=None)
        rank, world, parts = self.trainer.global_rank, self.trainer.world_size, self.trainer.accumulate_grad_batches

        def make(index: int) -> Batch:
            step, part = divmod(index, parts)
            return self.batch(step, rank=part * world + rank, world=parts * world)

        return DataLoader(FromStep(make, self.trainer.global_step * parts), batch_size=None)
