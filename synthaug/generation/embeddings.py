"""Textual inversion: vectors that stand for a word of a prompt, read from the files of every tool.

A1111       ``.pt`` with ``string_to_param``, ``.safetensors`` with ``emb_params``
diffusers   ``.bin`` or ``.safetensors`` with the word itself as key (``learned_embeds``)
SDXL        ``clip_l`` and ``clip_g``, one for each text encoder
LoRA files  ``bundle_emb.WORD.string_to_param.*``, or ``bundle_emb.WORD.clip_l`` and ``clip_g``

Gal et al. 2022, https://arxiv.org/abs/2208.01618.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from synthaug.errors import UnusableFileError, WrongBaseModelError
from synthaug.lora.codec import BUNDLED
from synthaug.lora.file import LoraFile

__all__ = ["Embedding", "bundled_embeddings", "embedding_hash", "read_embedding"]

_PICKLES = (".pt", ".bin", ".pth")
_NESTED = "string_to_param"


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """A word and what the text encoders read in its place."""

    name: str
    """The word, as it is written in a prompt."""

    vectors: tuple[Tensor, ...]
    """For each text encoder of the base, fp32 (vectors, width)."""

    def check_base(self, name: str, widths: tuple[int, ...]) -> None:
        """Refuse a base whose text encoders are of other widths.

        Args:
            name: Of the base.
            widths: Of the token vectors of each of its text encoders.

        Raises:
            WrongBaseModelError: With both widths.

        Example:
            >>> Embedding(name="iriko", vectors=(torch.zeros(2, 768),)).check_base("sdxl", (768, 1280))
            Traceback (most recent call last):
            ...
            synthaug.errors.WrongBaseModelError: an embedding must be as wide as the base's text encoders, iriko has 768 and sdxl 768 + 1280; take one made for this base
        """  # noqa: E501  # a sentence in one line
        mine = tuple(int(found.shape[1]) for found in self.vectors)
        if mine != widths:
            here, there = (" + ".join(map(str, each)) for each in (mine, widths))
            raise WrongBaseModelError(
                f"an embedding must be as wide as the base's text encoders, {self.name} has {here} and {name} {there}; "
                "take one made for this base"
            )


def read_embedding(path: Path | str) -> Embedding:
    """Read a file of textual inversion; the word is the stem of its name.

    Pickles are read without running anything that is in them.

    Raises:
        UnusableFileError: If there is none, it is damaged, holds anything but tensors, or no vectors.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_file({"emb_params": torch.ones(2, 768)}, f"{folder}/iriko.safetensors")
        ...     read_embedding(f"{folder}/iriko.safetensors").vectors[0].shape
        torch.Size([2, 768])
    """
    path = Path(path)
    if not path.is_file():
        raise UnusableFileError(f"there is no embedding file {path}; check the path")
    try:
        content = _unpickled(path) if path.suffix in _PICKLES else load_file(path)
    except (SafetensorError, pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, AttributeError, KeyError) as error:
        raise UnusableFileError(
            f"an embedding must be tensors in safetensors or in a pickle with nothing else in it, {path} is damaged or something else; "
            "get it again as safetensors"
        ) from error
    return _embedding(path.stem, content, str(path))


def bundled_embeddings(file: LoraFile) -> tuple[Embedding, ...]:
    """The words that a LoRA file brings along, by name.

    Raises:
        UnusableFileError: If one holds no vectors.

    Example:
        >>> file = LoraFile(layers={}, metadata={}, bundled={"bundle_emb.iriko.string_to_param.*": torch.ones(3, 8)})
        >>> [(word.name, word.vectors[0].shape) for word in bundled_embeddings(file)]
        [('iriko', torch.Size([3, 8]))]
    """
    words: dict[str, dict[str, Any]] = {}
    for key, tensor in file.bundled.items():
        word, _, part = key.removeprefix(BUNDLED).partition(".")
        nested, _, inner = part.partition(".")
        parts = words.setdefault(word, {})
        if nested == _NESTED:
            parts.setdefault(_NESTED, {})[inner] = tensor
        else:
            parts[part] = tensor
    return tuple(_embedding(word, words[word], f"{file.name}, {word}") for word in sorted(words))


def embedding_hash(path: Path | str) -> str:
    """SHA-256 of the whole file, as A1111 has it in ``TI hashes``; it writes the first 12 digits.

    Raises:
        UnusableFileError: If there is no such file.
    """
    try:
        with Path(path).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise UnusableFileError(f"the embedding file {path} cannot be read ({error.strerror}); check the path") from error


def _unpickled(path: Path) -> Any:
    with torch.serialization.safe_globals([nn.ParameterDict]), warnings.catch_warnings():  # the first files were written with one
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        return torch.load(path, map_location="cpu", weights_only=True)


def _embedding(name: str, content: Any, where: str) -> Embedding:
    found = _vectors(content, where)
    vectors = tuple(tensor.detach().to(torch.float32) for tensor in found)
    vectors = tuple(tensor[None] if tensor.ndim == 1 else tensor for tensor in vectors)
    if any(tensor.ndim != 2 or 0 in tensor.shape for tensor in vectors) or len({len(tensor) for tensor in vectors}) != 1:
        shapes = [tuple(tensor.shape) for tensor in vectors]
        raise UnusableFileError(f"an embedding must be (vectors, width) for each text encoder, {where} has {shapes}; get it again")
    if not all(torch.isfinite(tensor).all() for tensor in vectors):
        raise UnusableFileError(f"an embedding's numbers must be finite, {where} has NaN or infinity; get it again")
    return Embedding(name=name, vectors=vectors)


def _vectors(content: Any, where: str) -> list[Tensor]:
    """One tensor for each text encoder, whatever the tool that wrote them."""
    if isinstance(content, Mapping):
        if "clip_l" in content and "clip_g" in content:
            return [content["clip_l"], content["clip_g"]]
        inner: Any = content.get(_NESTED, content.get("emb_params", content))
        if isinstance(inner, Tensor):
            return [inner]
        tensors = [value for value in getattr(inner, "_parameters", inner).values() if isinstance(value, Tensor)]
        if len(tensors) == 1:
            return tensors
    raise UnusableFileError(
        f"an embedding must hold one word as emb_params, string_to_param, clip_l and clip_g, or under its own name, {where} holds "
        f"{', '.join(map(str, list(content)[:3])) if isinstance(content, Mapping) else type(content).__name__}; check that it is one"
    )
