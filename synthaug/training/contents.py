"""What a run is trained on, as a checkpoint remembers it: enough to notice a change, and nothing that could be shown again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence

from synthaug.pixels import digest, read_mask
from synthaug.training.items import Item

__all__ = ["changed_contents", "contents_of"]

KINDS = {
    "photos": "photos",
    "regular": "regularisation pictures",
    "captions": "captions",
    "masks": "masks",
    "repeats": "repeats",
}
"""What is compared, by key in a checkpoint, in words; a changed photo has another caption, too, so photos come first."""


def contents_of(items: Sequence[Item], texts: Sequence[Sequence[str]], *, masked: bool) -> dict[str, list[str]]:
    """Hashes of everything that is trained on, sorted, so that it does not matter where the files lie; and the order they are drawn in.

    Args:
        items: The pictures.
        texts: For each the captions it may have.
        masked: Whether masks count.

    Raises:
        UnusableFileError: If a mask cannot be read.
    """
    masks = {item.photo.mask: item.photo.sha256 for item in items if masked and item.photo.mask is not None}
    return {
        "photos": sorted(item.photo.sha256 for item in items if not item.regular),
        "regular": sorted(item.photo.sha256 for item in items if item.regular),
        "captions": sorted(f"{item.photo.sha256} {_hash(some)}" for item, some in zip(items, texts, strict=True)),
        "masks": sorted(f"{photo} {digest(read_mask(path))}" for path, photo in masks.items()),
        "repeats": sorted(f"{item.photo.sha256} {item.repeats}" for item in items),
        "order": [item.photo.sha256 for item in items],
    }


def changed_contents(was: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> str:
    """The first kind of content that differs, and how much, in words; "" if none does.

    Args:
        was: Contents of the run that is resumed; a kind it does not name is not compared.
        now: Contents that were found.

    Example:
        >>> changed_contents({"photos": ["a", "b"]}, {"photos": ["a", "c", "d"], "masks": ["e"]})
        'photos, 1 of 2 are gone or changed and 2 are new'
        >>> changed_contents({"photos": ["a"]}, {"photos": ["a"]})
        ''
        >>> changed_contents({"order": ["a", "b", "c"]}, {"order": ["b", "a", "c"]})
        'order of photos, which their names give, 2 of 3 stand elsewhere'
    """
    for kind, words in KINDS.items():
        before, after = (Counter(side.get(kind, ())) for side in (was, now))
        if kind in was and before != after:
            gone, new = (before - after).total(), (after - before).total()
            return f"{words}, {gone} of {before.total()} are gone or changed and {new} are new"
    there = now.get("order", ())
    if moved := sum(a != b for a, b in zip(was.get("order", there), there, strict=True)):
        return f"order of photos, which their names give, {moved} of {len(there)} stand elsewhere"
    return ""


def _hash(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
