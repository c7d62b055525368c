"""The training step of a LoRA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from lightning.pytorch import LightningModule
from torch import Tensor
from transformers import CLIPTextModel
from typing_extensions import override

from synthaug.diffusion.objective import Target, noised, target_of, weighted_mean
from synthaug.diffusion.schedule import NoiseSchedule
from synthaug.errors import NumericsError, SettingError, require
from synthaug.lora.layers import LoraLayer, put_on, trained_layers
from synthaug.models.load import Part, load_base
from synthaug.seeds import seed_for
from synthaug.training.loss import Loss

__all__ = ["Batch", "LoraShape", "LoraTraining"]

Batch = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LoraShape:
    """Size and place of the low-rank layers."""

    rank: int = 16
    """Rank of every layer; 4 to 32 for twenty photos."""

    alpha: float = 16.0
    """Scale times rank; equal to the rank it leaves the learning rate as it is."""

    targets: str = "transformer"
    """``attention``, ``transformer`` (attention and feed-forward), ``everything``, or a regular expression."""

    dropout: float = 0.0
    """Share of each layer's inputs dropped in training."""

    def __post_init__(self) -> None:
        require({
            "rank must be at least 1; 4 to 32 are usual": (self.rank >= 1, self.rank),
            "alpha must be above 0; equal to the rank is usual": (0 < self.alpha < math.inf, self.alpha),
            "dropout must be from 0 to below 1": (0 <= self.dropout < 1, self.dropout),
        })  # fmt: skip


class LoraTraining(LightningModule):
    """Teach a LoRA on a frozen base to draw the photos.

    Batches are dicts: ``mean`` and ``std`` (B, C, h, w), the encoder's posterior, already scaled;
    ``states`` (B, 77 n, width), text states; ``tokens`` (B, 77 n), used when the text encoder is trained;
    ``weight`` (B, 1, h, w), how much each place counts, if there are masks.
    What step k draws at random depends on the seed and k alone, so a resumed run is the same run.

    Args:
        base: ``pocket``, a diffusers folder or a hub id.
        shape: Rank, alpha and place of the layers.
        learning_rate: Step size of AdamW for the UNet's layers.
        text_learning_rate: The same for the text encoder's layers; 0 leaves the text encoder out.
        loss: Which noise, which steps, how much each counts.
        gradient_checkpointing: Compute activations again in the backward pass, for little memory.
        seed: Seed of noise and time steps.

    Raises:
        SettingError: If a number is outside its range; in ``configure_model``, if the base's schedule or the
            targets cannot be used.
        NumericsError: In a step, if the loss is NaN.

    Example:
        >>> LoraTraining(shape=LoraShape(rank=4)).shape.rank
        4
    """

    alpha: Tensor
    sigma: Tensor

    def __init__(  # they are the options of the command line
        self,
        base: str = "pocket",
        *,
        shape: LoraShape = LoraShape(),
        learning_rate: float = 1e-3,
        text_learning_rate: float = 0.0,
        loss: Loss = Loss(),
        gradient_checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require({
            "learning_rate must be above 0; 1e-3 to 1e-4 are usual": (0 < learning_rate < math.inf, learning_rate),
            "text_learning_rate must be 0 or above; 0 trains none": (0 <= text_learning_rate < math.inf, text_learning_rate),
        })  # fmt: skip
        self.base, self.shape, self.seed = base, shape, seed
        self.learning_rate, self.text_learning_rate = learning_rate, text_learning_rate
        self.loss = loss
        self.gradient_checkpointing = gradient_checkpointing
        self.base_hash = ""
        self.kind: Target = "epsilon"
        self.unet: UNet2DConditionModel | None = None
        self.text_encoder: CLIPTextModel | None = None
        self.strict_loading = False

    @override
    def configure_model(self) -> None:
        """Load the base and put the layers on, once."""
        if self.unet is not None:
            return
        with_text = self.text_learning_rate > 0
        parts: tuple[Part, ...] = ("unet", "text") if with_text else ("unet",)
        base = load_base(self.base, parts=parts)
        assert base.unet is not None
        self.base_hash, self.kind = base.fingerprint, cast("Target", base.prediction_type)
        schedule = base.schedule
        if schedule["beta_schedule"] != "scaled_linear":
            raise SettingError(f"the base's noise schedule must be 'scaled_linear', {self.base} has {schedule['beta_schedule']!r}")
        scales = NoiseSchedule(
            steps=schedule["num_train_timesteps"],
            beta_start=schedule["beta_start"],
            beta_end=schedule["beta_end"],
            last=0.0 if schedule.get("rescale_betas_zero_snr") else None,
        ).scales()
        for name, values in zip(("alpha", "sigma"), scales, strict=True):
            self.register_buffer(name, values.to(self.device), persistent=False)
        self.unet = base.unet.to(self.device, memory_format=torch.channels_last)
        settings = {"rank": self.shape.rank, "alpha": self.shape.alpha, "dropout": self.shape.dropout}
        put_on(self.unet, targets=self.shape.targets, **settings)  # type: ignore[arg-type]  # plain numbers
        if self.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        if with_text and base.text_encoder is not None:
            self.text_encoder = base.text_encoder.to(self.device)
            put_on(self.text_encoder, targets=self.shape.targets, **settings)  # type: ignore[arg-type]  # plain numbers

    @override
    def forward(self, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The network's answer for noised latents (B, C, h, w) at steps (B,)."""
        assert self.unet is not None
        answer: Tensor = self.unet(z, t, text, return_dict=False)[0]
        return answer

    @override
    def training_step(self, batch: Batch) -> Tensor:
        generator = torch.Generator().manual_seed(seed_for(self.seed, "noise", self.global_step))
        mean, count = batch["mean"], len(batch["mean"])
        x = mean + batch["std"] * torch.randn(mean.shape, generator=generator).to(mean)
        t = self.loss.times(count, len(self.alpha), generator).to(x.device)
        eps, added = self.loss.noise(x, generator)
        alpha, sigma = self.alpha[t], self.sigma[t]

        answer = self(noised(x, added, alpha, sigma), t, self._text(batch)).float()
        error = (answer - target_of(self.kind, x, eps, alpha, sigma)).square()
        loss = (weighted_mean(error, batch.get("weight")) * self.loss.weight((alpha / sigma) ** 2, self.kind)).mean()
        if not torch.isfinite(loss):
            raise NumericsError(
                f"the loss must be a number, it is {loss.item()} at step {self.global_step}; use --trainer.precision 32-true, "
                f"or a learning rate below {self.learning_rate:g}"
            )
        self.log("train/loss", loss)
        return loss

    def _text(self, batch: Batch) -> Tensor:
        """Text states, from the encoder that is being trained or as they were cached."""
        if self.text_encoder is None:
            return batch["states"]
        chunks = batch["tokens"].reshape(-1, 77)
        states: Tensor = self.text_encoder(chunks)[0]
        return states.reshape(len(batch["tokens"]), -1, states.shape[-1])

    @override
    def configure_optimizers(self) -> Any:
        assert self.unet is not None
        groups = [{"params": [p for p in self.unet.parameters() if p.requires_grad], "lr": self.learning_rate}]
        if self.text_encoder is not None:
            groups.append({"params": [p for p in self.text_encoder.parameters() if p.requires_grad], "lr": self.text_learning_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        total = int(self.trainer.estimated_stepping_batches)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total, eta_min=0.05 * self.learning_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}

    @override
    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # torch has two overloads, both pass here
        """Only what is trained; the base is loaded again from its own files."""
        return {key: value for key, value in super().state_dict(*args, **kwargs).items() if "lora_" in key}

    def layers(self) -> dict[str, dict[str, LoraLayer]]:
        """What has been learned so far, by network and module path."""
        assert self.unet is not None
        found = {"unet": trained_layers(self.unet), "text_encoder": {}}
        if self.text_encoder is not None:
            found["text_encoder"] = trained_layers(self.text_encoder)
        return found
