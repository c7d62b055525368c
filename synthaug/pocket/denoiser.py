"""Pretraining of the denoiser together with its text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer
from typing_extensions import override

from synthaug.diffusion.objective import Target, noised, offset_noise, target_of
from synthaug.diffusion.schedule import NoiseSchedule
from synthaug.pocket.optimizers import MuonAndAdamW, warm_stable_decay
from synthaug.pocket.pictures import KEPT_BACK
from synthaug.pocket.words import strange_word

__all__ = ["DenoiserPretraining", "LatentBatches", "places"]

OBJECT, FLAW = 1.0, 4.0
"""How much more a place counts that is all object, and one that is a third flaw or more: grounds are mostly grain that
nobody can foretell, and a crack is a few places of 256."""


def places(covers: NDArray[np.uint8], side: int) -> NDArray[np.float16]:
    """How much each place of the latents counts, float16 (N, 1, side, side).

    Args:
        covers: Share of objects and of flaws per cell, in parts of 255, (N, 2, n side, n side).
        side: Side of the latents.
    """
    each = covers.shape[-1] // side
    shares = covers.reshape(len(covers), 2, side, each, side, each).mean((3, 5), dtype=np.float32) / 255
    return np.asarray(1 + OBJECT * shares[:, :1] + FLAW * np.minimum(3 * shares[:, 1:], 1), np.float16)


class LatentBatches:
    """Latents with captions, drawn at random.

    Args:
        folder: Holds ``latents.npy``, float16 (N, C, h, w), ``tokens.npy``, int16 (N, K, 77), and ``places.npy``, float16 (N, 1, h, w).
        tokenizer: Spells the captions that get a strange word.
        captions: K captions for each picture.
        weights: How often each picture is drawn against the others; equally often when left out.
        batch_size: Pictures in a batch.
        blank: Share of pictures without a caption, for guidance.
        strange: Share of captions with a made-up word in them.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: CLIPTokenizer,
        captions: list[list[str]],
        *,
        weights: Sequence[float] | None = None,
        batch_size: int,
        blank: float = 0.1,
        strange: float = 0.06,
    ) -> None:
        self._latents = np.load(folder / "latents.npy", mmap_mode="r")
        self._tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        self._places = np.load(folder / "places.npy", mmap_mode="r")
        self._captions, self._tokenizer = captions, tokenizer
        shares = np.cumsum(np.ones(len(captions)) if weights is None else np.asarray(weights))[:-KEPT_BACK]
        self._shares = shares / shares[-1]
        self._batch_size, self._blank, self._strange = batch_size, blank, strange
        self._empty = np.asarray(self._spell([""])[0], np.int64)

    def __call__(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents float32 (B, C, h, w), token ids int64 (B, 77), and how much places count, float32 (B, 1, h, w)."""
        rows = np.searchsorted(self._shares, rng.random(self._batch_size), side="right")
        which = rng.integers(0, self._tokens.shape[1], self._batch_size)
        tokens = self._tokens[rows, which].astype(np.int64)
        draw = rng.random(self._batch_size)
        tokens[draw < self._blank] = self._empty
        for at in np.nonzero(draw > 1 - self._strange)[0]:
            words = self._captions[rows[at]][which[at]].split(" ")
            words.insert(int(rng.integers(len(words) + 1)), strange_word(rng))
            tokens[at] = self._spell([" ".join(words)])[0]
        latents, counts = (torch.from_numpy(of[rows].astype(np.float32)) for of in (self._latents, self._places))
        return latents, torch.from_numpy(tokens), counts

    def held_out(self, count: int) -> tuple[Tensor, Tensor]:
        """The last ``count`` pictures, never drawn, with their first captions."""
        latents, tokens = self._latents[-count:].astype(np.float32), self._tokens[-count:, 0].astype(np.int64)
        return torch.from_numpy(latents), torch.from_numpy(tokens)

    def _spell(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, padding="max_length", max_length=77, truncation=True).input_ids
        return ids


class DenoiserPretraining(LightningModule):
    """Teach a UNet and its text encoder to draw, from nothing.

    Batches are ``(latents, tokens, places)``: latents (B, C, h, w), scaled, token ids (B, 77), and how much
    each place counts, (B, 1, h, w); to validate with, ``(latents, tokens)``.
    Steps of little noise count less, Hang et al. 2023, https://arxiv.org/abs/2303.09556; loss in v: Salimans & Ho 2022, section 4, https://arxiv.org/abs/2202.00512.

    Args:
        denoiser: UNet that predicts what ``kind`` says.
        text_encoder: CLIP text model.
        schedule: Noise schedule.
        learning_rate: Step size of Muon and AdamW.
        total_steps: Length of the run.
        level: Share of the run at the full rate; then it falls to 0.
        noise_offset: Strength of the constant part of the noise.
        snr_gamma: Where the min-SNR weight is cut.
        noisiest: Largest factor on the weight of noisy steps. Errors in epsilon are tiny there, though it is
            there that the text decides what is drawn; 1 / alpha**2 makes all steps count alike in v.
        latent_noise: Standard deviation of the encoder's posterior.
        kind: What the denoiser predicts.
    """

    alpha: Tensor
    sigma: Tensor

    def __init__(  # noqa: PLR0913  # settings of one run, each documented above
        self,
        denoiser: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        schedule: NoiseSchedule,
        *,
        learning_rate: float = 1e-3,
        total_steps: int = 100_000,
        level: float = 0.6,
        noise_offset: float = 0.1,
        snr_gamma: float = 5.0,
        noisiest: float = 32.0,
        latent_noise: float = 0.05,
        kind: Target = "epsilon",
    ) -> None:
        super().__init__()
        self.denoiser, self.text_encoder = denoiser, text_encoder
        self.learning_rate, self.total_steps, self.level = learning_rate, total_steps, level
        self.noise_offset, self.snr_gamma, self.noisiest, self.latent_noise = noise_offset, snr_gamma, noisiest, latent_noise
        self.kind: Target = kind
        for name, values in zip(("alpha", "sigma"), schedule.scales(), strict=True):
            self.register_buffer(name, values, persistent=False)

    @override
    def forward(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        text = self.text_encoder(tokens)[0]
        eps: Tensor = self.denoiser(z, t, text, return_dict=False)[0]
        return eps

    def loss(self, x: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
        """Weighted error of the denoiser on one batch, at random steps and noise, a scalar."""
        count = len(x)
        x = x + self.latent_noise * torch.randn_like(x)
        t = ((torch.arange(count, device=x.device) + torch.rand(count, device=x.device)) / count * len(self.alpha)).long()
        eps = offset_noise(torch.randn_like(x), self.noise_offset)
        alpha, sigma = self.alpha[t], self.sigma[t]
        answer = self(noised(x, eps, alpha, sigma), t, tokens).float()
        error = (counts * (answer - target_of(self.kind, x, eps, alpha, sigma)).square()).flatten(1).mean(1)
        weight = (self.snr_gamma * (sigma / alpha) ** 2).clamp(max=1)
        if self.kind == "epsilon":
            weight = weight * (1 / alpha**2).clamp(max=self.noisiest)
        loss: Tensor = (weight * error).mean() / weight.mean()
        return loss

    @override
    def training_step(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        loss = self.loss(*batch)
        self.log("train/loss", loss)
        return loss

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Loss on pictures that were kept back, at fixed steps and noise: a number that can be compared."""
        x, tokens = batch
        generator, losses = torch.Generator().manual_seed(0), []
        for at in (100, 300, 500, 700, 900):
            eps = torch.randn(x.shape, generator=generator).to(x.device)
            t = torch.full((len(x),), at, device=x.device)
            z = noised(x, eps, self.alpha[t], self.sigma[t])
            losses.append(F.mse_loss(self(z, t, tokens).float(), target_of(self.kind, x, eps, self.alpha[t], self.sigma[t])))
        self.log("val/loss", torch.stack(losses).mean(), batch_size=len(x))

    @override
    def configure_optimizers(self) -> Any:
        optimizer = MuonAndAdamW(self.named_parameters(), lr=self.learning_rate, small_lr=1e-3, weight_decay=0.01)
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_stable_decay(self.total_steps, stable=self.level))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}
