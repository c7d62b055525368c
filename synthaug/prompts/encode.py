"""Encode prompts of any length in chunks of 75 tokens.

CLIP reads 77 tokens: a start, 75 words, an end. A longer prompt is cut into chunks, each is encoded on
its own, and the states are joined along the tokens, so that a UNet sees (77 * chunks) of them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

__all__ = ["TextStates", "text_states_of", "token_chunks"]

WORDS = 75


def token_chunks(text: str, tokenizer: CLIPTokenizer) -> list[list[int]]:
    """Token ids of a text, in chunks of 77 with start, end and padding; at least one chunk.

    A full chunk breaks wherever it is full; a text without words is one empty chunk.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    parts = [ids[at : at + WORDS] for at in range(0, max(1, len(ids)), WORDS)]
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    return [[start, *part, end, *[pad] * (WORDS - len(part))] for part in parts]


class TextStates:
    """Text states by text, each encoded once.

    A text's states depend on the text and the number of chunks asked for, never on other texts.

    Args:
        tokenizer: Spells.
        text_encoder: Reads; it may sit on any device.
        keep: How many texts to remember.
    """

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, *, keep: int = 4096) -> None:
        self._tokenizer, self._encoder, self._keep = tokenizer, text_encoder, keep
        self._known: OrderedDict[tuple[str, int], Tensor] = OrderedDict()

    def chunks(self, text: str) -> int:
        """How many chunks of 75 words the text takes."""
        return len(token_chunks(text, self._tokenizer))

    def forget(self) -> None:
        """Drop everything, as after a change of the encoder's weights."""
        self._known.clear()

    def pooled(self, text: str) -> Tensor | None:  # noqa: ARG002  # one encoder has none
        """Projection of the second encoder, (P,); None without one."""
        return None

    @torch.no_grad()
    def __call__(self, text: str, chunks: int | None = None) -> Tensor:
        """States of a text, (77 * chunks, width); missing chunks are filled with empty ones."""
        ids = token_chunks(text, self._tokenizer)
        wanted = max(len(ids), chunks or 1)
        key = (text, wanted)
        if key not in self._known:
            empty = token_chunks("", self._tokenizer)[0]
            batch = torch.tensor([*ids, *[empty] * (wanted - len(ids))], device=self._encoder.device)
            states: Tensor = torch.cat([self._encoder(row[None])[0] for row in batch], 1)[0]
            self._known[key] = states
            if len(self._known) > self._keep:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


def text_states_of(base: Any) -> TextStates:
    """Text states of a base that was loaded with its text part."""
    return TextStates(base.tokenizer, base.text_encoder)
