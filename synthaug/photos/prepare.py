"""``synthaug prepare``: photos as they come from a phone, made into a clean folder to learn from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from synthaug.errors import SettingError
from synthaug.photos.background import read_grounds
from synthaug.photos.folder import PhotoFolder, read_folder
from synthaug.photos.listed import LIST
from synthaug.photos.report import collected, report_on
from synthaug.photos.variants import MARK, Changes
from synthaug.photos.writing import Written, write_json, write_photo, write_report
from synthaug.pixels import SUFFIXES

__all__ = ["prepare"]


def prepare(  # noqa: PLR0913  # every argument is an option of the command line
    *,
    photos: Path,
    out: Path | None = None,
    size: tuple[int, int] = (512, 512),
    caption: str = "a photo of {trigger}",
    trigger: str = "",
    group: str = "",
    masks: Path | None = None,
    flatten: float = 0.0,
    shadows: float = 0.0,
    background: str = "",
    variants: int = 1,
    save_mattes: bool = False,
    report_only: bool = False,
) -> None:
    """Check photos and write them upright, framed and captioned, without any EXIF.

    Beside each PNG goes its caption as text, masks go into ``mask``, and ``photos.json`` lists hashes, groups
    and what was skipped. The originals are left alone. A second run writes the same bytes, but caption files
    that are already there are kept, so that they can be edited. What was found out about the photos is printed, and goes into
    ``report`` as JSON and as a sheet of all photos, each with its verdict.

    Args:
        photos: Folder of photos; captions come from text files beside them or from the template.
        out: Folder to write to, not the photos' own; only a report may do without.
        size: Height and width; the middle of a photo is cropped to this shape and resized.
        caption: Template for photos without a text file; ``{trigger}`` stands for the trigger word, ``{background}`` for the colour or
            picture that the thing lies on, such as "a {trigger} on a {background} background".
        trigger: Word that will bring out what is learned.
        group: How many parts to cut off a file name, at its underscores, to find the group: ``"-1"`` is the last one.
        masks: Folder of masks, pictures with the photos' names, bright = defect; ``mask`` among the photos when left out.
        flatten: Even out the light, 0 (leave it) to 1; a warning names photos whose marked defect fades with it.
        shadows: Lighten the shadow that the thing throws, 0 (leave it) to 1; with ``background``, how much of it is left behind.
        background: Lay the thing on other backgrounds, parted by commas: names of colours, hex colours such as 3a6ea5, folders of
            pictures, ``own`` for the photo's own. Photos whose thing cannot be told from its background keep it, and are named.
        variants: How often to write each photo, each time on another background, as ``NAME_v1.png`` and so on.
        save_mattes: Write where the thing was found, white, into ``matte``.
        report_only: Print the report with a line for each photo, and write nothing but ``report``, if ``out`` is given.

    Raises:
        PhotoFolderError: If the photos, or pictures of backgrounds, cannot be used.
        SettingError: If a setting cannot be used, ``out`` holds pictures that are not of these photos, or no photo at all has a
            background that could be changed.
        OutputError: If something cannot be written.
    """
    if min(size) < 8:
        raise SettingError(f"size must be height and width of at least 8 pixels, got {size}; 512 by 512 suits Stable Diffusion 1.x")
    if report_only:
        _report_only(photos, size, out)
        return
    grounds = read_grounds(background)
    changes = Changes(size=size, flatten=flatten, shadows=shadows, grounds=grounds, variants=variants, save_mattes=save_mattes)
    if out is None:
        raise SettingError("the prepared photos need a folder to be written to; give --out, or --report_only true to write none")
    found = read_folder(photos, caption=caption.replace("{background}", MARK), trigger=trigger, group=group, masks=masks)
    names = _names(found)
    _check_folder(photos, out, [file for name in names for file in changes.file_names(name)])
    written = [write_photo(photo, out, name, changes) for photo, name in zip(found.photos, names, strict=True)]
    report = collected(found, [entry.looked for entry in written], size)
    skipped = [{"file": path.name, "reason": reason} for path, reason in found.skipped]
    content = {"size": list(size), "flatten": flatten, "shadows": shadows, "background": background, "variants": variants}
    write_json(out / LIST, content | {"photos": [entry for one in written for entry in one.listed], "skipped": skipped})
    folder = write_report(report, out)
    _tell(found, written, out, size)
    _warn(written, changes)
    done = [option for option, used in (("--shadows", shadows), ("--background", background), ("--flatten", flatten)) if used]
    for sentence in report.sentences():
        if not any(f"{option} " in sentence for option in done):
            print(f"warning: {sentence}")
    print(f"all photos at a glance: {folder / 'sheet.png'}")
    if all(one.doubt for one in written):
        raise SettingError(
            f"no photo shows a thing that can be told from its background ({written[0].doubt}), so all were written as they are; "
            "leave out --background and --shadows, or take photos of one thing on plain paper"
        )


def _report_only(photos: Path, size: tuple[int, int], out: Path | None) -> None:
    """Print the report, and write it if there is somewhere to write it to."""
    report = report_on(photos, size)
    print(report.table(), *report.sentences(), sep="\n")
    if not report.sentences():
        print("nothing to remark")
    if out is not None:
        print(f"all photos at a glance: {write_report(report, out) / 'sheet.png'}")


def _names(found: PhotoFolder) -> list[str]:
    """What to call the files of each photo: ``a.jpg`` and ``a.png`` must not end in the same one."""
    stems = Counter(photo.path.stem for photo in found.photos)
    return [photo.path.stem if stems[photo.path.stem] == 1 else photo.path.name for photo in found.photos]


def _check_folder(photos: Path, out: Path, names: list[str]) -> None:
    """Refuse a folder to write to that holds, or will be taken for, something else."""
    if out.resolve() == photos.resolve():
        raise SettingError(f"the prepared photos need a folder of their own, {out} holds the originals; give another one")
    if not out.is_dir():
        return
    strangers = sorted(path.name for path in out.iterdir() if path.suffix.lower() in SUFFIXES and path.name not in names)
    strangers = [name for name in strangers if not name.startswith(".")]
    if strangers:
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        raise SettingError(
            f"{out} holds pictures that are not of these photos and would be learned, too: {', '.join(strangers[:3])}{more}; "
            "remove them or give another folder"
        )


def _tell(found: PhotoFolder, written: list[Written], out: Path, size: tuple[int, int]) -> None:
    listed = [entry for one in written for entry in one.listed]
    masks = sum(entry["mask"] is not None for entry in listed)
    groups = len({photo.group for photo in found.photos})
    more = f" as {len(listed)} pictures" if len(listed) != len(written) else ""
    print(f"{len(written)} photos of {groups} groups written to {out}{more}, {size[0]} pixels high and {size[1]} wide, {masks} with a mask")
    print(f"skipped {len(found.skipped)} files" + "".join(f"\n  {path.name}: {reason}" for path, reason in found.skipped))
    if edited := [file for one in written for file in one.edited]:
        print(
            f"kept {len(edited)} captions that were already there, such as that of {edited[0]}; delete a .txt file to have it written anew"
        )


def _warn(written: list[Written], changes: Changes) -> None:
    """Say what was not done as asked, or what to look after."""
    if faded := [one.file for one in written if one.faded]:
        print(
            f"warning: evening out the light takes away much of the marked defect in {len(faded)} photos, such as {faded[0]}; "
            "use a smaller --flatten, or none"
        )
    for doubt in sorted({one.doubt for one in written} - {""}):
        left = [one.file for one in written if one.doubt == doubt]
        names = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        print(f"warning: background and shadow of {len(left)} of {len(written)} photos were left alone, because {doubt}: {names}")
    if cut := [one.file for one in written if one.cut]:
        print(
            f"warning: much of the marked defect lies off the thing that was found in {len(cut)} photos, such as {cut[0]}; "
            "it was kept, with its old background around it; have a look"
        )
    if changes.variants > 1:
        print(f"{LIST} beside the pictures keeps variants of one photo together, so that they are never split; no group rule is needed")
