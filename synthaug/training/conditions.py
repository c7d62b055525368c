"""What the network is told besides the noised latents: text, and for Stable Diffusion XL sizes; for inpainting, a mask.

SDXL's text states are the last but one of both encoders, side by side, and the second encoder's projection goes in with
the sizes (Podell et al. 2023, https://arxiv.org/abs/2307.01952). An inpainting UNet takes the mask and the latents of the
masked photo behind the noised ones (Rombach et al. 2022, https://arxiv.org/abs/2112.10752).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from synthaug.errors import SettingError
from synthaug.training.rows import Batch, Rows, require_keys

__all__ = ["Conditions"]

TOKENS = 77
"""What CLIP reads at once."""

Encoders = Sequence[CLIPTextModel | CLIPTextModelWithProjection]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Makes the network's inputs out of rows.

    Args:
        family: Of the base.
        inpaints: Whether its UNet takes a mask.
        encoders: The text encoders where they are trained; without them cached states are taken.
    """

    family: Literal["sd1", "sd2", "sdxl"]
    inpaints: bool
    encoders: Encoders = ()

    def inputs(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor] | tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Latents (B, C or 2 C + 1, h, w), steps (B,), text states (B, 77 n, width), and for SDXL what is added to the steps.

        Raises:
            SettingError: If the batch lacks something.
        """
        given = rows.given
        if self.family != "sdxl":
            require_keys(given, ["tokens"] if self.encoders else ["states"], why="this base")
            return self._latents(rows), rows.t, self._own(given) if self.encoders else given["states"]
        keys = ("tokens", "tokens_2", "time_ids") if self.encoders else ("states", "pooled", "time_ids")
        require_keys(given, keys, why="a Stable Diffusion XL base")
        states, pooled = self._pair(given) if self.encoders else (given["states"], given["pooled"])
        return self._latents(rows), rows.t, states, {"text_embeds": pooled, "time_ids": given["time_ids"].float()}

    def _latents(self, rows: Rows) -> Tensor:
        if not self.inpaints:
            return rows.z
        require_keys(rows.given, ["inpaint"], why="a base that inpaints")
        z, inpaint = rows.z, rows.given["inpaint"]
        if inpaint.shape[1] != z.shape[1] + 1 or inpaint.shape[2:] != z.shape[2:]:
            raise SettingError(
                f"inpaint must be a mask and the masked photo's latents, {(len(z), z.shape[1] + 1, *z.shape[2:])}, the batch has "
                f"{tuple(inpaint.shape)}; encode the photos again"
            )
        return torch.cat([z, inpaint.float()], 1)

    def _own(self, given: Batch) -> Tensor:
        """States of the one encoder that is trained."""
        states: Tensor = self.encoders[0](_chunks(given["tokens"]))[0]
        return _joined(states, len(given["tokens"]))

    def _pair(self, given: Batch) -> tuple[Tensor, Tensor]:
        """States of both encoders that are trained, side by side, and the projection of each text's first chunk."""
        count = len(given["tokens"])
        first, second = (
            encoder(_chunks(given[key]), output_hidden_states=True)
            for encoder, key in zip(self.encoders, ("tokens", "tokens_2"), strict=True)
        )
        states = torch.cat([_joined(first.hidden_states[-2], count), _joined(second.hidden_states[-2], count)], -1)
        pooled: Tensor = second.text_embeds.reshape(count, -1, second.text_embeds.shape[-1])[:, 0]
        return states, pooled


def _chunks(tokens: Tensor) -> Tensor:
    """Ids (B, 77 n) as rows of what CLIP reads at once, (B n, 77)."""
    return tokens.reshape(-1, TOKENS)


def _joined(states: Tensor, count: int) -> Tensor:
    """States (B n, 77, width) of the chunks of each text joined again, (B, 77 n, width)."""
    return states.reshape(count, -1, states.shape[-1])
