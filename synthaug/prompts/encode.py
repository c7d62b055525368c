"""Encode prompts of any length in chunks of 75 tokens.

CLIP reads 77 tokens: a start, 75 words, an end. A longer prompt is cut into chunks, each is encoded on
its own, and the states are joined along the tokens, so that a UNet sees (77 * chunks) of them.

SD 1.x and SD 2.x see what the encoder's last layer says after its last normalisation; of SD 2.x, whose UNet was trained
with the last layer but one, diffusers leaves the last layer out. SDXL sees what the last layer but one of both encoders
says, without that normalisation, side by side (Podell et al. 2023, https://arxiv.org/abs/2307.01952), and besides one
vector for the whole text, the second encoder's projection.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from synthaug.errors import SettingError

__all__ = ["TextStates", "WithText", "read_tokens", "text_states_of", "token_chunks"]

WORDS = 75
TOKENS = WORDS + 2


def token_chunks(text: str, tokenizer: CLIPTokenizer) -> list[list[int]]:
    """Token ids of a text, in chunks of 77 with start, end and padding; at least one chunk.

    A full chunk breaks wherever it is full; a text without words is one empty chunk.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    parts = [ids[at : at + WORDS] for at in range(0, max(1, len(ids)), WORDS)]
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    return [[start, *part, end, *[pad] * (WORDS - len(part))] for part in parts]


def read_tokens(
    tokens: Tensor, encoder: CLIPTextModel, second: tuple[Tensor, CLIPTextModelWithProjection] | None = None
) -> tuple[Tensor, Tensor | None]:
    """What a base's text encoders say of token ids; gradients flow to the encoders that want them.

    Args:
        tokens: Ids, (B, 77 * chunks).
        encoder: Reads them.
        second: Ids of the second tokenizer, of the same shape, and SDXL's second encoder.

    Returns:
        States, (B, 77 * chunks, width), and for SDXL the projection of each first chunk, (B, P), else None.
    """
    chunks = tokens.reshape(-1, TOKENS)
    if second is None:
        return _side_by_side(encoder(chunks)[0], len(tokens)), None
    first_answer = encoder(chunks, output_hidden_states=True)
    answer = second[1](second[0].reshape(-1, TOKENS), output_hidden_states=True)
    states = torch.cat([first_answer.hidden_states[-2], answer.hidden_states[-2]], -1)
    return _side_by_side(states, len(tokens)), answer.text_embeds.reshape(len(tokens), -1, answer.text_embeds.shape[-1])[:, 0]


def _side_by_side(states: Tensor, texts: int) -> Tensor:
    """Join the chunks of each text along the tokens."""
    return states.reshape(texts, -1, states.shape[-1])


class TextStates:
    """Text states by text, each encoded once.

    A text's states depend on the text and the number of chunks asked for, never on other texts.

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
        self._tokenizer, self._encoder, self._second, self._keep = tokenizer, text_encoder, second, keep
        self._known: OrderedDict[tuple[str, int], tuple[Tensor, Tensor | None]] = OrderedDict()

    def chunks(self, text: str, *, emphasis: str = "Original") -> int:
        """How many chunks of 75 words the text takes."""
        return len(token_chunks(text, self._tokenizer))

    def tokens(self, text: str, chunks: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Ids for the first and for the second encoder, int64 (77 * chunks,); missing chunks are filled with empty ones."""
        wanted = max(self.chunks(text), chunks or 1)
        return _spelled(text, self._tokenizer, wanted), _spelled(text, self._second[0], wanted) if self._second else None

    def forget(self) -> None:
        """Drop everything, as after a change of the encoder's weights."""
        self._known.clear()

    def __call__(self, text: str, chunks: int | None = None, *, clip_skip: int = 1, emphasis: str = "Original") -> Tensor:
        """States of a text, (77 * chunks, width); missing chunks are filled with empty ones."""
        return self._look_up(text, chunks)[0]

    def pooled(self, text: str, *, emphasis: str = "Original") -> Tensor | None:
        """The second encoder's projection of a text's first chunk, (P,); None where there is no second encoder."""
        return self._look_up(text, None)[1] if self._second else None

    @torch.no_grad()
    def _look_up(self, text: str, chunks: int | None) -> tuple[Tensor, Tensor | None]:
        wanted = max(self.chunks(text), chunks or 1)
        key = (text, wanted)
        if key not in self._known:
            self._known[key] = self._read(text, wanted)
            if len(self._known) > self._keep:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _read(self, text: str, chunks: int) -> tuple[Tensor, Tensor | None]:
        """Chunk by chunk, so that what is said of one never depends on how many there are."""
        ids, ids_2 = self.tokens(text, chunks)
        answers = []
        for at in range(0, len(ids), TOKENS):
            mine = slice(at, at + TOKENS)
            second = None
            if self._second is not None and ids_2 is not None:
                second = (ids_2[None, mine].to(self._second[1].device), self._second[1])
            answers.append(read_tokens(ids[None, mine].to(self._encoder.device), self._encoder, second))
        pooled = answers[0][1]
        return torch.cat([states[0] for states, _ in answers]), None if pooled is None else pooled[0]


def _spelled(text: str, tokenizer: CLIPTokenizer, chunks: int) -> Tensor:
    found = token_chunks(text, tokenizer)
    empty = token_chunks("", tokenizer)[0]
    return torch.tensor([*found, *[empty] * (chunks - len(found))]).flatten()


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
