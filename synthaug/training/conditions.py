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
from synthaug.prompts.encode import read_tokens
from synthaug.training.rows import Batch, Rows, require_keys

__all__ = ["Conditions"]

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
            return self._latents(rows), rows.t, self._read(given)[0] if self.encoders else given["states"]
        keys = ("tokens", "tokens_2", "time_ids") if self.encoders else ("states", "pooled", "time_ids")
        require_keys(given, keys, why="a Stable Diffusion XL base")
        states, pooled = self._read(given) if self.encoders else (given["states"], given["pooled"])
        assert pooled is not None, "Stable Diffusion XL has two encoders"
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

    def _read(self, given: Batch) -> tuple[Tensor, Tensor | None]:
        """States and, with two encoders, the projection, from the encoders that are trained."""
        second = (given["tokens_2"], self.encoders[1]) if len(self.encoders) > 1 else None
        return read_tokens(given["tokens"], self.encoders[0], second)
