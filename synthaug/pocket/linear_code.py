"""Start the encoder as the best linear code of the pictures instead of at random.

A random encoder needs hours before it beats principal components of 8 x 8 patches; one that computes
them exactly from the first step leaves all the training to the decoder, and its latents are the same
whatever the decoder does, so the denoiser can be trained beside it.

Code name    Meaning
P            principal components of 8 x 8 x 3 patches, (channels, 192)
V            32 directions of 4 x 4 x 3 patches that carry what P needs, (32, 48)
keep         gain of each latent channel, (channels,): standard deviation ** (share - 1)

How a network with normalisation and SiLU computes a linear map: ``silu(a) - silu(-a) = a`` lets pairs
(a, -a) through, and a constant pair (K, -K) much larger than the signal makes the group's standard
deviation nearly constant.
"""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

__all__ = ["fit_linear_code", "linear_decode", "linear_encode", "start_encoder"]

PATCH = 8
CONSTANT = 24.0
"""K, in standard deviations of the signal."""

LOG_VARIANCE = -6.0
"""What the encoder says of its own uncertainty: a standard deviation of 0.05."""


def patches(pictures: Tensor, side: int = PATCH) -> Tensor:
    """Cut (B, 3, H, W) into (B * rows * cols, 3 * side * side), ordered colour, row, column."""
    cut = pictures.unfold(2, side, side).unfold(3, side, side)
    return cut.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * side * side)


def fit_linear_code(pictures: Tensor, channels: int, *, share: float, side: int = PATCH) -> dict[str, Tensor]:
    """Principal components of the patches of ``pictures``, float (B, 3, H, W) in [-1, 1].

    Args:
        pictures: At least a few hundred.
        channels: Latent values per patch.
        share: Exponent of the standard deviation that a latent channel keeps: 0 makes all channels
            equally loud, 1 keeps the loudness of the pictures.
        side: Side of a patch in pixels; the encoder network computes patches of 8.

    Returns:
        ``mean`` (3 * side**2,), ``basis`` (channels, 3 * side**2) with orthonormal rows, ``gain`` (channels,).
    """
    rows = patches(pictures, side).double()
    mean = rows.mean(0)
    spread, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    basis = vectors.T.flip(0)[:channels]
    deviation = spread.flip(0)[:channels].clamp_min(1e-9).sqrt()
    kept = deviation**share
    gain = kept / kept.square().mean().sqrt() / deviation
    return {"mean": mean.float(), "basis": basis.float(), "gain": gain.float()}


def linear_encode(pictures: Tensor, code: dict[str, Tensor]) -> Tensor:
    """Latents of the linear code, (B, channels, H / side, W / side)."""
    batch, _, height, width = pictures.shape
    side = _side(code)
    values = (patches(pictures, side) - code["mean"]) @ code["basis"].T * code["gain"]
    return values.reshape(batch, height // side, width // side, -1).permute(0, 3, 1, 2)


def linear_decode(latents: Tensor, code: dict[str, Tensor]) -> Tensor:
    """The linear twin of the decoder: pictures (B, 3, side * h, side * w) from latents (B, channels, h, w)."""
    batch, channels, h, w = latents.shape
    side = _side(code)
    values = latents.permute(0, 2, 3, 1).reshape(-1, channels) / code["gain"]
    rows = values @ code["basis"] + code["mean"]
    cut = rows.reshape(batch, h, w, 3, side, side).permute(0, 3, 1, 4, 2, 5)
    return cut.reshape(batch, 3, h * side, w * side)


def _side(code: dict[str, Tensor]) -> int:
    """Side of the patches a code was fitted on."""
    return math.isqrt(code["basis"].shape[1] // 3)


@torch.no_grad()
def start_encoder(model: AutoencoderKL, code: dict[str, Tensor]) -> None:
    """Set the encoder's weights so that it computes ``code``, within about two percent.

    The network must be the one of :func:`synthaug.pocket.networks.build_autoencoder`: four levels, at
    least 12, 32 and 16 channels after the three halvings, residual blocks that start as identities.
    """
    encoder = model.encoder
    _zero(encoder.conv_in)
    for c in range(3):
        encoder.conv_in.weight[c, c, 1, 1] = 1
    channels, basis = len(code["gain"]), code["basis"] * code["gain"][:, None]
    quarters = basis.reshape(channels, 3, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(channels * 4, 48)
    middle = torch.linalg.svd(quarters)[2][: encoder.down_blocks[1].downsamplers[0].conv.out_channels]
    _space_to_depth(encoder.down_blocks[0].downsamplers[0].conv, _first_step())
    _space_to_depth(encoder.down_blocks[1].downsamplers[0].conv, _second_step(middle))
    _space_to_depth(encoder.down_blocks[2].downsamplers[0].conv, _third_step(basis, middle))
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            if resnet.conv_shortcut is not None:
                _pass_through(resnet.conv_shortcut)
    _pairs(encoder.down_blocks[3].resnets[0].conv_shortcut, channels, encoder.conv_norm_out.num_groups)
    _read_pairs(model, channels, (basis @ code["mean"]))


def _zero(layer: nn.Conv2d) -> None:
    for weight in layer.parameters():
        nn.init.zeros_(weight)


def _pass_through(layer: nn.Conv2d) -> None:
    """Copy the channels that are there, leave the new ones at zero."""
    _zero(layer)
    for c in range(min(layer.in_channels, layer.out_channels)):
        layer.weight[c, c, 0, 0] = 1


def _space_to_depth(layer: nn.Conv2d, matrix: Tensor) -> None:
    """Apply ``matrix`` (out, in, 2, 2) to each 2 x 2 square: a 3 x 3 kernel of stride 2, padded right and below."""
    _zero(layer)
    out, into = matrix.shape[:2]
    layer.weight[:out, :into, :2, :2] = matrix


def _first_step() -> Tensor:
    """3 colours of 2 x 2 pixels -> 12 values, ordered colour, row, column."""
    return torch.eye(12).reshape(12, 3, 2, 2)


def _second_step(middle: Tensor) -> Tensor:
    """2 x 2 squares of 12 values -> the 32 directions of a 4 x 4 patch."""
    cut = middle.reshape(-1, 3, 2, 2, 2, 2)  # colour, big row, small row, big column, small column
    return cut.permute(0, 1, 3, 5, 2, 4).reshape(-1, 12, 2, 2)


def _third_step(basis: Tensor, middle: Tensor) -> Tensor:
    """2 x 2 squares of those directions -> the latent channels."""
    channels = len(basis)
    quarters = basis.reshape(channels, 3, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(channels, 4, 48)
    return (quarters @ middle.T).permute(0, 2, 1).reshape(channels, -1, 2, 2)


def _pairs(layer: nn.Conv2d, channels: int, groups: int) -> None:
    """Spread (a, -a) of every latent channel and one (K, -K) over the groups of the last normalisation."""
    _zero(layer)
    assert layer.bias is not None
    width, each = layer.out_channels // groups, -(-channels // groups)
    for c in range(channels):
        slot = (c // each) * width + 2 * (c % each)
        layer.weight[slot, c, 0, 0], layer.weight[slot + 1, c, 0, 0] = 1, -1
    for group in range(groups):
        slot = group * width + 2 * each
        layer.bias[slot], layer.bias[slot + 1] = CONSTANT, -CONSTANT


def _read_pairs(model: AutoencoderKL, channels: int, offset: Tensor) -> None:
    """Undo the normalisation and take each pair's difference; fixed log variance; channel means off."""
    norm, out = model.encoder.conv_norm_out, model.encoder.conv_out
    width, each = norm.num_channels // norm.num_groups, -(-channels // norm.num_groups)
    signal = 2.0 * each / width  # mean square of the pairs, latent channels being about 1
    nn.init.constant_(norm.weight, (2 * CONSTANT**2 / width + signal) ** 0.5)
    nn.init.zeros_(norm.bias)
    _zero(out)
    for c in range(channels):
        slot = (c // each) * width + 2 * (c % each)
        out.weight[c, slot, 1, 1], out.weight[c, slot + 1, 1, 1] = 1, -1
    out.bias[:channels] = -offset
    out.bias[channels:] = LOG_VARIANCE
    _pass_through(model.quant_conv)
    _pass_through(model.post_quant_conv)
