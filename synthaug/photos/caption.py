"""``synthaug caption``: write or edit the text files beside photos, all in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synthaug.errors import OutputError, PhotoFolderError, require
from synthaug.photos.folder import read_caption
from synthaug.pixels import SUFFIXES
from synthaug.seeds import seed_for
from synthaug.templates import fill

__all__ = ["Edit", "caption"]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Changes to a caption, made in this order.

    Example:
        >>> Edit(replace=("fish", "sardine"), remove=("blurry",), prefix="a photo of ").apply("fish, blurry, on paper")
        'a photo of sardine, on paper'
    """

    replace: tuple[str, str] | None = None
    """Text to find and what to put in its place, every time it occurs."""

    remove: tuple[str, ...] = ()
    """Tags, the parts between commas, to take out."""

    prefix: str = ""
    """Text to put before."""

    suffix: str = ""
    """Text to put behind."""

    def apply(self, text: str) -> str:
        """The caption after the changes."""
        if self.replace is not None:
            text = text.replace(*self.replace)
        if self.remove:
            text = ", ".join(tag for part in text.split(",") if (tag := part.strip()) and tag not in self.remove)
        if not text.startswith(self.prefix):
            text = self.prefix + text
        return " ".join((text if text.endswith(self.suffix) else text + self.suffix).split())


def caption(  # noqa: PLR0913  # every argument is an option of the command line
    *,
    photos: Path,
    template: str = "",
    trigger: str = "",
    overwrite: bool = False,
    find: str = "",
    replace: str = "",
    remove: Sequence[str] = (),
    prefix: str = "",
    suffix: str = "",
    dry_run: bool = False,
) -> None:
    """Write captions beside photos from a template, and edit the ones that are there.

    A caption is a ``.txt`` file with the photo's name; a ``.caption`` file that is already there is edited instead. A second run with
    the same settings changes nothing.

    Args:
        photos: Folder of photos.
        template: Caption of photos that have none; ``{trigger}`` stands for the trigger word, ``{this|that}`` is decided per photo.
        trigger: Word that will bring out what is learned.
        overwrite: Write the template over captions that are there.
        find: Text to replace in every caption.
        replace: What to put in its place.
        remove: Tags, the parts between commas, to take out.
        prefix: Text to put before every caption that does not begin with it.
        suffix: Text to put behind every caption that does not end with it.
        dry_run: Show what would be written, and write nothing.

    Raises:
        PhotoFolderError: If there is no photo, a caption file cannot be read, or a photo would be left without a caption.
        SettingError: If the template has an unknown placeholder, or there is something to replace it with but nothing to find.
        OutputError: If a file cannot be written.
    """
    require({"find must say what to replace": (bool(find) or not replace, find)})
    edit = Edit(replace=(find, replace) if find else None, remove=tuple(remove), prefix=prefix, suffix=suffix)
    files = _photos(photos)
    planned = [(_file(photo), _text(photo, template, trigger, edit, overwrite=overwrite)) for photo in files]
    changed = [(file, text) for file, text in planned if not file.exists() or read_caption(file) != text]
    for file, text in changed:
        print(f"{file.name}: {text}")
        if not dry_run:
            _write(file, text + "\n")
    done = "changed" if not changed else "would be written" if dry_run else "written"
    print(f"{len(changed)} of {len(files)} captions {done}")


def _photos(folder: Path) -> list[Path]:
    """The photos of a folder, sorted."""
    if not folder.is_dir():
        raise PhotoFolderError(f"there is no folder {folder}; give the folder your photos lie in")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    if not files:
        raise PhotoFolderError(f"{folder} holds no photo ({', '.join(SUFFIXES)}); put some there, or check the path")
    return files


def _file(photo: Path) -> Path:
    """The caption file that is there, or the one to write."""
    there = [photo.with_suffix(suffix) for suffix in (".txt", ".caption")]
    return next((file for file in there if file.is_file()), there[0])


def _text(photo: Path, template: str, trigger: str, edit: Edit, *, overwrite: bool) -> str:
    """What the caption of a photo will be."""
    file = _file(photo)
    if file.is_file() and not (overwrite and template):
        before = read_caption(file)
    else:
        before = fill(template, {"trigger": trigger}, seed=seed_for(0, "caption", photo.stem))
    text = edit.apply(before)
    if not before or not text:
        raise PhotoFolderError(
            f"{photo.name} would have no caption; give a --template such as 'a photo of {{trigger}}', or remove fewer tags"
        )
    return text


def _write(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as error:
        raise OutputError(
            f"{file} could not be written ({error.strerror}); free some space, or copy the photos to another folder"
        ) from error
