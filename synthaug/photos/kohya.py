"""What a training run is given to learn from: a folder, or a data set as it was laid out for kohya's scripts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from synthaug.errors import PhotoFolderError, SettingError
from synthaug.photos.caption_files import CAPTIONS, caption_file
from synthaug.photos.dataset_file import Subset, read_subsets
from synthaug.photos.folder import PhotoFolder, Source, photo_files, read_sources, sources_of
from synthaug.photos.kohya_keys import unheard
from synthaug.photos.set_settings import SetSettings, settings_of, share_kept_back, within
from synthaug.photos.tags import CaptionRules

__all__ = ["SetSettings", "TrainingSet", "count_kept_back", "read_training_set", "to_learn"]

log = logging.getLogger(__name__)

_RULES = {
    "shuffle_caption": "shuffle", "caption_separator": "separator", "keep_tokens": "keep", "keep_tokens_separator": "keep_separator",
    "secondary_separator": "group_separator", "caption_tag_dropout_rate": "drop_tags", "caption_prefix": "prefix",
    "caption_suffix": "suffix", "enable_wildcard": "wildcards",
}  # fmt: skip
"""Key of a dataset file -> field of the caption rules."""


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Photos and how they are to be learned from."""

    photos: PhotoFolder
    """What is to be learned."""

    regular: PhotoFolder | None = None
    """Regularisation images: what the base must not forget."""

    rules: tuple[CaptionRules, ...]
    """How the caption of each photo varies, in the photos' order."""

    regular_rules: tuple[CaptionRules, ...] = ()
    """The same for regularisation images."""

    settings: SetSettings = field(default_factory=SetSettings)
    """What the set says of the run."""

    remarks: tuple[str, ...] = ()
    """What in its file is not done as it says, one sentence each; they are logged as warnings, too."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One folder, the rules of its captions, and what it is for."""

    source: Source
    rules: CaptionRules = field(default_factory=CaptionRules)
    regular: bool = False


def read_training_set(
    path: Path | str,
    *,
    caption: str,
    trigger: str,
    group: str,
    masks: Path | None = None,
    regular: Path | None = None,
    regular_caption: str = "",
) -> TrainingSet:
    """Read photos, captions and what else a data set says.

    Args:
        path: A folder of photos; a folder of folders such as ``10_iriko fish``, or one in whose sub-folder ``img`` those lie (``reg``
            beside it holds regularisation images then); or a dataset file of kohya's scripts, TOML or JSON. A file's relative folders
            are looked for beside it, then in the working folder. Of several values for the whole run, the first counts.
        caption: Template for photos without a text file and class words; ``{trigger}`` stands for the trigger word.
        trigger: The word that will bring out what is learned.
        group: How to find a photo's group in its file name, as in :func:`synthaug.photos.read_folder`; with several folders, their
            names go before.
        masks: Folder of masks; the sub-folder ``mask`` of each folder when left out.
        regular: Folder of regularisation images, or of folders such as ``1_fish``; they are captioned by text files or the folder's name.
        regular_caption: Caption of those in ``regular`` that have neither.

    Returns:
        The set. What its file asks for in vain is among the remarks.

    Raises:
        PhotoFolderError: If a folder cannot be used, a caption is empty, or a regularisation image has none.
        SettingError: If the file has an unknown key (the nearest is named), or a value cannot be used.
        UnusableFileError: If the file cannot be read.

    Example:
        >>> read_training_set("/no/such/set.toml", caption="a {trigger}", trigger="cod", group="")
        Traceback (most recent call last):
        ...
        synthaug.errors.PhotoFolderError: there is no folder /no/such/set.toml; give the folder your photos lie in

    Folder names and dataset files: https://github.com/kohya-ss/sd-scripts/blob/main/docs/config_README-en.md.
    """
    path = Path(path)
    if masks is not None and not masks.is_dir():
        raise PhotoFolderError(f"there is no folder {masks}; give the folder the masks lie in, or leave it out")
    parts, settings, remarks = _of_file(path, masks) if path.is_file() else _of_folder(path, masks)
    own = _once([part for part in parts if not part.regular], remarks)
    kept = _once([*(part for part in parts if part.regular), *(_regular(regular, regular_caption) if regular is not None else [])], remarks)
    if not own:
        raise PhotoFolderError(f"{path} names nothing to learn, only regularisation images; add a folder without is_reg")
    for part in kept:
        _check_captions(part.source)
    photos = read_sources([part.source for part in own], place=path, caption=caption, trigger=trigger, group=group)
    others = [replace(part.source, label="/".join(("regular", part.source.label)).rstrip("/")) for part in kept]
    images = read_sources(others, place=regular or path, caption="", trigger="", group=group, fewest=1) if others else None
    for remark in remarks:
        log.warning("%s: %s", path.name, remark)
    return TrainingSet(
        photos=photos, regular=images, rules=_rules_of(photos, own), regular_rules=_rules_of(images, kept) if images else (),
        settings=settings, remarks=tuple(remarks),
    )  # fmt: skip


def _rules_of(found: PhotoFolder, parts: Sequence[_Part]) -> tuple[CaptionRules, ...]:
    """The rules of every photo, by the folder it lies in."""
    rules = {part.source.folder: part.rules for part in parts}
    return tuple(rules[photo.path.parent] for photo in found.photos)


def _once(parts: Sequence[_Part], remarks: list[str]) -> list[_Part]:
    """Folders without those that came before, each with a name of its own for its groups where there are several."""
    first: dict[Path, _Part] = {}
    again = [part.source.folder for part in parts if first.setdefault(part.source.folder.resolve(), part) is not part]
    remarks += [f"the folder {folder} is listed more than once; a run has one size, so its photos count once" for folder in again]
    names = Counter(part.source.folder.name for part in first.values())
    seen: Counter[str] = Counter()
    named = []
    for part in first.values():
        name = part.source.folder.name
        seen[name] += 1
        label = part.source.label or (name if names[name] == 1 else f"{name}#{seen[name]}")
        named.append(replace(part, source=replace(part.source, label=label)) if len(first) > 1 else part)
    return named


def to_learn(path: Path) -> list[Source]:
    """The folders of photos that a folder stands for: itself, those in it, or those in its ``img``; never regularisation images.

    Raises:
        PhotoFolderError: If there is no such folder.
    """
    sources = sources_of(path)
    if sources == [Source(folder=path)] and not photo_files(path) and (path / "img").is_dir():
        return sources_of(path / "img")
    return sources


def _of_folder(path: Path, masks: Path | None) -> tuple[list[_Part], SetSettings, list[str]]:
    """A folder of photos, of folders, or one prepared by kohya's GUI."""
    sources, regular = to_learn(path), []
    if sources[0].folder.is_relative_to(path / "img") and (path / "reg").is_dir():
        regular = [part for part in _regular(path / "reg") if photo_files(part.source.folder)]
    return [*(_Part(source=replace(source, masks=masks)) for source in sources), *regular], SetSettings(), []


def _regular(folder: Path, caption: str = "") -> list[_Part]:
    return [_Part(source=replace(source, words=source.words or caption), regular=True) for source in sources_of(folder)]


def _check_captions(source: Source) -> None:
    """The template is for what is learned: its trigger must not stand for what the base knows already."""
    for photo in photo_files(source.folder):
        if not source.words and caption_file(photo, source.endings) is None:
            raise PhotoFolderError(
                f"a regularisation image must have a caption without the trigger word, {photo} has none; write {photo.stem}.txt beside "
                "it, or name the class: --data.regular_caption, a folder 1_fish, or class_tokens in a dataset file"
            )


def _of_file(path: Path, masks: Path | None) -> tuple[list[_Part], SetSettings, list[str]]:
    """The subsets of a dataset file."""
    remarks: list[str] = []
    subsets = [subset for subset in read_subsets(path) if _counts(subset, remarks)]
    parts = [_part(subset, path, masks, remarks) for subset in subsets]
    asked: dict[str, list[str]] = {}
    for subset in subsets:
        for name, reason in unheard(subset.values).items():
            asked.setdefault(f"{name} has no counterpart here: {reason}", []).append(subset.place)
    remarks += [
        f"{sentence} ({places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''})" for sentence, places in asked.items()
    ]
    own = [subset for subset in subsets if not subset.values.get("is_reg")]
    return parts, settings_of(own, remarks) if own else SetSettings(), remarks


def count_kept_back(path: Path) -> int | None:
    """How many photos a dataset file keeps back to measure on; None when it does not say, or is a folder. Files are counted, not opened.

    Raises:
        SettingError: If the file has an unknown key, or a value cannot be used.
        UnusableFileError: If the file cannot be read.
    """
    if not path.is_file():
        return None
    parts, settings, _ = _of_file(path, None)
    if settings.held_out is None:
        return None
    folders = {part.source.folder.resolve() for part in parts if not part.regular}
    return share_kept_back(settings.held_out, sum(len(photo_files(folder)) for folder in folders))


def _counts(subset: Subset, remarks: list[str]) -> bool:
    if subset.values.get("num_repeats") == 0:
        remarks.append(f"{subset.place} is left out, its num_repeats is 0")
        return False
    return True


def _part(subset: Subset, file: Path, masks: Path | None, remarks: list[str]) -> _Part:
    values = subset.values
    if "metadata_file" in values:
        raise SettingError(
            f"captions must lie beside the photos as text files, {subset.place} has them in a metadata_file; write them there, take the "
            "key out, and set caption_extension"
        )
    ending = "." + values["caption_extension"].removeprefix(".") if "caption_extension" in values else ""
    source = Source(
        folder=_folder("image_dir", subset, file, remarks),
        repeats=values.get("num_repeats", 1),
        words=values.get("class_tokens", "").strip(),
        endings=(ending,) if ending else CAPTIONS[::-1],
        every_line=values.get("enable_wildcard", False),
        masks=_folder("conditioning_data_dir", subset, file, remarks) if "conditioning_data_dir" in values else masks,
        see_through=values.get("alpha_mask", False) and "conditioning_data_dir" not in values,
    )
    _check_photos(source, subset, remarks)
    rules = {field: values[name] for name, field in _RULES.items() if name in values}
    return _Part(source=source, rules=within(subset, lambda: CaptionRules(**rules)), regular=values.get("is_reg", False))


def _folder(key: str, subset: Subset, file: Path, remarks: list[str]) -> Path:
    """A folder that the file names: beside the file, or else in the working folder, where kohya's scripts look."""
    if key not in subset.values:
        raise SettingError(f"{key} must be given, {subset.place} has none; write the folder its photos lie in")
    named = Path(subset.values[key])
    there = [folder for folder in (file.parent / named, Path.cwd() / named) if folder.is_dir()]
    if not there:
        looked = "" if named.is_absolute() else ", neither beside the file nor in the working folder"
        raise PhotoFolderError(f"{key} must be a folder, {named} of {subset.place} is none{looked}; correct the path")
    if not named.is_absolute() and there[0] != file.parent / named:
        remarks.append(f"{key} {named} is read from the working folder, there is none beside the file")
    elif len(there) > 1 and not there[0].samefile(there[1]):
        remarks.append(f"{key} {named} is read from beside the file; kohya's scripts would read the one in the working folder")
    return there[0]


def _check_photos(source: Source, subset: Subset, remarks: list[str]) -> None:
    """Refuse a folder without photos, and name captions that will not be read."""
    photos = photo_files(source.folder)
    if not photos:
        nested = any(part.label for part in sources_of(source.folder))
        way = "give it instead of the file, or each of its sub-folders a subset" if nested else "put some there, or check image_dir"
        raise PhotoFolderError(f"{source.folder} of {subset.place} holds no photo itself; {way}")
    passed = [found for photo in photos if caption_file(photo, source.endings) is None and (found := caption_file(photo))]
    if passed:
        remarks.append(
            f"{len(passed)} caption files are not read because caption_extension is {source.endings[0]!r}, the first is {passed[0].name} "
            f"({subset.place})"
        )
