"""Text states of prompts and captions, each encoded once.

Prompts are in the WebUI's language; a caption is plain text, in which brackets are brackets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from synthaug.errors import SettingError, WrongBaseModelError, require
from synthaug.prompts.chunks import TOKENS, Chunk, Emphasis, prompt_chunks, spelling, token_chunks
from synthaug.prompts.read import Encoder, read_chunk, read_tokens

__all__ = ["TextStates", "WithText", "read_tokens", "text_states_of", "token_chunks"]

T = TypeVar("T")


class TextStates:
    """Text states by text, each encoded once.

    A text's states depend on the text, on how it is asked for and on the embeddings there are, never on other texts.

    Args:
        tokenizer: Spells.
        text_encoder: Reads; it may sit on any device.
        second: SDXL's second tokenizer and encoder.
        keep: How many texts to remember.
    """

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel,
        second: tuple[CLIPTokenizer, CLIPTextModelWithProjection] | None = None,
        *,
        keep: int = 4096,
    ) -> None:
        self._tokenizers: tuple[CLIPTokenizer, ...] = (tokenizer, second[0]) if second else (tokenizer,)
        self._encoders: tuple[Encoder, ...] = (text_encoder, second[1]) if second else (text_encoder,)
        self._embeddings: dict[str, tuple[Tensor, ...]] = {}
        self._marks: dict[str, str] = {}
        self._states: _Remembered[tuple[Tensor, Tensor | None]] = _Remembered(keep)
        self._chunks: _Remembered[tuple[list[Chunk], ...]] = _Remembered(keep)

    def chunks(self, text: str, *, emphasis: Emphasis = "Original") -> int:
        """How many chunks of 75 words a prompt takes."""
        return max(map(len, self._cut(text, emphasis)))

    def __call__(self, text: str, chunks: int | None = None, *, clip_skip: int = 1, emphasis: Emphasis = "Original") -> Tensor:
        """States of a prompt.

        Args:
            text: In the language of :func:`synthaug.prompts.grammar.weighted_runs`.
            chunks: Fill up with empty chunks to so many.
            clip_skip: Which layer is read, counted from the last one that the base has, which is 1; of SDXL, which never reads the
                last one, 1 and 2 are the same.
            emphasis: What weights do: weigh and keep the mean, weigh alone, nothing, or nothing and brackets are text.

        Returns:
            (77 * chunks, width).

        Raises:
            SettingError: If a weight is no number, or the base has fewer layers than ``clip_skip``.
            NumericsError: If weights make the mean of the states 0, so that it cannot be kept.
        """
        return self._look_up(text, chunks, clip_skip, emphasis)[0]

    def pooled(self, text: str, *, clip_skip: int = 1, emphasis: Emphasis = "Original") -> Tensor | None:
        """The second encoder's projection of a prompt's first chunk, (P,); None where there is no second encoder.

        It depends on neither ``clip_skip`` nor weights; both are there so that nothing is encoded twice.
        """
        return self._look_up(text, None, clip_skip, emphasis)[1]

    def plain(self, text: str, chunks: int | None = None) -> tuple[Tensor, Tensor | None]:
        """States (77 * chunks, width) and projection (P,) of a plain text such as a caption, as :meth:`tokens` spells it."""
        ids, ids_2 = self.tokens(text, chunks)
        return self._states.get(("plain", text, len(ids)), lambda: self._read_plain(ids, ids_2))

    def tokens(self, text: str, chunks: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Ids of a plain text for the first and for the second encoder, int64 (77 * chunks,); missing chunks are filled with empty ones."""
        found = [token_chunks(text, tokenizer) for tokenizer in self._tokenizers]
        wanted = max(chunks or 1, *map(len, found))
        filled = [
            torch.tensor([*each, *token_chunks("", tokenizer) * (wanted - len(each))]).flatten()
            for each, tokenizer in zip(found, self._tokenizers, strict=True)
        ]
        return filled[0], filled[1] if len(filled) > 1 else None

    def forget(self) -> None:
        """Drop all states, as after a change of the encoders' weights; embeddings stay."""
        self._states.clear()

    @property
    def embeddings(self) -> Mapping[str, tuple[Tensor, ...]]:
        """Name -> vectors for each encoder, (count, width)."""
        return MappingProxyType(self._embeddings)

    def add_embedding(self, name: str, vectors: tuple[Tensor, ...]) -> None:
        """Teach the encoders a word by textual inversion (Gal et al. 2022, https://arxiv.org/abs/2208.01618).

        Where a prompt has the word, its vectors stand in the place of its tokens. Capitals do not matter.

        Args:
            name: The word; what was there of this name is replaced.
            vectors: One tensor (count, width) for each encoder, of equal counts.

        Raises:
            SettingError: If the name has no letters or is spelled as another one is, or the vectors are of no use.
            WrongBaseModelError: If they were made for other encoders.
        """
        widths = tuple(int(encoder.config.hidden_size) for encoder in self._encoders)
        if any(each.ndim != 2 for each in vectors) or tuple(each.shape[-1] for each in vectors) != widths:
            raise WrongBaseModelError(
                f"the embedding {name!r} has vectors of shape {[tuple(each.shape) for each in vectors]}, this base takes "
                f"(count, width) with widths {list(widths)}; take an embedding that was made for this kind of base"
            )
        spelled = [spelling(name, tokenizer) for tokenizer in self._tokenizers]
        same = [other for other in self._embeddings if other != name and spelling(other, self._tokenizers[0]) == spelled[0]]
        require({
            f"the embedding {name!r} must have a name with letters or signs": (all(spelled), name),
            f"the embedding {name!r} must have as many vectors for each encoder, and at least one": (
                len({len(each) for each in vectors}) == 1 and len(vectors[0]) > 0, [len(each) for each in vectors],
            ),
            f"the embedding {name!r} must be finite": (all(bool(torch.isfinite(each).all()) for each in vectors), "NaN or infinity"),
            f"the embedding {name!r} must not be spelled as another one is": (not same, same),
        })  # fmt: skip
        self._embeddings[name] = tuple(each.detach().float().cpu() for each in vectors)
        mark = blake2b(digest_size=16)
        for each in self._embeddings[name]:
            mark.update(each.numpy().tobytes())
        self._marks[name] = mark.hexdigest()

    def drop_embeddings(self) -> None:
        """Unlearn all embeddings."""
        self._embeddings.clear()
        self._marks.clear()

    def _learned(self) -> tuple[tuple[str, str], ...]:
        """Tells these embeddings from others."""
        return tuple(sorted(self._marks.items()))

    def _cut(self, text: str, emphasis: Emphasis) -> tuple[list[Chunk], ...]:
        """Chunks of a prompt for each encoder."""
        counts = {name: len(vectors[0]) for name, vectors in self._embeddings.items()}
        return self._chunks.get(
            (text, emphasis, self._learned()),
            lambda: tuple(prompt_chunks(text, tokenizer, emphasis=emphasis, learned=counts) for tokenizer in self._tokenizers),
        )

    def _look_up(self, text: str, chunks: int | None, clip_skip: int, emphasis: Emphasis) -> tuple[Tensor, Tensor | None]:
        own = self.chunks(text, emphasis=emphasis)
        wanted = max(own, chunks or 1)
        key = (text, wanted, clip_skip, emphasis, self._learned())
        if wanted == own:
            return self._states.get(key, lambda: self._read(text, clip_skip, emphasis))

        def filled() -> tuple[Tensor, Tensor | None]:
            states, pooled = self._look_up(text, None, clip_skip, emphasis)
            empty, _ = self._look_up("", None, clip_skip, emphasis)
            return torch.cat([states, *[empty] * (wanted - own)]), pooled

        return self._states.get(key, filled)

    @torch.no_grad()
    def _read(self, text: str, clip_skip: int, emphasis: Emphasis) -> tuple[Tensor, Tensor | None]:
        """Chunk by chunk, so that what is said of one never depends on how many there are."""
        cut = self._cut(text, emphasis)
        empty = self._cut("", emphasis)
        answers = []
        for number in range(max(map(len, cut))):
            mine = [(*found, *nothing * (number + 1))[number] for found, nothing in zip(cut, empty, strict=True)]
            answers.append(read_chunk(mine, self._encoders, self._embeddings, clip_skip=clip_skip, emphasis=emphasis))
        return torch.cat([states for states, _ in answers]), answers[0][1]

    @torch.no_grad()
    def _read_plain(self, ids: Tensor, ids_2: Tensor | None) -> tuple[Tensor, Tensor | None]:
        answers = []
        for at in range(0, len(ids), TOKENS):
            mine = slice(at, at + TOKENS)
            pair = None if ids_2 is None else (ids_2[None, mine].to(self._encoders[1].device), self._encoders[1])
            answers.append(read_tokens(ids[None, mine].to(self._encoders[0].device), self._encoders[0], pair))
        pooled = answers[0][1]
        return torch.cat([states[0] for states, _ in answers]), None if pooled is None else pooled[0]


class _Remembered(Generic[T]):
    """Answers by question; of more than so many, the one that was asked for longest ago is forgotten."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._known: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The answer, made if it is not known."""
        if key not in self._known:
            self._known[key] = make()
            if len(self._known) > self._keep:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def clear(self) -> None:
        self._known.clear()


class WithText(Protocol):
    """What has text encoders: a base."""

    name: str
    tokenizer: CLIPTokenizer | None
    text_encoder: CLIPTextModel | None
    tokenizer_2: CLIPTokenizer | None
    text_encoder_2: CLIPTextModelWithProjection | None


def text_states_of(base: WithText) -> TextStates:
    """Text states of a base, whichever encoders it has.

    Raises:
        SettingError: If its text encoders were not loaded.
    """
    if base.tokenizer is None or base.text_encoder is None:
        raise SettingError(f"texts are encoded by a base's text encoders, {base.name} was loaded without them; load the part 'text'")
    second = None
    if base.tokenizer_2 is not None and base.text_encoder_2 is not None:
        second = (base.tokenizer_2, base.text_encoder_2)
    return TextStates(base.tokenizer, base.text_encoder, second)
