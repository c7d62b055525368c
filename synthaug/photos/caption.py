"""``synthaug caption``: write or edit the text files beside photos, all in one go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from synthaug.errors import PhotoFolderError, UnusableFileError, require
from synthaug.photos.blip import Captioner
from synthaug.photos.caption_files import CAPTIONS, caption_file, is_utf8, read_caption, write_caption
from synthaug.photos.folder import photo_files, sources_of
from synthaug.pixels import SUFFIXES, read_image
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
        """The caption after the changes; of several lines each is a caption, and those of which nothing is left go."""
        return "\n".join(changed for line in text.splitlines() if (changed := self._line(line)))

    def _line(self, text: str) -> str:
        if self.replace is not None:
            text = text.replace(*self.replace)
        if self.remove:
            text = ", ".join(tag for part in text.split(",") if (tag := part.strip()) and tag not in self.remove)
        if not text.strip():
            return ""
        if not text.startswith(self.prefix):
            text = self.prefix + text
        return " ".join((text if text.endswith(self.suffix) else text + self.suffix).split())


def caption(  # noqa: PLR0913  # every argument is an option of the command line
    *,
    photos: Path,
    template: str = "",
    trigger: str = "",
    model: str = "",
    overwrite: bool = False,
    find: str = "",
    replace: str = "",
    remove: Sequence[str] = (),
    prefix: str = "",
    suffix: str = "",
    encoding: str = "",
    batch_size: int = 8,
    dry_run: bool = False,
) -> None:
    """Write captions beside photos from a template or a network that describes them, and edit the ones that are there.

    A caption is a ``.txt`` file with the photo's name; a ``.caption`` file that is already there is edited instead, each of its lines.
    A second run with the same settings changes nothing; a run that was stopped goes on.

    Args:
        photos: Folder of photos, or of folders such as ``10_iriko fish``.
        template: Caption of photos that have none; ``{trigger}`` stands for the trigger word, ``{auto}`` for what the model says,
            ``{this|that}`` is decided per photo. With a model and no template it is ``{auto}``.
        trigger: Word that will bring out what is learned.
        model: Folder or hub id of a BLIP, BLIP-2 or GIT network that says what a photo without a caption shows, such as
            Salesforce/blip-image-captioning-base; a GPU is used if there is one.
        overwrite: Write the template over captions that are there.
        find: Text to replace in every caption.
        replace: What to put in its place.
        remove: Tags, the parts between commas, to take out.
        prefix: Text to put before every caption that does not begin with it.
        suffix: Text to put behind every caption that does not end with it.
        encoding: How caption files that are not UTF-8 are written, such as shift_jis; they are rewritten in UTF-8.
        batch_size: Photos that the model looks at together.
        dry_run: Show what would be written, and write nothing.

    Raises:
        PhotoFolderError: If there is no photo, a caption file cannot be read, or a photo would be left without a caption.
        SettingError: If the template has an unknown placeholder, there is something to replace it with but nothing to find, or the
            model's word has no place in the template.
        UnusableFileError: If the model cannot be used.
        MissingExtraError: If a library that the model needs is missing.
        OutputError: If a file cannot be written.
    """
    template = template or ("{auto}" if model else "")
    require({
        "find must say what to replace": (bool(find) or not replace, find),
        "model must be given when the template has {auto}": (bool(model) or "{auto}" not in template, model),
        "template must have {auto}, the place of what the model says": (not model or "{auto}" in template, template),
        "batch_size must be at least 1": (batch_size >= 1, batch_size),
    })  # fmt: skip
    work = _Work(
        template=template, trigger=trigger, overwrite=overwrite, encoding=encoding,
        edit=Edit(replace=(find, replace) if find else None, remove=tuple(remove), prefix=prefix, suffix=suffix),
    )  # fmt: skip
    files = _photos(photos)
    unseen = [photo for photo in files if "{auto}" in template and work.is_new(photo)]
    known = {photo: work.text(photo) for photo in sorted(set(files) - set(unseen))}
    written = sum(work.write(photo, text, dry_run=dry_run) for photo, text in known.items())
    written += sum(work.write(photo, text, dry_run=dry_run) for photo, text in _described(unseen, work, model, batch_size))
    done = "changed" if not written else "would be written" if dry_run else "written"
    print(f"{written} of {len(files)} captions {done}")


@dataclass(frozen=True, kw_only=True)
class _Work:
    """How the caption of one photo is made and written."""

    template: str
    trigger: str
    overwrite: bool
    encoding: str
    edit: Edit

    def is_new(self, photo: Path) -> bool:
        """Whether the template is used."""
        return caption_file(photo) is None or (self.overwrite and bool(self.template))

    def text(self, photo: Path, auto: str = "") -> str:
        """What the caption of a photo will be."""
        if self.is_new(photo):
            before = fill(self.template, {"trigger": self.trigger, "auto": auto}, seed=seed_for(0, "caption", photo.stem))
        else:
            before = read_caption(_file(photo), every_line=True, encoding=self.encoding)
        text = self.edit.apply(before)
        if not before or not text:
            raise PhotoFolderError(
                f"{photo.name} would have no caption; give a --template such as 'a photo of {{trigger}}', or remove fewer tags"
            )
        return text

    def write(self, photo: Path, text: str, *, dry_run: bool) -> bool:
        """Write a caption unless it is there already; whether it was not."""
        file = _file(photo)
        if file.exists() and is_utf8(file.read_bytes()) and read_caption(file, every_line=True) == text:
            return False
        print(f"{file.name}: {text.replace(chr(10), ' / ')}", flush=True)
        if not dry_run:
            write_caption(file, text)
        return True


def _photos(folder: Path) -> list[Path]:
    """The photos of a folder, or of folders named as kohya's scripts have it, sorted."""
    files = [path for source in sources_of(folder) for path in photo_files(source.folder) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise PhotoFolderError(f"{folder} holds no photo ({', '.join(SUFFIXES)}); put some there, or check the path")
    return files


def _file(photo: Path) -> Path:
    """The caption file that is there, or the one to write."""
    return caption_file(photo) or photo.with_suffix(CAPTIONS[0])


def _described(photos: Sequence[Path], work: _Work, model: str, batch_size: int) -> Iterator[tuple[Path, str]]:
    """Photos and captions that the model has a part in, batch by batch; photos that cannot be read or described are named and left out."""
    seen: list[tuple[Path, Tensor]] = []
    captioner: Captioner | None = None
    for number, photo in enumerate(photos, 1):
        try:
            seen.append((photo, read_image(photo)))
        except UnusableFileError as error:
            print(f"skipped {photo.name}: {error}")
        if seen and (len(seen) == batch_size or number == len(photos)):
            captioner = captioner or Captioner(model)
            for (path, _), auto in zip(seen, captioner([picture for _, picture in seen]), strict=True):
                if auto:
                    yield path, work.text(path, auto)
                else:
                    print(f"skipped {path.name}: the model has nothing to say of it")
            seen = []
