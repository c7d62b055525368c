"""What a data set says of the run that learns from it: size, batch, buckets, flips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from synthaug.errors import SettingError
from synthaug.photos.buckets import Buckets
from synthaug.photos.dataset_file import Subset

__all__ = ["SetSettings", "settings_of", "share_kept_back", "within"]

T = TypeVar("T")

_BUCKETS = {"enable_bucket": "enabled", "bucket_reso_steps": "step", "min_bucket_reso": "smallest", "max_bucket_reso": "largest"}
"""Key of a dataset file -> field of the buckets."""

_USUAL: dict[str, Any] = {
    "resolution": None, "batch_size": 1, "enable_bucket": False, "bucket_reso_steps": 64, "min_bucket_reso": 256, "max_bucket_reso": 1024,
    "bucket_no_upscale": False, "flip_aug": False, "caption_dropout_rate": 0.0, "validation_split": 0.0,
}  # fmt: skip
"""Keys of which a run has one value -> what kohya's scripts take when it is not said; None takes what another subset says."""


@dataclass(frozen=True, kw_only=True)
class SetSettings:
    """What a data set says of the run; None where it says nothing."""

    size: tuple[int, int] | None = None
    """Height and width to train at."""

    batch_size: int | None = None
    """Photos per step."""

    buckets: Buckets | None = None
    """Whether photos keep about their own shape."""

    flip: bool | None = None
    """Whether photos may be mirrored left to right."""

    caption_dropout: float | None = None
    """Share of samples without a caption, 0 to 1."""

    masked: bool | None = None
    """Whether masks are part of the set and meant to be used."""

    held_out: float | None = None
    """Share of the photos to keep back and measure the loss on, 0 to 1."""


def share_kept_back(share: float | None, count: int) -> int:
    """How many of ``count`` photos a share to keep back is: the nearest number, at least one.

    Example:
        >>> share_kept_back(0.1, 24), share_kept_back(0.1, 3), share_kept_back(None, 24)
        (2, 1, 0)
    """
    return max(1, round(share * count)) if share else 0


def settings_of(own: Sequence[Subset], remarks: list[str]) -> SetSettings:
    """What a dataset file says of the run.

    Args:
        own: The subsets that are learned, at least one.
        remarks: Gets a sentence for every value that is passed over because another subset's counts.

    Raises:
        SettingError: If the buckets cannot be used.

    Example:
        >>> settings_of([Subset(place="subset 1", values={"resolution": [768, 512], "flip_aug": True})], []).size
        (512, 768)
    """
    first: dict[str, Any] = {}
    for name, usual in _USUAL.items():
        said = [(subset, value) for subset in own if (value := subset.values.get(name, usual)) is not None]
        if not any(name in subset.values for subset in own):
            continue
        first[name] = said[0][1]
        remarks += [
            f"{name} is {first[name]!r} in {said[0][0].place} and {value!r} in {subset.place}; a run has one, so the first counts"
            for subset, value in said[1:] if value != first[name]
        ][:1]  # fmt: skip
    size = first.get("resolution")
    masked = [subset.values.get("alpha_mask", False) or "conditioning_data_dir" in subset.values for subset in own]
    return SetSettings(
        size=(size, size) if isinstance(size, int) else (size[1], size[0]) if size else None,
        batch_size=first.get("batch_size"),
        buckets=within(own[0], lambda: _buckets(first)),
        flip=first.get("flip_aug"),
        caption_dropout=first.get("caption_dropout_rate"),
        masked=True if any(masked) else False if any("alpha_mask" in subset.values for subset in own) else None,
        held_out=first.get("validation_split"),
    )


def _buckets(first: dict[str, Any]) -> Buckets | None:
    fields = {field: first[name] for name, field in _BUCKETS.items() if name in first}
    if "bucket_no_upscale" in first:
        fields["upscale"] = not first["bucket_no_upscale"]
    return Buckets(**fields) if fields else None


def within(subset: Subset, make: Callable[[], T]) -> T:
    """Make something; what is wrong with it is said with its place.

    Raises:
        SettingError: If making it does.
    """
    try:
        return make()
    except SettingError as error:
        raise SettingError(f"{error}, in {subset.place}") from None
