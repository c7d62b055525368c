"""Tell bases apart by their files, without loading them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open

from synthaug.models.load import Part, resolve
from synthaug.training.latent_cache import content_hash

__all__ = ["base_mark"]

_FOLDERS: dict[Part, tuple[str, ...]] = {
    "unet": ("unet", "scheduler"),
    "vae": ("vae",),
    "text": ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
}
"""Where the parts of a base lie in a diffusers folder."""

_PREFIXES: dict[Part, tuple[str, ...]] = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text": ("cond_stage_model.", "conditioner."),
}
"""How the tensors of the parts begin in one file of the LDM layout."""


def base_mark(name: str, part: Part) -> str | None:
    """SHA-256 over the files of one part of a base.

    Args:
        name: As :func:`synthaug.models.load_base` takes it.
        part: Which part.

    Returns:
        64 hex digits that change with any value of any weight; None if the files are not on this machine, or not where they are
        looked for.

    Raises:
        UnusableFileError: If the base is a pickle, or a folder that lacks something.

    Example:
        >>> base_mark("pocket", "vae") == base_mark("pocket", "text")
        False
    """
    if Path(name).is_file():
        return _mark_in_file(Path(name), part)
    place = Path(resolve(name))
    folder = place if place.is_dir() else _downloaded(name)
    files = [] if folder is None else [file for sub in _FOLDERS[part] for file in _files(folder / sub)]
    if not any(file.suffix == ".safetensors" for file in files):
        return None
    return hashlib.sha256(_contents(files)).hexdigest()


def _contents(files: Iterable[Path]) -> bytes:
    """A line for each file: folder, name and hash."""
    lines = []
    for file in files:
        with file.open("rb") as opened:
            lines.append(f"{file.parent.name}/{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n")
    return "".join(lines).encode()


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".json", ".txt") and file.is_file())


def _downloaded(name: str) -> Path | None:
    """Where the hub's client keeps this base."""
    found = try_to_load_from_cache(name, "vae/config.json")
    return Path(found).parents[1] if isinstance(found, str) else None


def _mark_in_file(file: Path, part: Part) -> str | None:
    """The same over some tensors of one file, and over the tokenizers that lie beside it."""
    found = hashlib.sha256()
    with safe_open(file, framework="pt") as opened:
        keys = sorted(key for key in opened.keys() if key.startswith(_PREFIXES[part]))  # noqa: SIM118  # it is no mapping
        for key in keys:
            found.update(content_hash({key: opened.get_tensor(key)}).encode())
    if part == "text":
        found.update(_contents(path for folder in ("tokenizer", "tokenizer_2") for path in _files(file.parent / folder)))
    return found.hexdigest() if keys else None
