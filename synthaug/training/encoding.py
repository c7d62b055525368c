"""Photos and captions as what a training step takes, encoded or as the cache remembers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from synthaug.errors import PhotoFolderError
from synthaug.photos.tags import CaptionRules
from synthaug.pixels import digest, read_image, read_mask, to_float
from synthaug.records import Photo
from synthaug.seeds import seed_for
from synthaug.training.encoders import Encoders
from synthaug.training.holes import hole_of
from synthaug.training.latent_cache import Cache, Entry
from synthaug.training.views import Views, views_of

__all__ = ["PhotoEncoding", "TextBank", "captions_of"]


@dataclass(frozen=True, kw_only=True)
class PhotoEncoding:
    """How photos are encoded."""

    encoders: Encoders
    """Encode what is not in the cache."""

    cache: Cache
    """Remembers."""

    views: Views
    """Views of each photo."""

    masked: bool
    """Whether masks are looked at."""

    inpaints: bool
    """Whether the base fills holes, and so needs some."""

    seed: int
    """Of views and holes."""

    def entry(self, photo: Photo, size: tuple[int, int], *, views: Views | None = None) -> Entry:
        """All views of a photo.

        Args:
            photo: The photo; its pixels must be those that its hash was made from.
            size: Height and width of the views.
            views: Other views than the usual ones.

        Returns:
            ``mean`` and ``std`` (V, C, h, w), scaled; ``inside`` (V, 1, h, w), the share of each place that is marked, 1 without a mask;
            ``place`` (V, 6), see :class:`~synthaug.training.views.View`; for bases that fill holes ``inpaint`` (V, 1 + C, h, w).

        Raises:
            PhotoFolderError: If a mask is of another size, or marks nothing; if the photo changed since it was hashed.
            NumericsError: If the encoder answers NaN in fp32, too.
        """
        wanted = views or self.views
        mask = read_mask(photo.mask) if photo.mask is not None and (self.masked or self.inpaints) else None
        depends_on = {
            "photo": photo.sha256, "mask": "" if mask is None else digest(mask), "size": list(size), "views": asdict(wanted),
            "seed": self.seed if wanted.count > 1 or self.inpaints else 0, "inpaints": self.inpaints, "vae": self.encoders.mark("vae"), "dtype": str(self.encoders.dtype),
        }  # fmt: skip
        return self.cache.get_or_make("latents", depends_on, lambda: self._encoded(photo, mask, size, wanted))

    def _encoded(self, photo: Photo, mask: Tensor | None, size: tuple[int, int], views: Views) -> Entry:
        picture = read_image(photo.path)
        if digest(picture) != photo.sha256:
            raise PhotoFolderError(f"photos must not change while they are read, {photo.path} did; start again when it is finished")
        if mask is not None:
            _check_mask(photo, mask, picture)
        marks = torch.ones(picture.shape[1:], dtype=torch.uint8) if mask is None else mask
        rows: list[Entry] = []
        for index, view in enumerate(views_of(picture, marks, size, views, seed=seed_for(self.seed, "views", photo.sha256))):
            pixels = to_float(view.picture)
            mean, std = self.encoders.latents(pixels, photo.path.name)
            inside = adaptive_avg_pool2d(view.mask[None].float(), mean.shape[-2:])
            row = {"mean": mean, "std": std, "inside": inside, "place": torch.tensor(view.place)}
            if self.inpaints:
                hole = hole_of(None if mask is None else view.mask, size, seed=seed_for(self.seed, "hole", photo.sha256, index))
                behind, _ = self.encoders.latents(pixels * (1 - hole), photo.path.name)
                row["inpaint"] = torch.cat([adaptive_max_pool2d(hole[None].float(), mean.shape[-2:]), behind])
            rows.append(row)
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


def _check_mask(photo: Photo, mask: Tensor, picture: Tensor) -> None:
    """Refuse a mask that cannot be this photo's."""
    if mask.shape != picture.shape[1:]:
        raise PhotoFolderError(
            f"a mask must be as large as its photo, {photo.mask} is {tuple(mask.shape)}, {photo.path.name} {tuple(picture.shape[1:])}; "
            "make it again from this photo"
        )
    if not mask.any():
        raise PhotoFolderError(f"a mask must mark something, {photo.mask} is black; paint the defect white, or delete the mask")


def captions_of(photo: Photo, rules: CaptionRules, *, variants: int, seed: int) -> tuple[str, ...]:
    """The captions a photo may have, drawn once; a single one where nothing varies.

    Example:
        >>> fish = Photo(path=Path("fish.png"), caption="a fish", sha256="ab", group="fish")
        >>> captions_of(fish, CaptionRules(), variants=8, seed=0)
        ('a fish',)
    """
    count = variants if rules.varies else 1
    return tuple(rules.variant(photo.caption, seed_for(seed, "caption", photo.sha256, number)) for number in range(count))


class TextBank:
    """Token ids and states of some texts, all of one length.

    Args:
        texts: The texts; the empty one is added.
        encoders: Encode what is not in the cache.
        cache: Remembers each text by itself.
    """

    def __init__(self, texts: Sequence[str], encoders: Encoders, cache: Cache) -> None:
        self._row = {text: row for row, text in enumerate(dict.fromkeys([*texts, ""]))}
        mark = encoders.mark("text")
        entries = [cache.get_or_make("texts", {"text": text, "encoder": mark}, lambda text=text: encoders.text(text)) for text in self._row]  # type: ignore[misc]  # mypy cannot infer a lambda's default
        longest = max(len(entry["tokens"]) for entry in entries)
        empty = entries[self._row[""]]
        self._bank = {key: torch.stack([_filled(entry[key], key, longest, empty) for entry in entries]) for key in empty}

    def __len__(self) -> int:
        return len(self._row)

    def row(self, text: str) -> int:
        """Where a text stands."""
        return self._row[text]

    def rows(self, wanted: Tensor) -> Entry:
        """``tokens`` and ``states`` (B, 77 n, …), with two encoders ``tokens_2`` and ``pooled``, too."""
        return {key: values[wanted] for key, values in self._bank.items()}


def _filled(values: Tensor, key: str, longest: int, empty: Entry) -> Tensor:
    """Tokens or states of a short text, followed by those of empty chunks."""
    if key == "pooled":
        return values
    return torch.cat([values, *[empty[key]] * ((longest - len(values)) // len(empty[key]))])
