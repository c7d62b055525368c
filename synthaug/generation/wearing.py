"""LoRAs on a base's networks: fused into the weights, and taken off again bit for bit.

Every weight is bare + sum of strength * change, computed in fp32 from the base's own, so that nothing is left of what was worn
before. A change of costume touches the weights that it changes and no others; of those that nothing is worn on, no copy is kept.
"""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from synthaug.errors import UnusableFileError, WrongBaseModelError
from synthaug.generation.embeddings import Embedding, bundled_embeddings, read_embedding
from synthaug.generation.networks import Networks
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import check_fits, parameter_of, summed
from synthaug.lora.naming import NetworkKind, modules_of, network_of, numbered
from synthaug.lora.updates import Decomposed, Update, by_parameter, moved
from synthaug.models.stated import recorded_prediction
from synthaug.records import LoraUse

__all__ = ["Wardrobe", "Worn"]

KEEP = 4
"""How many LoRA files are remembered besides those that are worn: a change of weight alone reads nothing."""

Stamp = tuple[tuple[int, int, int], ...]
"""Tells a file from a later one of the same name."""
Key = tuple[str, Stamp]


class _Words(Protocol):
    """What reads prompts, and learns words."""

    def forget(self) -> None: ...
    def drop_embeddings(self) -> None: ...
    def add_embedding(self, name: str, vectors: tuple[Tensor, ...]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Worn:
    """What a LoRA does to the base that it is worn on, layer by layer."""

    name: str
    """Of the file."""

    matched: int
    """Layers that have their module in the base."""

    unmatched: tuple[str, ...]
    """Layers that have none, by kohya name."""

    without_effect: int
    """Matched layers that change nothing: they hold zeros, or their network's weight is 0."""


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A LoRA file, cut for the base."""

    name: str
    """Of the file."""

    parts: Mapping[str, Update]
    """Updates of the base's parameters, by the names that the base gives them."""

    unmatched: tuple[str, ...]
    """Layers without a module."""

    zeros: Mapping[str, tuple[int, int]]
    """Network -> its layers, and how many of them hold zeros."""

    words: tuple[Embedding, ...]
    """Words that it brings along."""


class Wardrobe:
    """Puts LoRAs on and takes them off, and the words that come with them.

    Args:
        networks: Wear them.
    """

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._costume: tuple[object, ...] | None = ((), ())
        self._files: OrderedDict[Key, _Piece] = OrderedDict()
        self._on: dict[str, list[tuple[Key, float]]] = {}
        self._bare: dict[str, Tensor] = {}
        self._words: tuple[Embedding, ...] = ()
        self.worn: tuple[tuple[LoraUse, ...], tuple[str, ...]] = ((), ())
        """LoRAs and embeddings, as they were asked for last."""
        self.report: tuple[Worn, ...] = ()
        """What each LoRA that is worn does, in the order of the request."""

    def wear(self, loras: tuple[LoraUse, ...], embeddings: tuple[str, ...] = ()) -> None:
        """Fuse these LoRAs into the weights and no others, and teach these words and those that the LoRAs bring along.

        Layers without a module are left out with one warning for the file. Nothing is changed when something is refused.

        Args:
            loras: In any order; the same file twice adds up.
            embeddings: Files of textual inversion; a later one wins over an earlier one and over a LoRA's word of the same name.

        Raises:
            WrongBaseModelError: If a LoRA or a word was made for another base.
            UnusableFileError: If a file cannot be read, fits no module, or holds NaN.
        """
        keys = [(use.path, _stamp(use.path)) for use in loras]
        costume = (tuple(zip(keys, ((use.weight, use.text_weight) for use in loras), strict=True)),
                   tuple((path, _stamp(path)) for path in embeddings))  # fmt: skip
        if costume == self._costume:
            return
        modules = modules_of(self._kinds())
        pieces = [self._piece(key, modules) for key in keys]
        words = self._read_words(pieces, embeddings)
        on: dict[str, list[tuple[Key, float]]] = {}
        for key, use, piece in zip(keys, loras, pieces, strict=True):
            for name in piece.parts:
                if strength := _strength(network_of(name), use):
                    on.setdefault(name, []).append((key, strength))
        self._costume = None  # until this one is on
        self._dress(on, modules)
        self._teach(words)
        self.report = tuple(_report(piece, use) for piece, use in zip(pieces, loras, strict=True))
        self._costume, self.worn = costume, (loras, embeddings)
        while len(self._files) > KEEP + len(set(keys)):
            self._files.popitem(last=False)

    def _kinds(self) -> dict[NetworkKind, nn.Module]:
        base = self._networks.base
        assert base.unet is not None
        assert base.text_encoder is not None
        second: dict[NetworkKind, nn.Module] = {} if base.text_encoder_2 is None else {"text_encoder_2": base.text_encoder_2}
        return {"unet": base.unet, "text_encoder": base.text_encoder, **second}

    def _piece(self, key: Key, modules: Mapping[str, nn.Module]) -> _Piece:
        """A file, read when it is not remembered, and checked against the base."""
        if key not in self._files:
            base, file = self._networks.base, LoraFile.read(key[0])
            file.check_base(base.name, base.fingerprint, base.family)
            said = recorded_prediction(file.metadata)
            if said not in (None, base.prediction_type):
                raise WrongBaseModelError(
                    f"a LoRA must be worn by a base that predicts what it was trained with, {file.name} says {said}, {base.name} is read "
                    f"as {base.prediction_type}; give Sampler(prediction={said!r}), or draw from a plan of this LoRA"
                )
            two = base.text_encoder_2 is not None
            self._files[key] = _fitted(file, {numbered(name, two_encoders=two): u for name, u in file.layers.items()}, modules)
        self._files.move_to_end(key)
        return self._files[key]

    def _read_words(self, pieces: Iterable[_Piece], embeddings: Iterable[str]) -> tuple[Embedding, ...]:
        found = [word for piece in pieces for word in piece.words] + [read_embedding(path) for path in embeddings]
        encoders = [encoder for kind, encoder in self._kinds().items() if kind != "unet"]
        widths = tuple(int(encoder.get_input_embeddings().weight.shape[1]) for encoder in encoders)  # type: ignore[operator]
        for word in found:
            word.check_base(self._networks.base.name, widths)
        return tuple({word.name: word for word in found}.values())

    @torch.no_grad()  # and not in inference mode: the weights stay ordinary ones
    def _dress(self, on: dict[str, list[tuple[Key, float]]], modules: Mapping[str, nn.Module]) -> None:
        """Compute every weight anew on which something else is worn than before."""
        changed = [name for name in {**self._on, **on} if self._on.get(name) != on.get(name)]
        if any(network_of(name) != "unet" for name in changed):
            self._networks.texts.forget()
        try:
            for name in changed:
                target = parameter_of(modules, name)
                assert target is not None
                if name not in on:
                    target.copy_(self._bare.pop(name))
                    del self._on[name]
                    continue
                if name not in self._bare:
                    self._bare[name] = target.detach().to("cpu", copy=True)
                self._on[name] = on[name]
                worn = [(moved(self._files[key].parts[name], target.device), strength) for key, strength in on[name]]
                target.copy_(summed(self._bare[name].to(target.device), worn))
        except BaseException:  # out of memory, or a key pressed: the bare base again, not half a costume
            self._strip(modules)
            raise

    def _strip(self, modules: Mapping[str, nn.Module]) -> None:
        for name, bare in self._bare.items():
            target = parameter_of(modules, name)
            assert target is not None
            target.copy_(bare)
        self._bare, self._on, self.worn, self.report = {}, {}, ((), ()), ()

    def _teach(self, words: tuple[Embedding, ...]) -> None:
        texts = cast("_Words", self._networks.texts)
        if not words and not self._words:
            return
        texts.drop_embeddings()
        for word in words:
            texts.add_embedding(word.name, word.vectors)
        texts.forget()
        self._words = words


def _fitted(file: LoraFile, layers: Mapping[str, Update], modules: Mapping[str, nn.Module]) -> _Piece:
    """A file's layers that have a module, all of them checked.

    Raises:
        UnusableFileError: If none has, a shape is another one, or a number is not finite.
    """
    unmatched = tuple(sorted(set(layers) - set(modules)))
    if len(unmatched) == len(layers):
        raise UnusableFileError(
            f"at least one layer of a LoRA must have its module in the base, {file.name} matches 0 of {len(layers)} "
            f"(first without: {unmatched[0]}); it was made for another kind of base model{f', {file.family}' if file.family else ''}"
        )
    parts: dict[str, Update] = {}
    zeros: dict[str, tuple[int, int]] = {}
    for name, update in layers.items():
        if name not in modules:
            continue
        mine = by_parameter({name: update})
        for parameter, part in mine.items():
            check_fits(parameter, parameter_of(modules, parameter), part)
        size = sum(_size(name, part, file.name) for part in mine.values())
        count, zero = zeros.get(network_of(name) or "", (0, 0))
        zeros[network_of(name) or ""] = count + 1, zero + (size == 0)
        parts |= mine
    _warn(file.name, len(layers), unmatched, zeros)
    return _Piece(name=file.name, parts=parts, unmatched=unmatched, zeros=zeros, words=bundled_embeddings(file))


def _warn(name: str, layers: int, unmatched: Sequence[str], zeros: Mapping[str, tuple[int, int]]) -> None:
    """One line for each thing that a user would want to know of a file."""
    if unmatched:
        some = f"{', '.join(unmatched[:3])}{', …' if len(unmatched) > 3 else ''}"
        warnings.warn(
            f"{len(unmatched)} of {layers} layers of {name} have no module in the base and are left out ({some}); "
            "it may be for another kind of base model", stacklevel=5,
        )  # fmt: skip
    if all(count == zero for count, zero in zeros.values()):
        warnings.warn(f"{name} changes nothing, all of its layers hold zeros; train it for longer, or get it again", stacklevel=5)


def _size(name: str, update: Update, file: str) -> float:
    """The norm of the smallest of an update's factors, 0 if it changes nothing; a DoRA's lengths count by themselves.

    Raises:
        UnusableFileError: If one is not finite.
    """
    norms = [float(torch.linalg.vector_norm(factor, dtype=torch.float32)) for factor in update.tensors().values()]
    if not all(map(math.isfinite, norms)):
        raise UnusableFileError(f"a LoRA's numbers must be finite, {file} has NaN or infinity in {name}; train it again, or get it again")
    return max(norms) if isinstance(update, Decomposed) else min(norms)


def _strength(network: str | None, use: LoraUse) -> float:
    return use.weight if use.text_weight is None or network == "unet" else use.text_weight


def _report(piece: _Piece, use: LoraUse) -> Worn:
    without = sum(zero if _strength(network, use) else count for network, (count, zero) in piece.zeros.items())
    matched = sum(count for count, _ in piece.zeros.values())
    return Worn(name=piece.name, matched=matched, unmatched=piece.unmatched, without_effect=without)


def _stamp(path: str) -> Stamp:
    """Of a file, or of every file of a folder; () when there is none."""
    place = Path(path)
    try:
        found = [file.stat() for file in (sorted(place.rglob("*")) if place.is_dir() else (place,))]
    except FileNotFoundError:
        return ()
    return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)
