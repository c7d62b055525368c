"""What makes a base's networks faster and changes no pixel beyond rounding.

Measured on one core of a Zen 5 server processor, pocket, 32 rows of the UNet; docs/speed.md has the figures:

- *linear layers by oneDNN*: PyTorch multiplies matrices with MKL, which on AMD's processors leaves the wide half of the registers unused.
  oneDNN does not, 235 against 105 GFLOP/s. On wherever the processor has AVX-512, on Intel's too, where both are alike.
- *channels_last*: convolutions take their input as it lies; on by itself on a CPU.
- *fuse_qkv*: one product for query, key and value; off by itself, it gains little and doubles those weights.
- *compile*: torch.compile, for cards and long runs; off by itself, it takes a minute or more before the first picture.
- *text encoders on call*: on a card they are there while a text is read that was not read before, and else in the machine's memory.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from synthaug.generation.networks import Networks

__all__ = ["leave_when_done", "onednn_suits", "refuse_qkv", "tune"]


def tune(networks: Networks, *, channels_last: bool | None = None, fuse_qkv: bool = False, compiled: bool = False) -> None:
    """Make the networks of a base faster, in place.

    Args:
        networks: Of a base.
        channels_last: Memory layout of convolutions; None is on a CPU only.
        fuse_qkv: Whether query, key and value are one product; ask :func:`refuse_qkv` after each change of weights.
        compiled: Whether the UNet is compiled.
    """
    on_cpu = networks.device.type == "cpu"
    if on_cpu if channels_last is None else channels_last:
        for network in (networks.unet, networks.vae):
            network.to(memory_format=torch.channels_last)
    if fuse_qkv:
        networks.unet.fuse_qkv_projections()
    if on_cpu and onednn_suits():
        for network in (networks.unet, networks.vae, networks.base.text_encoder, networks.base.text_encoder_2):
            _use_onednn(network)
    if compiled:
        networks.unet.compile()
    if not on_cpu:
        encoders = [each for each in (networks.base.text_encoder, networks.base.text_encoder_2) if each is not None]
        leave_when_done(encoders, networks.unet, device=networks.device, home=torch.device("cpu"))


def onednn_suits() -> bool:
    """Whether oneDNN multiplies matrices at least as fast as what PyTorch takes by itself."""
    there = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def refuse_qkv(networks: Networks) -> None:
    """Build fused projections anew from weights that have changed; nothing where none are fused."""
    for module in networks.unet.modules():
        if getattr(module, "fused_projections", False):
            module.fuse_projections()
            _use_onednn(module if networks.device.type == "cpu" and onednn_suits() else None)


def _use_onednn(network: nn.Module | None) -> None:
    for module in () if network is None else network.modules():
        if type(module) is nn.Linear:
            module.forward = partial(_linear, module)  # type: ignore[method-assign]  # the weights stay where LoRAs find them


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    """The product x W^T + b; for anything but fp32 without gradients PyTorch's own way is as good, or needed.

    So it is while torch.compile looks on, which puts oneDNN in by itself where the weights cannot change.
    """
    plain = x.dtype == module.weight.dtype == torch.float32 and x.numel() and not (torch.is_grad_enabled() and x.requires_grad)
    if not plain or torch.compiler.is_compiling():
        return functional.linear(x, module.weight, module.bias)
    answer: Tensor = torch.ops.mkldnn._linear_pointwise(x, module.weight, module.bias, "none", [], "")  # what torch.compile calls
    return answer


def leave_when_done(encoders: list[Any], unet: nn.Module, *, device: torch.device, home: torch.device) -> None:
    """Have text encoders come to the device when they are asked, and leave it when the UNet is.

    SDXL's two take 1.6 GB in half precision, as much as its latents, and are silent for nearly the whole run.

    Args:
        encoders: Text encoders, wherever they are.
        unet: Its next call sends them home.
        device: Where they work.
        home: Where they wait.
    """

    def come(encoder: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        encoder.to(device)
        return tuple(_moved(each, device) for each in given), {name: _moved(each, device) for name, each in named.items()}

    def leave(_: nn.Module, __: tuple[Any, ...]) -> None:
        for encoder in encoders:
            if encoder.device != home:
                encoder.to(home)

    for encoder in encoders:
        encoder.register_forward_pre_hook(come, with_kwargs=True)
    unet.register_forward_pre_hook(leave)


def _moved(given: Any, device: torch.device) -> Any:
    return given.to(device) if isinstance(given, Tensor) else given
