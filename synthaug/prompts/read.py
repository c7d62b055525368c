"""What text encoders say of tokens: which layer is read, weights, and vectors in place of words.

SD 1.x and SD 2.x see what the encoder's last layer says after its last normalisation; of SD 2.x, whose UNet was trained
with the last layer but one, diffusers leaves the last layer out. SDXL sees what the last layer but one of both encoders
says, without that normalisation, side by side (Podell et al. 2023, https://arxiv.org/abs/2307.01952), and besides one
vector for the whole text, the second encoder's projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from synthaug.errors import NumericsError, SettingError
from synthaug.prompts.chunks import TOKENS, Chunk, Emphasis

__all__ = ["Encoder", "read_chunk", "read_tokens", "weighed"]

ROUNDING = 1e-6
"""A mean that is this share of the mean size is 0 but for rounding."""

Encoder: TypeAlias = CLIPTextModel | CLIPTextModelWithProjection


def read_tokens(
    tokens: Tensor, encoder: CLIPTextModel, second: tuple[Tensor, CLIPTextModelWithProjection] | None = None, *, clip_skip: int = 1
) -> tuple[Tensor, Tensor | None]:
    """What a base's text encoders say of token ids; gradients flow to the encoders that want them.

    Args:
        tokens: Ids, (B, 77 * chunks).
        encoder: Reads them.
        second: Ids of the second tokenizer, of the same shape, and SDXL's second encoder.
        clip_skip: Which layer is read, counted from the last one, which is 1. SDXL never reads the last one: 1 and 2 are its own.

    Returns:
        States, (B, 77 * chunks, width), and for SDXL the projection of each first chunk, (B, P), else None.

    Raises:
        SettingError: If an encoder has fewer layers than ``clip_skip``.
    """
    chunks, texts = tokens.reshape(-1, TOKENS), len(tokens)
    states, _ = _layer(encoder, chunks, clip_skip, is_pair=second is not None)
    if second is None:
        return _side_by_side(states, texts), None
    states_2, pooled = _layer(second[1], second[0].reshape(-1, TOKENS), clip_skip, is_pair=True)
    assert pooled is not None, "the second encoder has a projection"
    return _side_by_side(torch.cat([states, states_2], -1), texts), pooled.reshape(texts, -1, pooled.shape[-1])[:, 0]


def read_chunk(
    chunks: Sequence[Chunk],
    encoders: Sequence[Encoder],
    vectors: Mapping[str, Sequence[Tensor]],
    *,
    clip_skip: int,
    emphasis: Emphasis,
) -> tuple[Tensor, Tensor | None]:
    """What all encoders say of one chunk of a prompt.

    Args:
        chunks: The chunk as each encoder's tokenizer spells it.
        encoders: One, or SDXL's two.
        vectors: Name of each embedding -> its vectors for each encoder, (count, width).
        clip_skip: As for :func:`read_tokens`.
        emphasis: What weights do.

    Returns:
        States, (77, width), and for SDXL the projection, (P,), which weights do not touch.
    """
    said, pooled = [], None
    for number, (chunk, encoder) in enumerate(zip(chunks, encoders, strict=True)):
        tokens = torch.tensor([chunk.tokens], device=encoder.device)
        with _vectors_instead(encoder, chunk, {name: each[number] for name, each in vectors.items()}):
            states, pooled = _layer(encoder, tokens, clip_skip, is_pair=len(encoders) > 1)
        said.append(weighed(states[0], chunk.weights, emphasis))
    return torch.cat(said, -1), None if pooled is None else pooled[0]


def weighed(states: Tensor, weights: Sequence[float], emphasis: Emphasis) -> Tensor:
    """Weigh the states of one chunk, (77, width).

    Each token's state is multiplied by its weight. ``"Original"`` then multiplies all by one number, so that their mean is what it was;
    ``"No norm"`` does not, ``"Ignore"`` and ``"None"`` change nothing. The mean is of this chunk alone, so that it depends on no other.

    Raises:
        NumericsError: If the mean is 0 before or after, and not the same, so that no number brings it back.

    Example:
        >>> states = torch.ones(2, 1)
        >>> weighed(states, [1.0, 3.0], "No norm").flatten(), weighed(states, [1.0, 3.0], "Original").flatten()
        (tensor([1., 3.]), tensor([0.5000, 1.5000]))
    """
    if emphasis in ("Ignore", "None") or all(weight == 1 for weight in weights):
        return states
    exact = states.float()
    scaled = exact * torch.tensor(weights, device=states.device)[:, None]
    if emphasis == "Original":
        before, after, rounding = float(exact.mean()), float(scaled.mean()), ROUNDING * float(exact.abs().mean())
        if abs(before - after) > rounding:
            if min(abs(before), abs(after)) <= rounding:
                raise NumericsError(
                    f"weights move the mean of a text's states from {before:.3g} to {after:.3g}, no scale undoes it; take 'No norm'"
                )
            scaled = scaled * (before / after)
    return scaled.to(states.dtype)


def _layer(encoder: Encoder, tokens: Tensor, clip_skip: int, *, is_pair: bool) -> tuple[Tensor, Tensor | None]:
    """States of the layer that is read, (B, 77, width), and the projection, (B, P), of an encoder that has one."""
    layers = int(encoder.config.num_hidden_layers)
    if not 1 <= clip_skip <= layers:
        raise SettingError(f"clip_skip must be 1 to {layers}, the layers of this base's text encoder, got {clip_skip}")
    if clip_skip == 1 and not is_pair:
        return encoder(tokens)[0], None
    answer = encoder(tokens, output_hidden_states=True)
    states = answer.hidden_states[-max(clip_skip, 2)]
    if is_pair:
        return states, getattr(answer, "text_embeds", None)
    inner = getattr(encoder, "text_model", encoder)  # flat since transformers 5.6
    return inner.final_layer_norm(states), None


@contextmanager
def _vectors_instead(encoder: Encoder, chunk: Chunk, vectors: Mapping[str, Tensor]) -> Iterator[None]:
    """While it lasts, the encoder sees a chunk's learned vectors in their places."""
    if not chunk.learned:
        yield
        return

    def put(_: nn.Module, __: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        changed = answer.clone()
        for place, name, row in chunk.learned:
            changed[:, place] = vectors[name][row].to(changed)
        return changed

    handle = encoder.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


def _side_by_side(states: Tensor, texts: int) -> Tensor:
    """Join the chunks of each text along the tokens."""
    return states.reshape(texts, -1, states.shape[-1])
