"""``index.json`` beside the shards: what each holds, so that a missing or damaged one is noticed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from synthaug.errors import SettingError, UnusableFileError

__all__ = ["INDEX", "ImageFormat", "Shard", "ShardIndex", "file_hash"]

INDEX = "index.json"

ImageFormat = Literal["png", "jpg"]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One finished tar."""

    file: str
    """Name in the folder of the index."""

    count: int
    """Samples in it."""

    bytes: int
    """Its length."""

    sha256: str
    """Hash of the file."""

    mark: str
    """Hash that tells what it was made from: requests, base, LoRAs, verdicts."""

    def is_whole(self, folder: Path) -> bool:
        """Whether the file is there, byte for byte."""
        path = folder / self.file
        return path.is_file() and path.stat().st_size == self.bytes and file_hash(path) == self.sha256


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """All finished shards of a folder.

    Example:
        >>> ShardIndex(image="png", per_shard=1000, total=2500).file(2)
        'shard-000002.tar'
    """

    image: ImageFormat
    """How images are encoded."""

    per_shard: int
    """Samples per shard; the last one may have fewer."""

    total: int
    """Samples that the folder has when it is finished."""

    shards: tuple[Shard, ...] = ()
    """In their order."""

    @property
    def count(self) -> int:
        """Samples in finished shards."""
        return sum(shard.count for shard in self.shards)

    @staticmethod
    def file(number: int) -> str:
        """Name of a shard."""
        return f"shard-{number:06d}.tar"

    @classmethod
    def read(cls, folder: Path) -> ShardIndex | None:
        """Index of a folder, None if there is none.

        Raises:
            UnusableFileError: If it cannot be read.
        """
        path = folder / INDEX
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**data, "shards": tuple(Shard(**row) for row in data["shards"])})
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UnusableFileError(f"{path} is not an index of shards ({error}); delete it and write the shards again") from error

    def write(self, folder: Path) -> None:
        """Write the index, whole or not at all; an ``OSError`` is left to the caller."""
        part = folder / f"{INDEX}.part"
        try:
            part.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", encoding="utf-8")
            part.replace(folder / INDEX)
        finally:
            part.unlink(missing_ok=True)

    def check_same_layout(self, folder: Path, *, image: ImageFormat, per_shard: int) -> None:
        """Refuse to go on in another layout.

        Raises:
            SettingError: If image format or shard size differ.
        """
        for what, has, wanted in (("image", self.image, image), ("per_shard", self.per_shard, per_shard)):
            if has != wanted:
                raise SettingError(f"{folder} holds shards written with {what}={has!r}, got {wanted!r}; use the same, or another folder")


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
