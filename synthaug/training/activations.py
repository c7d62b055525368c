"""What the backward pass needs, and how to keep less of it.

Where only a LoRA is trained, torch keeps more than its gradient needs, and some values are cheaper to compute again than to keep:

=====================  ==================================================  ============================================
piece                  kept by torch                                       kept here
=====================  ==================================================  ============================================
frozen convolution     its input, for a gradient of weights nobody wants   nothing: the input's gradient needs weights alone
gated layer (GEGLU)    its projection, 8 times as wide as its input,       its input; the projection is computed again
                       the gate's answer and the product
=====================  ==================================================  ============================================

For SD 1.5 at 256 x 256 pixels in fp32 with a LoRA of rank 16 that is 279 of 447 MiB; the projection is about a seventh of the forward
pass. Convolutions: Bhatia and Dangel 2024, https://arxiv.org/abs/2404.12406. GEGLU: Shazeer 2020, https://arxiv.org/abs/2002.05202.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from diffusers.models.activations import GEGLU
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from synthaug.training.memory import give_back

__all__ = ["WIDE_SHARE", "Checkpointing", "keep_less"]

Checkpointing = bool | Literal["wide"]
"""What is computed again in the backward pass: nothing, the gated layers, or whole blocks."""

WIDE_SHARE = 0.65
"""Share of the activations that ``wide`` leaves: 0.62 for SD 1.5 at 256 x 256 pixels, counted with ``saved_tensors_hooks``."""

LARGE = 100_000_000
"""Networks of so many weights leave gaps in the C library's memory that are worth a call to give back."""


def keep_less(unet: nn.Module, *, checkpointing: Checkpointing) -> None:
    """Let a network with a LoRA on it keep less for its backward pass; answers and gradients stay what they are.

    Args:
        unet: Frozen but for its LoRA; modules are changed in place and keep names and weights.
        checkpointing: ``wide`` computes gated layers again, True whole blocks of diffusers' networks, which includes them; convolutions
            keep less in any case.

    Example:
        >>> convolution = nn.Conv2d(1, 1, 3).requires_grad_(requires_grad=False)
        >>> keep_less(nn.Sequential(convolution), checkpointing=False)
        >>> type(convolution).__name__
        'FrozenConv2d'
    """
    for module in list(unet.modules()):
        if type(module) is nn.Conv2d and not module.weight.requires_grad and _is_plain(module):
            module.__class__ = FrozenConv2d
        elif type(module) is GEGLU and checkpointing == "wide":
            module.__class__ = CheckpointedGEGLU
    if checkpointing is True:
        unet.enable_gradient_checkpointing()  # type: ignore[operator]  # diffusers' networks have it
    if next(unet.parameters()).device.type == "cpu" and sum(weight.numel() for weight in unet.parameters()) >= LARGE:
        _give_back_between(unet)


def _give_back_between(unet: nn.Module) -> None:
    """Return gaps in the C library's memory when most is held, on the way up and on the way back, so that the peak has none of them."""
    for block in unet.up_blocks:  # type: ignore[union-attr]  # a ModuleList
        block.register_forward_pre_hook(lambda *_: give_back())
        block.register_forward_hook(_give_back_later)
    unet.conv_out.register_forward_hook(lambda *_: give_back())  # type: ignore[union-attr]


def _give_back_later(_: nn.Module, __: Any, answer: Tensor) -> None:
    if answer.requires_grad:
        answer.register_hook(lambda _: give_back())  # type: ignore[no-untyped-call]  # torch leaves it without types


def _is_plain(module: nn.Conv2d) -> bool:
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


class FrozenConv2d(nn.Conv2d):
    """A convolution whose weights never get a gradient, so that its input need not be kept."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        settings = (self.stride, self.padding, self.dilation, self.groups)
        answer: Tensor = _FrozenConvolution.apply(input, self.weight, self.bias, settings)
        return answer


class _FrozenConvolution(torch.autograd.Function):
    """Forward as ever; backward needs the input's shape and type, not its values."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, settings: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.dtype, ctx.settings = x.shape, x.dtype, settings
        return conv2d(x, weight, bias, *settings)

    @staticmethod
    @override
    def backward(ctx: Any, *outer: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        gradient = conv2d_input(ctx.shape, weight.to(outer[0].dtype), outer[0], *ctx.settings)  # type: ignore[no-untyped-call]  # the same
        return gradient.to(ctx.dtype), None, None, None


class CheckpointedGEGLU(GEGLU):  # type: ignore[misc]  # diffusers ships no types
    """A gated layer that keeps its input alone; a LoRA on it drops the same inputs when it is computed again."""

    @override
    def forward(self, hidden_states: Tensor) -> Tensor:
        answer: Tensor = checkpoint(super().forward, hidden_states, use_reentrant=False)
        return answer
