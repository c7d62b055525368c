"""Cut texts of any length into chunks of 75 words.

CLIP reads 77 tokens: a start, 75 words, an end. A longer text is cut into chunks, each is encoded on its own, and the states are
joined along the tokens, so that a UNet sees (77 * chunks) of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import CLIPTokenizer

from synthaug.errors import choose
from synthaug.prompts.grammar import Run, weighted_runs

__all__ = ["TOKENS", "WORDS", "Chunk", "Emphasis", "prompt_chunks", "spelling", "token_chunks"]

WORDS = 75
TOKENS = WORDS + 2
BACK = 20
"""How far behind a full chunk's last comma may lie for the words after it to move on with the next: the WebUI's default."""

Emphasis = Literal["Original", "No norm", "Ignore", "None"]

_EMPHASES = {"Original": True, "No norm": True, "Ignore": False, "None": False}
"""Name -> whether weights count."""


@dataclass(frozen=True)
class Chunk:
    """77 tokens that are read at once."""

    tokens: tuple[int, ...]
    """Ids, with start, end and padding; 0 where a vector takes a token's place."""

    weights: tuple[float, ...]
    """Of each token; start, end and padding have 1."""

    learned: tuple[tuple[int, str, int], ...] = ()
    """Place, name and row of each vector that takes a token's place."""


def spelling(text: str, tokenizer: CLIPTokenizer) -> tuple[int, ...]:
    """Ids of a text, without start and end."""
    return tuple(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)


def token_chunks(text: str, tokenizer: CLIPTokenizer) -> list[list[int]]:
    """Token ids of a plain text such as a caption, in chunks of 77 with start, end and padding; at least one chunk.

    Brackets are text. A full chunk breaks wherever it is full; a text without words is one empty chunk.
    """
    ids = spelling(text, tokenizer)
    return [list(_framed(ids[at : at + WORDS], tokenizer)) for at in range(0, max(1, len(ids)), WORDS)]


def prompt_chunks(
    prompt: str, tokenizer: CLIPTokenizer, *, emphasis: Emphasis = "Original", learned: Mapping[str, int] | None = None
) -> list[Chunk]:
    """Cut a prompt into chunks as the WebUI does; at least one.

    ``BREAK`` ends a chunk. When a chunk is full and its last comma is at most 20 tokens back, what stands behind the comma moves to
    the next chunk.

    Args:
        prompt: Text with weights and ``BREAK``, without ``AND``, schedules and tags.
        tokenizer: Spells.
        emphasis: Whether weights count; with ``"None"``, brackets and ``BREAK`` are text.
        learned: Name of each textual inversion embedding -> how many vectors it has. Names are looked for among the tokens, at the
            beginnings of words, the longest first; vectors of one word stay in one chunk if they fit into one.

    Raises:
        SettingError: If there is no such emphasis, or a weight is no number.
    """
    counts = choose("emphasis", emphasis, _EMPHASES)
    sections = ((Run(prompt, 1.0),),) if emphasis == "None" else weighted_runs(prompt)
    names = sorted(((spelling(name, tokenizer), name) for name in learned or ()), key=lambda found: -len(found[0]))
    cutter = _Cutter(comma=_only(spelling(",", tokenizer)))
    for number, section in enumerate(sections):
        if number:
            cutter.cut()
        for run in section:
            for place, taken in _words(spelling(run.text, tokenizer), names, tokenizer):
                weight = run.weight if counts else 1.0
                if taken is None:
                    cutter.add_token(place, weight)
                else:
                    cutter.add_vectors(taken, (learned or {})[taken], weight)
    return [_chunk(words, tokenizer) for words in cutter.finished()]


@dataclass(frozen=True)
class _Word:
    token: int
    weight: float
    vector: tuple[str, int] | None = None


def _words(ids: Sequence[int], names: Sequence[tuple[tuple[int, ...], str]], tokenizer: CLIPTokenizer) -> Iterable[tuple[int, str | None]]:
    """Tokens of a run, each with None or, in the place of its tokens, the name of an embedding."""
    at, begins = 0, True
    while at < len(ids):
        found = next(((spelled, name) for spelled, name in names if begins and tuple(ids[at : at + len(spelled)]) == spelled), None)
        if found:
            yield 0, found[1]
            at += len(found[0])
        else:
            yield ids[at], None
            at += 1
        begins = not names or str(tokenizer.convert_ids_to_tokens(ids[at - 1])).endswith("</w>")


class _Cutter:
    """Fills chunks one word after the other."""

    def __init__(self, *, comma: int | None) -> None:
        self._comma = comma
        self._full: list[list[_Word]] = []
        self._filling: list[_Word] = []
        self._last_comma: int | None = None

    def cut(self) -> None:
        """End the chunk, empty or not."""
        self._full.append(self._filling)
        self._filling, self._last_comma = [], None

    def add_token(self, token: int, weight: float) -> None:
        if token == self._comma:
            self._last_comma = len(self._filling)
        else:
            self._make_room()
        if len(self._filling) == WORDS:
            self.cut()
        self._filling.append(_Word(token, weight))

    def add_vectors(self, name: str, count: int, weight: float) -> None:
        self._make_room()
        if self._filling and len(self._filling) + min(count, WORDS) > WORDS:
            self.cut()
        for row in range(count):
            if len(self._filling) == WORDS:
                self.cut()
            self._filling.append(_Word(0, weight, (name, row)))

    def _make_room(self) -> None:
        """If the chunk is full, move what stands behind a late comma to the next one."""
        if len(self._filling) == WORDS and self._last_comma is not None and WORDS - self._last_comma <= BACK:
            keep = self._last_comma + 1
            moved, self._filling = self._filling[keep:], self._filling[:keep]
            self.cut()
            self._filling = moved

    def finished(self) -> list[list[_Word]]:
        return [*self._full, self._filling] if self._filling or not self._full else self._full


def _chunk(words: Sequence[_Word], tokenizer: CLIPTokenizer) -> Chunk:
    weights = (1.0, *(word.weight for word in words), *[1.0] * (TOKENS - 1 - len(words)))
    learned = tuple((place, *word.vector) for place, word in enumerate(words, start=1) if word.vector)
    return Chunk(_framed([word.token for word in words], tokenizer), weights, learned)


def _framed(ids: Sequence[int], tokenizer: CLIPTokenizer) -> tuple[int, ...]:
    """With start, end and padding."""
    return (tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * (WORDS - len(ids)))


def _only(ids: tuple[int, ...]) -> int | None:
    return ids[0] if len(ids) == 1 else None
