"""Pictures without a seam: every convolution goes on at the opposite edge, so that the picture may be laid beside itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["tiled"]


@contextmanager
def tiled(networks: list[nn.Module], *, on: bool = True) -> Iterator[None]:
    """Within it, convolutions of these networks wrap around where they else see zeros beyond the edge.

    Args:
        networks: As many as make a picture.
        on: False changes nothing.

    Example:
        >>> import torch
        >>> layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        >>> picture = torch.randn(1, 1, 4, 6)
        >>> with tiled([layer]):
        ...     torch.allclose(layer(picture.roll(2, -1)), layer(picture).roll(2, -1), atol=1e-6)
        True
        >>> layer.padding_mode
        'zeros'
    """
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, nn.Conv2d)] if on else []
    were = [layer.padding_mode for layer in layers]
    try:
        for layer in layers:
            layer.padding_mode = "circular"
        yield
    finally:
        for layer, mode in zip(layers, were, strict=True):
            layer.padding_mode = mode
