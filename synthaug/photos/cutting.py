"""Which pixels belong together: colours learned from a first guess, and a walk that does not cross edges.

Code name      Paper       Meaning
guess          lambda      prior probability of each pixel to be the object, (H, W)
trust          gamma       how much the prior counts against the neighbours, (H, W), at least a little everywhere
weight         w_ij        how easily the walk goes from one pixel to the next: exp(-beta |g_i - g_j|^2)
x              x           probability to be the object

Random walker with priors: Grady 2005, https://doi.org/10.1109/CVPR.2005.239, solved by conjugate gradients; object and ground
each a mixture of Gaussians learned from the guess before: GrabCut, Rother et al. 2004, https://doi.org/10.1145/1015706.1015720.
Nothing of this needs a graph library: a picture's neighbours are its own rows and columns, shifted by one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["likelier", "walked"]

STEPS = 300
"""Conjugate gradients stop here at the latest; photos take about a hundred."""


ENOUGH = 2000
"""About as many pixels are learned from; more say the same again."""


def walked(guess: Tensor, trust: Tensor, features: Tensor, *, beta: float = 40.0) -> Tensor:
    """What a guess becomes when neighbours that look alike have to agree.

    Args:
        guess: (H, W), 0 to 1.
        trust: (H, W), above 0.
        features: What neighbours are compared by, (C, H, W).
        beta: How much a difference separates.

    Returns:
        (H, W), 0 to 1.

    Example:
        >>> guess, trust = torch.tensor([[0.5, 0.0, 0.5, 1.0]]), torch.tensor([[1e-4, 1.0, 1e-4, 1.0]])
        >>> walked(guess, trust, torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])).round()
        tensor([[0., 0., 1., 1.]])
    """
    down = torch.exp(-beta * (features[:, 1:] - features[:, :-1]).square().sum(0)) + 1e-3
    right = torch.exp(-beta * (features[:, :, 1:] - features[:, :, :-1]).square().sum(0)) + 1e-3
    degree = trust.clone()
    degree[1:] += down
    degree[:-1] += down
    degree[:, 1:] += right
    degree[:, :-1] += right

    def laplacian(x: Tensor) -> Tensor:
        out = degree * x
        out[1:] -= down * x[:-1]
        out[:-1] -= down * x[1:]
        out[:, 1:] -= right * x[:, :-1]
        out[:, :-1] -= right * x[:, 1:]
        return out

    return _conjugate_gradients(laplacian, trust * guess, guess.clone(), 1 / degree).clamp(0, 1)


def _conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """Solve matrix(x) = b; ``scale`` is one over the diagonal."""
    residual = b - matrix(x)
    scaled = scale * residual
    direction, size = scaled.clone(), (residual * scaled).sum()
    for _ in range(STEPS):
        if size < 1e-8 * b.numel():
            break
        image = matrix(direction)
        step = size / (direction * image).sum()
        x, residual = x + step * direction, residual - step * image
        scaled = scale * residual
        direction, size = scaled + (new := (residual * scaled).sum()) / size * direction, new
    return x


def likelier(features: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """How much likelier each pixel is to be of the first area than of the second, by what they look like.

    Args:
        features: (C, H, W).
        inside: Pixels to learn the first area from, (H, W), bool, some of them True.
        outside: The same for the second.

    Returns:
        Logarithm of the ratio, (H, W), cut at -8 and 8.
    """
    points = features.flatten(1).T
    learned = [points[area.flatten()] for area in (inside, outside)]
    scores = [_log_likelihood(points, *_mixture(known[:: 1 + len(known) // ENOUGH])) for known in learned]
    return (scores[0].logsumexp(1) - scores[1].logsumexp(1)).clamp(-8, 8).reshape(inside.shape)


def _mixture(points: Tensor, *, count: int = 5, rounds: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Means (K, C), variances (K, C) and weights (K,), begun far apart without chance."""
    spread = points.var(0, unbiased=False) + 1e-6
    means = [points.mean(0)]
    far = ((points - means[0]).square() / spread).sum(1)
    for _ in range(count - 1):
        means.append(points[far.argsort()[int(0.98 * len(points))]])
        far = torch.minimum(far, ((points - means[-1]).square() / spread).sum(1))
    mean, variance, weight = torch.stack(means), spread.expand(count, -1), torch.full((count,), 1 / count)
    for _ in range(rounds):
        share = _log_likelihood(points, mean, variance, weight).softmax(1)
        total = share.sum(0) + 1e-3
        mean = share.T @ points / total[:, None]
        variance = (share.T @ points.square() / total[:, None] - mean.square()).clamp_min(1e-3)
        weight = total / total.sum()
    return mean, variance, weight


def _log_likelihood(points: Tensor, mean: Tensor, variance: Tensor, weight: Tensor) -> Tensor:
    """Of each point in each part, (N, K), but for a constant."""
    return weight.log() - 0.5 * ((points[:, None] - mean).square() / variance + variance.log()).sum(2)
