"""A report on photos before anything is learned from them: what is wrong with which, and what all drawn images would inherit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from synthaug.errors import require
from synthaug.photos.checks import Look, look_at, remarks, scene_of, troubles
from synthaug.photos.exif import file_facts
from synthaug.photos.folder import PhotoFolder, read_folder
from synthaug.photos.foreground import working_size
from synthaug.photos.report_sheet import SIDE, Field, draw_sheet
from synthaug.pixels import framed, read_image
from synthaug.records import Photo

__all__ = ["PhotoReport", "look_at_photo", "report_on"]

FEW = 15
"""Fewer photos than this teach a LoRA little but themselves."""


@dataclass(frozen=True, kw_only=True)
class PhotoReport:
    r"""What was found out about photos; :func:`report_on` makes one.

    Example:
        >>> look = Look(name="a.jpg", shape=(300, 400), light=0.5, sharpness=0.1, sha256="00")
        >>> print(*PhotoReport(size=(512, 512), looks=(look,)).sentences(), sep="\n")
        only 1 photo can be used; 20 are better, more of the same thing from other sides and in other light
        1 photo is smaller than 512 x 512 and was magnified: a.jpg
    """

    size: tuple[int, int]
    """Height and width that the photos are framed to."""

    looks: tuple[Look, ...]
    """What was measured, photo by photo."""

    skipped: tuple[tuple[str, str], ...] = ()
    """Files that cannot be used, with the reason."""

    views: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)
    """The photos, small, for the sheet: uint8 (3, h, w) each."""

    def sentences(self) -> list[str]:
        """What is wrong, a sentence each; empty when nothing is."""
        said = []
        if self.skipped:
            names = ", ".join(name for name, _ in self.skipped[:5]) + (
                f" and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
            )
            said.append(f"{len(self.skipped)} file{'s' if len(self.skipped) > 1 else ''} cannot be used: {names}")
        if len(self.looks) < FEW:
            one = "1 photo" if len(self.looks) == 1 else f"{len(self.looks)} photos"
            said.append(f"only {one} can be used; 20 are better, more of the same thing from other sides and in other light")
        return said + list(remarks(self.looks, self.size))

    def verdicts(self) -> dict[str, list[str]]:
        """What is wrong with each photo, by name; an empty list for a good one."""
        found: dict[str, list[str]] = {look.name: [] for look in self.looks}
        for one, _, wrong in troubles(self.looks, self.size):
            for name, text in wrong:
                found[name].append(one if text == name else f"{one} ({text.removeprefix(f'{name} = ')})")
        return found

    def table(self) -> str:
        """One line for each photo."""
        head = ["photo", "height x width", "light", "blur", "background", "share", "shadow", "file"]
        rows = [head, *(_row(look) for look in self.looks), *([name, "cannot be used"] + [""] * 6 for name, _ in self.skipped)]
        widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)

    def to_json(self) -> dict[str, Any]:
        """Plain data: the sentences, and what was measured of each photo."""
        verdicts = self.verdicts()
        photos = [{**look.to_json(), "verdict": verdicts[look.name]} for look in self.looks]
        skipped = [{"file": name, "reason": reason} for name, reason in self.skipped]
        return {"size": list(self.size), "sentences": self.sentences(), "photos": photos, "skipped": skipped}

    def write_sheet(self, path: Path) -> None:
        """Draw all photos into a PNG, each with its verdict.

        Raises:
            OutputError: If the file cannot be written.
        """
        verdicts = self.verdicts()
        fields = [Field(name=look.name, picture=view, words=verdicts[look.name]) for look, view in zip(self.looks, self.views, strict=True)]
        fields += [Field(name=name, picture=None, words=[reason.removeprefix(name)]) for name, reason in self.skipped]
        good = sum(not words for words in verdicts.values())
        draw_sheet(fields, path, title=f"{good} of {len(fields)} photos without a remark")


def report_on(photos: PhotoFolder | Path | str, size: tuple[int, int] = (512, 512)) -> PhotoReport:
    """Look through photos before anything is learned from them; nothing is written.

    It takes about half a second for each photo, most of it for finding background and shadow.

    Args:
        photos: A folder, or what :func:`~synthaug.photos.read_folder` found in it.
        size: Height and width that they will be framed to.

    Raises:
        PhotoFolderError: If there is no folder, or no photo in it.
        SettingError: If the size is below 8 by 8.
    """
    require({"size must be height and width of at least 8 pixels": (len(size) == 2 and min(size) >= 8, size)})
    found = photos if isinstance(photos, PhotoFolder) else read_folder(photos, caption="a photo", fewest=1)
    return collected(found, [look_at_photo(photo, read_image(photo.path), size) for photo in found.photos], size)


def collected(found: PhotoFolder, looked: Iterable[tuple[Look, Tensor]], size: tuple[int, int]) -> PhotoReport:
    """The report on photos that were looked at one by one with :func:`look_at_photo`."""
    looks, views = zip(*looked, strict=True)
    skipped = tuple((path.name, reason) for path, reason in found.skipped)
    return PhotoReport(size=size, looks=_told_apart(looks, found.photos), skipped=skipped, views=views)


def look_at_photo(photo: Photo, picture: Tensor, size: tuple[int, int], *, defect: float | None = None) -> tuple[Look, Tensor]:
    """Measure one photo and make it small.

    Args:
        photo: What is known of it.
        picture: Its pixels, uint8 (3, H, W).
        size: Height and width that it will be framed to.
        defect: Share of the framed mask that is defect; None without a mask.
    """
    look = look_at(photo.path.name, picture, size, sha256=photo.sha256, defect=defect, file=file_facts(photo.path))
    scale = SIDE / max(size)
    view = framed(picture, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
    return replace(look, scene=scene_of(framed(picture, working_size(picture, size)))), view


def _told_apart(looks: Sequence[Look], photos: Sequence[Photo]) -> tuple[Look, ...]:
    """Photos of several folders may share a name; then their folder is named, too."""
    names = [look.name for look in looks]
    return tuple(
        replace(look, name=f"{photo.path.parent.name}/{look.name}") if names.count(look.name) > 1 else look
        for look, photo in zip(looks, photos, strict=True)
    )


def _row(look: Look) -> list[str]:
    scene, file = look.scene, look.file
    remarkable = [
        f"EXIF orientation {file.orientation}" * (file.orientation != 1), "broken EXIF" * file.broken_exif, "place" * file.gps,
        file.colours * (file.colours != "RGB"), file.profile,
    ]  # fmt: skip
    shadow = f"{scene.shadow:.0%} {scene.side}".rstrip()
    told = [scene.background, f"{scene.share:.0%}", shadow] if not scene.doubt else ["?", "", ""]
    size = f"{look.shape[0]} x {look.shape[1]}"
    return [look.name, size, f"{look.light:.2f}", f"{look.blur:.2f}", *told, ", ".join(filter(None, remarkable))]
