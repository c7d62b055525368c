"""The photos of one step, noised: everything random about a step is drawn here, and before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from synthaug.diffusion.objective import noised
from synthaug.errors import SettingError
from synthaug.training.loss import Loss

__all__ = ["Batch", "Rows", "Share", "require_keys", "seeded_dropout"]

Batch = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of a step's photos one process has."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Noised photos, one per row of every tensor; rows do not know of each other, so they may be computed in any parts."""

    x: Tensor
    """Clean latents, float32 (B, C, h, w)."""

    eps: Tensor
    """Noise that is asked for, as ``x``."""

    added: Tensor
    """Noise that was added, as ``x``."""

    t: Tensor
    """Time steps, int64 (B,)."""

    alpha: Tensor
    """Signal scale of each, (B,)."""

    sigma: Tensor
    """Noise scale of each, (B,)."""

    given: Batch
    """What else the batch has of them: text, weights, masks."""

    def __len__(self) -> int:
        return len(self.x)

    @property
    def z(self) -> Tensor:
        """Noised latents, (B, C, h, w)."""
        return noised(self.x, self.added, self.alpha, self.sigma)

    @property
    def snr(self) -> Tensor:
        """Signal over noise, squared, (B,)."""
        return (self.alpha / self.sigma) ** 2

    def __getitem__(self, index: slice | Tensor) -> Rows:
        own = {field.name: getattr(self, field.name)[index] for field in fields(self) if field.name != "given"}
        return Rows(**own, given={name: value[index] for name, value in self.given.items()})

    def parts(self, count: int) -> list[Rows]:
        """The same rows in ``count`` parts of as equal a size as can be."""
        size = -(-len(self) // count)
        return [self[at : at + size] for at in range(0, len(self), size)]

    @classmethod
    def of(cls, batch: Batch, noise: tuple[Tensor, Tensor, Tensor, Tensor], alpha: Tensor, sigma: Tensor) -> Rows:
        """From a batch, its ``(x, t, eps, added)`` and the scales of every step."""
        x, t, eps, added = noise
        rest = {name: value for name, value in batch.items() if name not in ("mean", "std")}
        return cls(x=x, eps=eps, added=added, t=t, alpha=alpha[t], sigma=sigma[t], given=rest)

    @classmethod
    def drawn(cls, batch: Batch, loss: Loss, scales: tuple[Tensor, Tensor], generator: torch.Generator, share: Share = Share()) -> Rows:
        """Draw latents from their posterior, steps and noise, as part of all that the processes have together.

        Args:
            batch: With ``mean`` and ``std``.
            loss: Which noise, which steps.
            scales: Signal and noise scale of every step.
            generator: On the CPU; every process has the same.
            share: Which part is wanted.
        """
        mean, count = batch["mean"].float(), len(batch["mean"])
        every = share.world * count
        mine, like = slice(share.rank * count, (share.rank + 1) * count), mean.new_empty(every, *mean.shape[1:])
        x = mean + batch["std"].float() * torch.randn(like.shape, generator=generator)[mine].to(mean)
        t = loss.times(every, len(scales[0]), generator)
        eps, added = (noise[mine] for noise in loss.noise(like, generator))
        if "regular" in batch:  # photos and regularisation images may come in order, as steps do
            t = t[torch.randperm(every, generator=generator)]
        return cls.of(batch, (x, t[mine].to(x.device), eps, added), *scales)


def require_keys(given: Mapping[str, Tensor], keys: Iterable[str], *, why: str) -> None:
    """Say what a batch lacks.

    Raises:
        SettingError: If a key is not there.
    """
    missing = [key for key in keys if key not in given]
    if missing:
        raise SettingError(
            f"a batch for {why} must have {' and '.join(missing)}, it has {_listed(sorted(given))}; give --data.base the same base as "
            "--model.base"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "nothing"


@contextmanager
def seeded_dropout(share: float, seed: int, device: torch.device) -> Iterator[None]:
    """Let layers drop the same inputs at the same step, in a resumed run and when a step is tried again.

    Args:
        share: Share of inputs that is dropped; at 0 nothing is done.
        seed: Of this step.
        device: Where the layers are.
    """
    if share == 0:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
