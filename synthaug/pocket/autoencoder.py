"""Pretraining of the decoder behind a fixed linear encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from synthaug.pocket.optimizers import MuonAndAdamW, warm_stable_decay
from synthaug.pocket.pictures import KEPT_BACK, PictureSet

__all__ = ["CropBatches", "DecoderPretraining", "as_float", "psnr"]


def as_float(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """uint8 (N, H, W, 3) to float (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(guess: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, (B,); pictures in [-1, 1]."""
    return 10 * torch.log10(4 / (guess.clamp(-1, 1) - truth).square().flatten(1).mean(1))


class CropBatches:
    """Square crops of rendered pictures.

    Args:
        pictures: What to cut from; the last :data:`KEPT_BACK` are left out.
        batch_size: Crops in a batch.
        side: Side of a crop in pixels.
    """

    def __init__(self, pictures: PictureSet, *, batch_size: int, side: int) -> None:
        self._pictures, self._batch_size, self._side = pictures, batch_size, side

    def __call__(self, rng: np.random.Generator) -> Tensor:
        """Float (B, 3, side, side) in [-1, 1]."""
        whole = self._pictures.pixels(rng.integers(0, len(self._pictures) - KEPT_BACK, self._batch_size).tolist())
        room = whole.shape[1] - self._side + 1
        corners = rng.integers(0, room, (self._batch_size, 2))
        crops = [p[r : r + self._side, c : c + self._side] for p, (r, c) in zip(whole, corners, strict=True)]
        return as_float(np.stack(crops))


class DecoderPretraining(LightningModule):
    """Teach the decoder to undo the fixed linear code. Batches are pictures (B, 3, H, W) in [-1, 1].

    Args:
        autoencoder: Its encoder is left as it is.
        learning_rate: Step size of Muon.
        total_steps: Length of the run.
        latent_noise: Noise on the latents, so that the decoder forgives small errors of the denoiser.
    """

    def __init__(
        self, autoencoder: AutoencoderKL, *, learning_rate: float = 2e-3, total_steps: int = 5000, latent_noise: float = 0.05
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.autoencoder.encoder.requires_grad_(requires_grad=False)
        self.autoencoder.quant_conv.requires_grad_(requires_grad=False)
        self.learning_rate, self.total_steps, self.latent_noise = learning_rate, total_steps, latent_noise

    @override
    def training_step(self, batch: Tensor) -> Tensor:
        x = batch.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            z = self.autoencoder.encode(x).latent_dist.mean
        y = self.autoencoder.decode(z + self.latent_noise * torch.randn_like(z)).sample.float()
        loss = F.mse_loss(y, x) + 0.05 * F.l1_loss(y, x)
        self.log("train/loss", loss)
        return loss

    @override
    def validation_step(self, batch: Tensor) -> None:
        y = self.autoencoder.decode(self.autoencoder.encode(batch).latent_dist.mean).sample.float()
        self.log("val/psnr", psnr(y, batch).mean(), batch_size=len(batch))

    @override
    def configure_optimizers(self) -> Any:
        optimizer = MuonAndAdamW(self.named_parameters(), lr=self.learning_rate, small_lr=self.learning_rate)
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_stable_decay(self.total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}
