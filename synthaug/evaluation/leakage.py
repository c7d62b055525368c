"""No test photo may have been seen before: by the LoRA, by the detectors, or as a synthetic image that repeats it.

Three nets, from certain to likely: the hash of the pixels, the group (photos of one physical part),
and near-copies. Near-copies find mirrored, relit, compressed and slightly shifted or turned pictures;
another photo of the same part is found by its group only, so give groups where parts were photographed twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open

from synthaug.errors import SettingError, UnusableFileError
from synthaug.evaluation.near_copies import near_copies
from synthaug.evaluation.pictures import Pictures
from synthaug.pixels import digest, read_image

__all__ = ["Seen", "check_unseen", "seen_by"]

_NAMED = 3
"""So many offenders are named, the rest is counted."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a generator has seen."""

    hashes: Mapping[str, str] = field(default_factory=dict)
    """Hash of a photo's pixels -> who saw it, for messages."""

    groups: Mapping[str, str] = field(default_factory=dict)
    """Group -> who saw it."""

    cautions: tuple[str, ...] = ()
    """What could not be checked, in sentences."""


def seen_by(loras: Sequence[Path | str], synthetic: Pictures) -> Seen:
    """What the generator of some images has seen: photos of the LoRAs and photos that images were redrawn from.

    Args:
        loras: LoRA files, beside those that the images name themselves.
        synthetic: The images.

    Raises:
        UnusableFileError: If a file of ``loras`` cannot be read.
    """
    hashes: dict[str, str] = {}
    groups: dict[str, str] = {}
    cautions = []
    given = [Path(path) for path in loras]
    for path in dict.fromkeys([*given, *synthetic.loras]):
        if path not in given and not path.is_file():
            others = f"; it may be {given[0].name}, moved" if given else "; give it with --lora"
            cautions.append(f"Images were drawn with {path}, which is not there any more, so its photos could not be checked{others}.")
            continue
        rows = _photos_of(path)
        if not rows:
            cautions.append(f"{path.name} does not list the photos it was trained on, so they could not be checked.")
        hashes.update({row["sha256"]: f"the LoRA {path.name} was trained on it" for row in rows})
        groups.update({row["group"]: f"the LoRA {path.name} was trained on a photo of this group" for row in rows})
    for parent in synthetic.parents:
        if parent.is_file():
            hashes[digest(read_image(parent))] = f"synthetic images were redrawn from {parent}"
        else:
            cautions.append(f"Images were redrawn from {parent}, which is not there any more, so it could not be checked.")
    return Seen(hashes=hashes, groups=groups, cautions=tuple(cautions))


def check_unseen(tests: Sequence[Pictures], known: Sequence[Pictures], seen: Seen) -> None:
    """Refuse test photos that the generator or the detectors have seen.

    Args:
        tests: Good and defect test photos.
        known: Training photos and synthetic images.
        seen: What the generator has seen.

    Raises:
        SettingError: Naming the photos, what they repeat and the way out.
    """
    hashes, groups = dict(seen.hashes), dict(seen.groups)
    for pictures in known:
        hashes.update({key: f"it is the {pictures.kind} picture {name}" for key, name in zip(pictures.hashes, pictures.names, strict=True)})
        groups.update({g: f"{n} is a photo of the same group" for g, n in zip(pictures.groups, pictures.names, strict=True) if g})
    for test in tests:
        _refuse(_known_already(test, hashes, groups), test, known)
    _refuse_both_kinds(tests)
    for test in tests:
        _refuse(_repeats(test, known), test, known)


def _known_already(test: Pictures, hashes: Mapping[str, str], groups: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for name, key, group in zip(test.names, test.hashes, test.groups, strict=True):
        if key in hashes:
            yield name, hashes[key]
        elif group is not None and group in groups:
            yield name, f"group {group!r}: {groups[group]}"


def _repeats(test: Pictures, known: Sequence[Pictures]) -> Iterable[tuple[str, str]]:
    for pictures in known:
        for row, which in near_copies(test.looks, pictures.looks):
            yield test.names[row], f"it is nearly the same picture as {pictures.names[which]}"


def _refuse(found: Iterable[tuple[str, str]], test: Pictures, known: Sequence[Pictures]) -> None:
    offenders = dict(found)
    if not offenders:
        return
    listed = "; ".join(f"{name} ({why})" for name, why in list(offenders.items())[:_NAMED])
    more = f"; and {len(offenders) - _NAMED} more" if len(offenders) > _NAMED else ""
    training = " or ".join(dict.fromkeys(p.kind for p in known if p.kind != "synthetic"))
    raise SettingError(
        f"a test photo must be new to the generator and the detector, {len(offenders)} of {len(test)} {test.kind} photos are not: "
        f"{listed}{more}; take them out of the test set, or out of the {training} photos and train the LoRA again"
    )


def _refuse_both_kinds(tests: Sequence[Pictures]) -> None:
    first: dict[str, tuple[str, str]] = {}
    for test in tests:
        for key, name in zip(test.hashes, test.names, strict=True):
            kind, other = first.setdefault(key, (test.kind, name))
            if kind != test.kind:
                raise SettingError(f"a test photo is either good or defect, {name} is the same picture as {other}; take one of them out")


def _photos_of(path: Path) -> list[dict[str, str]]:
    """Hash and group of every photo that a LoRA file lists; empty for other tools' files."""
    if not path.is_file():
        raise UnusableFileError(f"there is no LoRA file {path}; check the path, or leave --lora out")
    try:
        with safe_open(path, "pt") as opened:
            listed = json.loads((opened.metadata() or {}).get("synthaug.photos", "[]"))
        return [{"sha256": str(row["sha256"]), "group": str(row["group"])} for row in listed]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UnusableFileError(
            f"{path} is not a whole LoRA file ({error}); it was cut short or is something else, copy or download it again"
        ) from error
