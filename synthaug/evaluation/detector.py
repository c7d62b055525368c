"""A small detector, trained from scratch in seconds: is there a defect in the picture or not."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from typing_extensions import override

from synthaug.errors import NumericsError, SettingError
from synthaug.evaluation.batches import Batches
from synthaug.pixels import framed, to_float
from synthaug.seeds import seed_for

__all__ = ["Detector", "network", "train_detector"]

WIDTHS = (16, 32, 48, 96)


class Detector(LightningModule):
    """Tell defects from good pictures: binary cross-entropy on one logit, AdamW, one cycle of the learning rate.

    Batches are ``(images, labels)``: float (B, 3, side, side) in [-1, 1], and float (B,), 1 = defect.

    Args:
        side: Pictures are cropped to the middle square and resized to this many pixels, at least 16.
        steps: Length of the learning rate's one cycle.
        learning_rate: Its peak, for AdamW.
    """

    def __init__(self, *, side: int = 64, steps: int = 150, learning_rate: float = 4e-3) -> None:
        super().__init__()
        if side < 16:
            raise SettingError(f"side must be at least 16 pixels, got {side}; below that a defect cannot be seen")
        self.side, self.steps, self.learning_rate = side, steps, learning_rate
        self.net = network()

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Logit of a defect, (B,)."""
        logits: Tensor = self.net(images)
        return logits[:, 0]

    @override
    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        loss = F.binary_cross_entropy_with_logits(self(images), labels)
        if not loss.isfinite():
            raise NumericsError(f"the detector's loss is {loss.item()} at step {self.global_step}; train with another seed")
        return loss

    @override
    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=0.02)
        cycle = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def _rate(self, step: int) -> float:
        """Share of the learning rate at a step: up in a straight line for a fifth of the run, down to 0 as a cosine."""
        done, rise = (step + 1) / (self.steps + 1), 0.2
        return done / rise if done < rise else 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """Probability of a defect.

        Args:
            images: uint8 (N, 3, H, W), any size; framed to ``side`` where they differ.

        Returns:
            float32 (N,), 0 to 1, higher = defect.
        """
        self.eval()
        chunks = [self(to_float(chunk)).sigmoid() for chunk in torch.split(_framed(images, self.side), 128)]
        return torch.cat(chunks)


def network() -> nn.Sequential:
    """Seven convolutions, 174 thousand weights; the strongest and the mean answer of all places decide.

    Group norm keeps no statistics over pictures, so real and synthetic ones cannot shift each other's.
    Group normalization: Wu & He 2018, https://arxiv.org/abs/1803.08494.
    """
    layers = [_convolution(3, WIDTHS[0], stride=2)]
    for below, above in pairwise(WIDTHS):
        layers += [_convolution(below, above, stride=2), _convolution(above, above)]
    return nn.Sequential(*layers, _StrongestAndMean(), nn.Linear(2 * WIDTHS[-1], 1))


def train_detector(
    images: Tensor, labels: Tensor, *, seed: int, steps: int = 150, side: int = 64, synthetic: Tensor | None = None, batch_size: int = 32
) -> Detector:
    """Train a detector from scratch; the last weights are the ones kept, no picture is set aside to choose by.

    Equal arguments give an equal detector on one machine with one number of threads. The global state of
    torch's random numbers is left as it was.

    Args:
        images: uint8 (N, 3, H, W).
        labels: (N,), 1 = defect, 0 = good; both must occur.
        seed: Decides the first weights, the order and the augmentation.
        steps: Optimiser steps, however many pictures there are.
        side: Pictures are cropped to the middle square and resized to this many pixels, at least 16.
        synthetic: bool (N,), which pictures were drawn; they get half of their class's places. None = none.
        batch_size: Pictures per step, a multiple of 4; half of them good, half defects.

    Raises:
        SettingError: If a class is missing or a setting cannot be used.
        NumericsError: If the loss is not finite.

    Example:
        >>> images = torch.randint(0, 255, (8, 3, 16, 16), dtype=torch.uint8)
        >>> train_detector(images, torch.arange(8) % 2, seed=0, steps=1, side=16).scores(images).shape
        torch.Size([8])
    """
    drawn = torch.zeros(len(images), dtype=torch.bool) if synthetic is None else synthetic
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(seed, "weights"))
        detector = Detector(side=side, steps=steps)
        batches = Batches(_framed(images, side), labels, drawn, steps=steps, batch_size=batch_size, seed=seed)
        with _quiet():
            trainer = Trainer(
                accelerator="cpu", devices=1, max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
            )  # fmt: skip
            trainer.fit(detector, DataLoader(batches, batch_size=None))
    return detector.eval()


class _StrongestAndMean(nn.Module):
    """(B, C, h, w) to (B, 2 C): a small defect shows in the maximum, a wide one in the mean."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1)


def _convolution(inputs: int, outputs: int, *, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU())


def _framed(images: Tensor, side: int) -> Tensor:
    if images.shape[-2:] == (side, side):
        return images
    return torch.stack([framed(image, (side, side)) for image in images])


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning without its advice for other people's runs; Ctrl-C comes out as such, not as the end of the process."""
    talk = logging.getLogger("lightning.pytorch")
    level = talk.level
    talk.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for text in (".*does not have many workers.*", ".*isinstance.treespec, LeafSpec.*", ".*GPU available but not used.*"):
                warnings.filterwarnings("ignore", text)
            yield
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    finally:
        talk.setLevel(level)
