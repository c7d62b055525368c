"""Read WebDataset shards as a data set; no diffusion model is loaded."""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from glob import glob, has_magic
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset
from torchvision import tv_tensors
from typing_extensions import override
from webdataset.gopen import gopen
from webdataset.shardlists import expand_urls
from webdataset.tariterators import group_by_keys, tar_file_expander

from synthaug.datasets.passes import Passes, Share, Ticket
from synthaug.datasets.progress import mark_of
from synthaug.datasets.shard_index import ShardIndex
from synthaug.datasets.targets import Target, check_target, target_of
from synthaug.errors import SettingError, UnusableFileError
from synthaug.pixels import SUFFIXES, read_image
from synthaug.records import Request
from synthaug.seeds import seed_for

__all__ = ["ShardDataset", "shuffled"]


class ShardDataset(IterableDataset[tuple[Any, Any]]):
    """Labelled images from WebDataset shards, in the form that ``SyntheticDataset`` gives them.

    Every sample is read exactly once per pass, with any number of workers and ``torch.distributed``
    processes: each takes every n-th shard, or, when there are fewer shards than that, every n-th sample.
    Beside shards of ours, those of others work if they hold an image and ``cls`` or ``label.txt``.

    Args:
        urls: A folder, a tar, a pattern such as ``shards/shard-{000000..000009}.tar`` or ``shards/*.tar``, an
            ``https://`` address (also with braces), or a list of these.
        transform: Applied to each image.
        target: ``label``, or ``dict`` for label, index, seed and prompt.
        shuffle: Samples held in memory to be shuffled; 0 keeps the order. The order of the shards is shuffled
            too, and every pass has another order.
        seed: Seed of the shuffling.

    Yields:
        Pairs of image and target. The image is a ``tv_tensors.Image``, uint8 (3, H, W), or what
        ``transform`` makes of it.

    Raises:
        SettingError: If a value cannot be used; while iterating, if ``target="dict"`` and a sample has no request.
        UnusableFileError: If a shard is missing or a folder unfinished; while iterating, if a shard is damaged or
            holds fewer samples than its index says.

    Example:
        >>> ShardDataset("no-such-folder/*.tar")
        Traceback (most recent call last):
        ...
        synthaug.errors.UnusableFileError: no shard matches no-such-folder/*.tar; check the path

    Format: https://github.com/webdataset/webdataset.
    """

    def __init__(
        self,
        urls: str | Path | Sequence[str | Path],
        *,
        transform: Callable[[tv_tensors.Image], Any] | None = None,
        target: Target = "label",
        shuffle: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_target(target)
        if shuffle < 0:
            raise SettingError(f"shuffle must not be negative, got {shuffle}; 0 keeps the order")
        each = [urls] if isinstance(urls, (str, Path)) else urls
        self.urls = [url for given in each for url in expanded(given)]
        if not self.urls:
            raise SettingError("there must be at least one shard, got an empty list; give a folder, a pattern or tars")
        self._counts = _expected_counts(self.urls)
        self._transform, self._target, self._shuffle, self._seed = transform, target, shuffle, seed
        self._passes, self._share = Passes(), Share()

    @override
    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._run(self._passes.ticket())

    def _run(self, ticket: Ticket) -> Iterator[tuple[Any, Any]]:
        return self._finished(self._samples(self._passes.number(ticket)))

    @property
    def mark(self) -> str:
        """Tells data sets apart that hand out other images; the folders of the shards make no difference."""
        return mark_of([[Path(url).name for url in self.urls], list(self._counts.values()), self._shuffle, self._seed])

    def check_enough(self, count: int) -> None:
        """Shards are never too few for so many images per pass: they are gone through again."""

    def images(self, number: int, *, start: int = 0, stop: int | None = None) -> Generator[tuple[Any, Any]]:
        """Images of this part in a pass: those from ``start`` to ``stop``; a pass that is shorter begins again, in another order.

        Raises:
            SettingError: If it is to begin again and this part has none.
        """
        yield from self._finished(islice(self._samples(number) if stop is None else self._again_and_again(number), start, stop))

    def _again_and_again(self, number: int) -> Iterator[dict[str, Any]]:
        for turn in count_from():
            samples = self._samples(number, turn)
            first = next(samples, None)
            if first is None:
                raise SettingError(f"each worker needs an image of its own to begin again, {self.urls[0]} has too few; use fewer workers")
            yield first
            yield from samples

    def _samples(self, number: int, turn: int = 0) -> Iterator[dict[str, Any]]:
        """Samples of this part in a pass, each time in another order if it is gone through again."""
        part, parts = self._share.part()
        again = (turn,) if turn else ()
        urls = list(self.urls)
        if self._shuffle:
            random.Random(seed_for(self._seed, "shards", number, *again)).shuffle(urls)  # noqa: S311  # an order, not a secret
        by_shard = len(urls) >= parts
        samples = self._read(urls[part::parts] if by_shard else urls)
        samples = samples if by_shard else islice(samples, part, None, parts)
        if self._shuffle:
            samples = shuffled(samples, self._shuffle, seed=seed_for(self._seed, "samples", number, part, *again))
        return samples

    def _finished(self, samples: Iterable[dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
        for sample in samples:
            image = _image(sample)
            yield (image if self._transform is None else self._transform(image)), _target(sample, self._target)

    def _read(self, urls: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Samples of these shards, as bytes by suffix."""
        for url in urls:
            count = 0
            for sample in _samples(url):
                count += 1
                yield sample
            if count != self._counts.get(url, count):
                raise UnusableFileError(
                    f"{url} was cut short: its index says {self._counts[url]} samples, {count} are in it; "
                    "run synthaug shards again, or copy the shard again"
                )


def expanded(given: str | Path) -> list[str]:
    """Shards that a folder, path, pattern or address stands for.

    Raises:
        SettingError: If it is a shell command, or its braces do not match.
        UnusableFileError: If a shard is missing, or the folder is not finished.
    """
    text = str(given)
    if text.startswith("pipe:"):
        raise SettingError(f"a shard must be a file or an address, {text!r} would run a command; give the tars themselves")
    if Path(text).is_dir():
        return _in_folder(Path(text))
    try:
        each = [text] if isinstance(given, Path) else expand_urls(text)
    except (AssertionError, ValueError) as error:
        raise SettingError(f"the pattern {text!r} cannot be understood ({error}); write it like shard-{{000000..000009}}.tar") from error
    return [url for one in each for url in ([one] if "://" in one else _files(one))]


def _in_folder(folder: Path) -> list[str]:
    index = ShardIndex.read(folder)
    if index is None:
        return _files(str(folder / "*.tar"))
    if index.count != index.total:
        raise UnusableFileError(
            f"{folder} is not finished: {index.count} of {index.total} samples are in its shards; run synthaug shards again to go on, "
            f"or read what is there with {folder}/*.tar"
        )
    return [file for shard in index.shards for file in _files(str(folder / shard.file))]


def _files(path: str) -> list[str]:
    if has_magic(path) and not Path(path).is_file():
        found = sorted(glob(path))  # noqa: PTH207  # Path.glob refuses absolute patterns
        if not found:
            raise UnusableFileError(f"no shard matches {path}; check the path")
        return found
    if not Path(path).is_file():
        raise UnusableFileError(f"there is no shard {path}; check the path, or write the shards again")
    return [path]


def _expected_counts(urls: Iterable[str]) -> dict[str, int]:
    """How many samples the index beside each shard says, where there is one."""
    counts: dict[str, int] = {}
    indices: dict[Path, ShardIndex | None] = {}
    for url in urls:
        folder, name = Path(url).parent, Path(url).name
        if folder not in indices:
            indices[folder] = None if "://" in url else ShardIndex.read(folder)
        index = indices[folder]
        known = {shard.file: shard.count for shard in (index.shards if index else ())}
        if name in known:
            counts[url] = known[name]
    return counts


def _samples(url: str) -> Iterator[dict[str, Any]]:
    try:
        with closing(gopen(url) if "://" in url else Path(url).open("rb")) as stream:
            yield from group_by_keys(tar_file_expander([{"url": url, "stream": stream}]))
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        why = getattr(error, "strerror", None) or error.args[0]  # webdataset appends streams and addresses to the arguments
        raise UnusableFileError(f"the shard {url} is damaged ({why}); copy it again, or write the shards again") from error


def _image(sample: dict[str, Any]) -> tv_tensors.Image:
    suffix = next((key for key in sample if f".{key}" in SUFFIXES), None)
    if suffix is None:
        has = ", ".join(sorted(key for key in sample if not key.startswith("__"))) or "nothing"
        raise UnusableFileError(f"every sample must hold an image, {_place(sample)} holds {has}; leave the shard out or write it again")
    return tv_tensors.Image(read_image(f"{_place(sample)}.{suffix}", data=sample[suffix]))


def _target(sample: dict[str, Any], kind: Target) -> Any:
    """Target by the request in the sample; shards of others have at least a label."""
    about = json.loads(sample["json"]) if "json" in sample else {}
    if isinstance(about, dict) and "request" in about:
        return target_of(Request.from_json(about["request"]), kind)
    if kind != "label":
        raise SettingError(f"target={kind!r} needs the request of each sample, {_place(sample)} has none; use target='label'")
    for suffix, read in (("cls", int), ("label.txt", str)):
        if suffix in sample:
            return read(sample[suffix].decode().strip())
    raise UnusableFileError(f"every sample must hold a label, {_place(sample)} has no json with a request, no cls, no label.txt; add one")


def _place(sample: dict[str, Any]) -> str:
    return f"{sample['__url__']}, {sample['__key__']}"


def shuffled(items: Iterator[dict[str, Any]], size: int, *, seed: int) -> Iterator[dict[str, Any]]:
    """The items in a random order, with at most ``size`` of them in memory.

    Example:
        >>> [item["n"] for item in shuffled(iter([{"n": n} for n in range(6)]), 4, seed=1)]
        [1, 0, 3, 4, 5, 2]
    """
    rng = random.Random(seed)  # noqa: S311  # an order, not a secret
    held = list(islice(items, size))
    for item in items:
        at = rng.randrange(len(held))
        yield held[at]
        held[at] = item
    rng.shuffle(held)
    yield from held
