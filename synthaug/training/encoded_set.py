"""Everything that batches are made of, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.training.batches import Drawn
from synthaug.training.encoding import PhotoEncoding, TextBank, captions_of
from synthaug.training.items import Item
from synthaug.training.latent_cache import Entry
from synthaug.training.views import Views

__all__ = ["EncodedSet"]


@dataclass(frozen=True, kw_only=True)
class EncodedSet:
    """Encoded pictures and captions."""

    entries: tuple[Entry, ...]
    """For each item its views."""

    texts: tuple[tuple[str, ...], ...]
    """For each item the captions it may have."""

    bank: TextBank
    """Text states."""

    outside_mask: float
    """How much a place outside of the mask counts."""

    tells_sizes: bool
    """Whether the base is told sizes and cuts, as SDXL is."""

    has_regular: bool
    """Whether there are regularisation pictures."""

    @classmethod
    def of(cls, items: Sequence[Item], encoding: PhotoEncoding, *, variants: int, outside_mask: float, tells_sizes: bool) -> EncodedSet:
        """Encode what the cache does not know.

        Args:
            items: The pictures; regularisation pictures get one view.
            encoding: How to encode.
            variants: Captions drawn for a picture whose caption varies.
            outside_mask: How much a place outside of the mask counts.
            tells_sizes: Whether the base is told sizes.
        """
        entries = tuple(encoding.entry(item.photo, item.size, views=Views(count=1, flip=False) if item.regular else None) for item in items)
        encoding.encoders.drop()
        texts = tuple(captions_of(item.photo, item.rules, variants=variants, seed=encoding.seed) for item in items)
        bank = TextBank([text for some in texts for text in some], encoding.encoders, encoding.cache)
        encoding.encoders.drop()
        return cls(
            entries=entries, texts=texts, bank=bank, outside_mask=outside_mask, tells_sizes=tells_sizes,
            has_regular=any(item.regular for item in items),
        )  # fmt: skip

    def batch(self, drawn: Drawn) -> Entry:
        """Rows that were drawn, all of one size, as :class:`~synthaug.training.LoraTraining` takes them."""
        pairs = list(zip(drawn.items.tolist(), drawn.views.tolist(), strict=True))

        def stacked(key: str) -> Tensor:
            return torch.stack([self.entries[item][key][view] for item, view in pairs])

        batch = {"mean": stacked("mean"), "std": stacked("std"), **self.bank.rows(self._texts(drawn))}
        batch["weight"] = self.outside_mask + (1 - self.outside_mask) * stacked("inside")
        if "inpaint" in self.entries[0]:
            batch["inpaint"] = stacked("inpaint")
        if self.tells_sizes:
            batch["time_ids"] = stacked("place").float()
        if self.has_regular:
            batch["regular"] = drawn.regular
        return batch

    def _texts(self, drawn: Drawn) -> Tensor:
        """Rows of the captions in the bank, int64 (B,)."""
        rows = zip(drawn.items.tolist(), drawn.captions.tolist(), drawn.captioned.tolist(), strict=True)
        texts = [self.texts[item][int(share * len(self.texts[item]))] if captioned else "" for item, share, captioned in rows]
        return torch.tensor([self.bank.row(text) for text in texts])
