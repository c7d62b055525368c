"""DeepCache: what the inner UNet says changes slowly from step to step, so it is asked every few steps only.

Between, the outermost block on each side is run, with what the inner blocks said last for this row. Ma et al. 2023,
https://arxiv.org/abs/2312.00858. When a row is run in full depends on its own step alone, never on its batch mates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["DeepCache", "Slot"]

Slot = tuple[int, int, str]
"""Whose answer it is: a job's number, which of its texts, and the text."""


class DeepCache:
    """Remembers for each row what the inner UNet said.

    Args:
        unet: A ``UNet2DConditionModel`` of at least two levels.
        every: Every how many steps a row is run in full; at 1 always, and the answer is the UNet's own.
    """

    def __init__(self, unet: nn.Module, every: int) -> None:
        self._unet: Any = unet
        self._every = every
        self._known: dict[tuple[int, int], tuple[str, Tensor]] = {}

    def ask(self, z: Tensor, t: Tensor, states: Tensor, slots: Sequence[Slot], steps: Sequence[int], **more: Any) -> Tensor:
        """The UNet's answer for rows, (N, C, h, w).

        Args:
            z: What it is shown, (N, C, h, w).
            t: Time steps, (N,).
            states: Text states, (N, tokens, width).
            slots: Of each row.
            steps: Of each row its own step, from 0 on.
            **more: As the UNet takes them: conditions besides the text, and residuals of networks that steer.
        """
        full = [row for row, slot in enumerate(slots) if steps[row] % self._every == 0 or self._lacks(slot)]
        shallow = [row for row in range(len(slots)) if row not in set(full)]
        parts: list[tuple[list[int], Tensor]] = []
        if full:
            answer, inner = self._run(z[full], t[full], states[full], **_rows(more, full))
            for place, row in enumerate(full):
                job, which, text = slots[row]
                self._known[job, which] = (text, inner[place])
            parts.append((full, answer))
        if shallow:
            inner = torch.stack([self._known[slots[row][:2]][1] for row in shallow])
            parts.append((shallow, self._run_outer(z[shallow], t[shallow], states[shallow], inner, **_rows(more, shallow))))
        if len(parts) == 1:
            return parts[0][1]
        order = torch.tensor([*full, *shallow], device=z.device).argsort()
        return torch.cat([answer for _, answer in parts])[order]

    def _lacks(self, slot: Slot) -> bool:
        """Whether nothing is known of a row, or of another text: prompts may change in the middle of a run."""
        known = self._known.get(slot[:2])
        return known is None or known[0] != slot[2]

    def _run(self, z: Tensor, t: Tensor, states: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        """The whole UNet, and what its last block was handed by the inner ones."""
        seen: list[Tensor] = []
        hook = self._unet.up_blocks[-1].register_forward_pre_hook(
            lambda _, __, named: seen.append(named["hidden_states"]), with_kwargs=True
        )
        try:
            answer: Tensor = self._unet.forward(z, t, states, return_dict=False, **more)[0]  # a compiled call would not see the hook
        finally:
            hook.remove()
        return answer, seen[0]

    def _run_outer(self, z: Tensor, t: Tensor, states: Tensor, inner: Tensor, **more: Any) -> Tensor:
        """Time, first block and last block, as in the UNet's own forward."""
        unet = self._unet
        added = more.get("added_cond_kwargs")
        emb = unet.time_embedding(unet.get_time_embed(sample=z, timestep=t))
        aug = unet.get_aug_embed(emb=emb, encoder_hidden_states=states, added_cond_kwargs=added)
        emb = emb if aug is None else emb + aug
        states = unet.process_encoder_hidden_states(encoder_hidden_states=states, added_cond_kwargs=added)
        x = unet.conv_in(z)
        first, skips = unet.down_blocks[0], [x]
        for place, resnet in enumerate(first.resnets):  # the block's own forward would halve the size in the end, for nothing
            x = resnet(x, emb)
            if hasattr(first, "attentions"):
                x = first.attentions[place](x, encoder_hidden_states=states, return_dict=False)[0]
            skips.append(x)
        for place, residual in enumerate(more.get("down_block_additional_residuals", [])[: len(skips)]):
            skips[place] = skips[place] + residual
        last = unet.up_blocks[-1]
        named = {"encoder_hidden_states": states} if getattr(last, "has_cross_attention", False) else {}
        x = last(hidden_states=inner, temb=emb, res_hidden_states_tuple=tuple(skips), **named)
        if unet.conv_norm_out:
            x = unet.conv_act(unet.conv_norm_out(x))
        answer: Tensor = unet.conv_out(x)
        return answer


def _rows(more: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """The same arguments for some of the rows."""

    def some(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows]
        if isinstance(value, dict):
            return {name: some(each) for name, each in value.items()}
        return [some(each) for each in value] if isinstance(value, list | tuple) else value

    return {name: some(value) for name, value in more.items()}
