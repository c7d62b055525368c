"""Tokenizers for checkpoints that have none: beside the file, in the hub's cache, on the hub.

All Stable Diffusion models of these families spell with CLIP's 49,408 words; OpenCLIP's encoders were trained with
texts filled up with zeros, CLIP's with ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer, CLIPTokenizerFast

from synthaug.errors import UnusableFileError

__all__ = ["find_tokenizer", "read_tokenizer"]

_KNOWN = (
    ("openai/clip-vit-large-patch14", ""),
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer"),
    ("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer"),
    ("stabilityai/stable-diffusion-2-1", "tokenizer"),
)
"""Repositories with CLIP's words; any that was loaded before will do."""


def find_tokenizer(file: Path, *, words: int, is_open: bool, second: bool = False) -> CLIPTokenizer:
    """The tokenizer of a one-file checkpoint.

    The hub is asked last, and only if there is none in a folder ``tokenizer`` (or ``tokenizer_2``, for the second encoder)
    beside the file and none in the hub's cache.

    Args:
        file: The checkpoint.
        words: How many words its text encoder knows.
        is_open: Whether the encoder is OpenCLIP's, whose texts are filled up with word 0.
        second: Whether it is for the second encoder of SDXL.

    Raises:
        UnusableFileError: If there is none, or if it has another number of words.
    """
    own = file.parent / "tokenizer_2"
    if second and own.is_dir():
        return _fitting(read_tokenizer(own), own, file, words)
    tokenizer, place = _beside(file) or _cached() or _downloaded(file)
    tokenizer = _fitting(tokenizer, place, file, words)
    if is_open and tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def read_tokenizer(place: Path | str, **settings: Any) -> CLIPTokenizer:
    """Read a tokenizer from a folder or the hub.

    Raises:
        OSError: If there is none.
        ValueError: If it is damaged, or has no words: transformers makes one where the files are missing.
    """
    try:
        tokenizer: CLIPTokenizer = CLIPTokenizerFast.from_pretrained(place, **settings)  # one class since transformers 5
    except (OSError, ValueError):
        raise
    except Exception as error:  # tokenizers knows nothing finer for a damaged file
        raise ValueError(f"its tokenizer cannot be read: {error}") from error
    if len(tokenizer) < 256:
        raise ValueError(f"its tokenizer knows {len(tokenizer)} tokens, not even the letters; vocab.json or merges.txt is missing")
    return tokenizer


def _beside(file: Path) -> tuple[CLIPTokenizer, Path] | None:
    folder = file.parent / "tokenizer"
    return (read_tokenizer(folder), folder) if folder.is_dir() else None


def _cached() -> tuple[CLIPTokenizer, str] | None:
    for hub, folder in _KNOWN:
        try:
            return read_tokenizer(hub, subfolder=folder, local_files_only=True), hub
        except (OSError, ValueError):
            continue  # not in the cache: the next one, and then the hub
    return None


def _downloaded(file: Path) -> tuple[CLIPTokenizer, str]:
    hub, folder = _KNOWN[0]
    try:
        return read_tokenizer(hub, subfolder=folder), hub
    except (OSError, ValueError) as error:
        raise UnusableFileError(
            f"a checkpoint in one file needs a tokenizer, {file.parent} has no folder 'tokenizer' and {hub} cannot be reached; copy "
            f"vocab.json, merges.txt and tokenizer_config.json of {hub} to {file.parent / 'tokenizer'}"
        ) from error


def _fitting(tokenizer: CLIPTokenizer, place: Path | str, file: Path, words: int) -> CLIPTokenizer:
    if len(tokenizer) != words:
        raise UnusableFileError(
            f"a tokenizer must have the words of its text encoder, {place} has {len(tokenizer)}, {file} was trained with {words}; "
            f"put the tokenizer that belongs to it into {file.parent / 'tokenizer'}"
        )
    return tokenizer
