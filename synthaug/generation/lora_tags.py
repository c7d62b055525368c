"""LoRAs that a prompt calls by name, ``<lora:iriko:0.8>``, and the hashes that tell one file from another of its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from synthaug.errors import SettingError
from synthaug.lora.file import LoraFile
from synthaug.records import LoraUse
from synthaug.records.infotext import take_lora_tags

__all__ = ["file_hash", "lora_files", "lora_hash_of", "resolve"]


def lora_files(folders: Iterable[Path | str]) -> dict[str, str]:
    """LoRA files in folders and in the folders in them, by the stems of their names; a name that two of them have is left out.

    Raises:
        SettingError: If there is no such folder.
    """
    found: dict[str, list[str]] = {}
    for folder in folders:
        if not Path(folder).is_dir():
            raise SettingError(f"a folder of LoRAs must be there, got {folder}; check the path")
        for path in sorted(Path(folder).rglob("*.safetensors")):
            found.setdefault(path.stem, []).append(str(path))
    return {name: paths[0] for name, paths in found.items() if len(paths) == 1}


def resolve(prompt: str, files: Mapping[str, str]) -> tuple[str, tuple[LoraUse, ...]]:
    """Take the LoRAs that a prompt calls by name out of it.

    Args:
        prompt: With tags such as ``<lora:iriko:0.8>`` or ``<lora:iriko:text weight:unet weight>``.
        files: Where each LoRA lies, by its name.

    Returns:
        The prompt without its tags, and the LoRAs in their order.

    Raises:
        SettingError: If a LoRA is unknown, or its tag cannot be read.

    Example:
        >>> resolve("a fish <lora:iriko:0.8>", {"iriko": "loras/iriko.safetensors"})
        ('a fish', (LoraUse(path='loras/iriko.safetensors', weight=0.8, text_weight=None),))
    """
    text, tags = take_lora_tags(prompt)
    for tag in tags:
        if tag.name not in files:
            known = ", ".join(sorted(files)[:20]) or "none"
            raise SettingError(
                f"a LoRA in a prompt must be the name of one file, got {tag} in {prompt[:60]!r}, known are: {known}; "
                "name the folder it lies in (--lora_folder), and call no two files the same"
            )
    return text, tuple(LoraUse(path=files[tag.name], weight=tag.weight, text_weight=tag.text_weight) for tag in tags)


def lora_hash_of(path: str) -> str:
    """Hash of a LoRA as ``Lora hashes`` in infotext has it: of its tensors, so that editing its metadata leaves it alone.

    It is what the file says of itself (``sshs_model_hash``), or SHA-256 of what comes after its header; of a folder that PEFT wrote,
    the same over its files in the order of their names.

    Raises:
        UnusableFileError: If the LoRA cannot be read.
    """
    if told := LoraFile.read(path).content_hash:
        return told
    files = sorted(Path(path).rglob("*.safetensors")) if Path(path).is_dir() else [Path(path)]
    together = hashlib.sha256()
    for file in files:
        data = file.read_bytes()
        together.update(data[8 + int.from_bytes(data[:8], "little") :])
    return together.hexdigest()


def file_hash(path: str, *, what: str = "embedding") -> str:
    """SHA-256 of a whole file, which is what ``TI hashes`` in infotext has of an embedding.

    Args:
        path: The file.
        what: It is, for the message.

    Raises:
        SettingError: If it cannot be read.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise SettingError(f"the {what} {path} cannot be read ({error.strerror}); check the path") from error
