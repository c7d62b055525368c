"""The training step of a LoRA."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from transformers import CLIPTextModel
from typing_extensions import override

from synthaug.diffusion.objective import Target, noised, target_of, weighted_mean
from synthaug.diffusion.schedule import NoiseSchedule
from synthaug.errors import NumericsError, SettingError, require
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import LoraLayer, put_on, trained_layers
from synthaug.lora.naming import NetworkKind
from synthaug.lora.updates import Update
from synthaug.models.load import Part, load_base
from synthaug.seeds import seed_for
from synthaug.training.loss import Loss
from synthaug.training.rate import Rate

__all__ = ["Batch", "LoraShape", "LoraTraining"]

Batch = dict[str, Tensor]

VALIDATION_DRAWS = 8
"""How often each photo that was kept back is noised."""


def adamw(params: Iterable[Any]) -> Optimizer:
    """The usual optimiser."""
    return AdamW(params, weight_decay=0.01)


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

    conv_rank: int | None = None
    """Rank on convolutions larger than 1 x 1, where ``targets`` picks some; ``rank`` when left out."""

    conv_alpha: float | None = None
    """Their alpha; ``alpha`` when left out."""

    dora: bool = False
    """Train a length for every output too (DoRA); slower, and kohya's own scripts cannot read it."""

    def __post_init__(self) -> None:
        require({
            "rank must be at least 1; 4 to 32 are usual": (self.rank >= 1, self.rank),
            "alpha must be above 0; equal to the rank is usual": (0 < self.alpha < math.inf, self.alpha),
            "conv_rank must be at least 1": (self.conv_rank is None or self.conv_rank >= 1, self.conv_rank),
            "conv_alpha must be above 0": (self.conv_alpha is None or 0 < self.conv_alpha < math.inf, self.conv_alpha),
            "dropout must be from 0 to below 1": (0 <= self.dropout < 1, self.dropout),
        })  # fmt: skip


class LoraTraining(LightningModule):
    """Teach a LoRA on a frozen base to draw the photos.

    Batches are dicts: ``mean`` and ``std`` (B, C, h, w), the encoder's posterior, already scaled;
    ``states`` (B, 77 n, width), text states; ``tokens`` (B, 77 n), used when the text encoder is trained;
    ``weight`` (B, 1, h, w), how much each place counts, if there are masks.
    What step k draws at random depends on the seed and k alone, so a resumed run is the same run, and several
    processes train as one would with all of their batches.

    Args:
        base: ``pocket``, a diffusers folder or a hub id.
        shape: Rank, alpha and place of the layers.
        start: LoRA file to go on from, in any naming; its layers, ranks and alphas are taken instead of ``shape``.
        learning_rate: Step size for the UNet's layers, whatever the optimiser's own ``lr`` says.
        text_learning_rate: The same for the text encoder's layers; 0 leaves the text encoder out.
        up_ratio: Step size of the layers' second matrices over that of the first (LoRA+); 1 is plain LoRA, 16 is usual.
        optimizer: Any torch optimiser by its class path.
        rate: How the step sizes go over the run.
        loss: Which noise, which steps, how much each counts.
        gradient_checkpointing: Compute activations again in the backward pass, for little memory.
        seed: Seed of noise and time steps.

    Raises:
        UnusableFileError: In ``configure_model``, if the file to go on from does not fit.
        SettingError: If a number is outside its range; in ``configure_model``, if the base's schedule or the
            targets cannot be used.
        NumericsError: In a step, if the loss is NaN.

    Example:
        >>> LoraTraining(shape=LoraShape(rank=4)).shape.rank
        4
    """

    alpha: Tensor
    sigma: Tensor

    def __init__(  # noqa: PLR0913  # they are the options of the command line
        self,
        base: str = "pocket",
        *,
        shape: LoraShape = LoraShape(),
        start: Path | None = None,
        learning_rate: float = 1e-3,
        text_learning_rate: float = 0.0,
        up_ratio: float = 1.0,
        optimizer: OptimizerCallable = adamw,
        rate: Rate = Rate(),
        loss: Loss = Loss(),
        gradient_checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require({
            "learning_rate must be above 0; 1e-3 to 1e-4 are usual": (0 < learning_rate < math.inf, learning_rate),
            "text_learning_rate must be 0 or above; 0 trains none": (0 <= text_learning_rate < math.inf, text_learning_rate),
            "up_ratio must be above 0; 1 is plain LoRA": (0 < up_ratio < math.inf, up_ratio),
        })  # fmt: skip
        self.base, self.shape, self.seed = base, shape, seed
        self.learning_rate, self.text_learning_rate = learning_rate, text_learning_rate
        self.start, self.up_ratio, self.optimizer, self.rate, self.loss = start, up_ratio, optimizer, rate, loss
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
        self._put_on(self.unet, "unet")
        if self.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        if with_text and base.text_encoder is not None:
            self.text_encoder = base.text_encoder.to(self.device)
            self._put_on(self.text_encoder, "text_encoder")

    def _put_on(self, network: nn.Module, kind: NetworkKind) -> None:
        """Layers of the wanted shape, or those of the file to go on from."""
        found: dict[str, LoraLayer] | None = None
        if self.start is not None:
            file = LoraFile.read(self.start)
            file.check_base(self.base, self.base_hash)
            if self.text_learning_rate == 0 and any(name.startswith("lora_te") for name in file.layers):
                raise SettingError(
                    f"what is not trained on would be lost, {self.start} has layers on the text encoder; give --model.text_learning_rate"
                )
            found = file.layers_on(network, kind)
        put_on(network, start=found, **asdict(self.shape))

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
        world, rank = (1, 0) if self._trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        mine, like = slice(rank * count, (rank + 1) * count), mean.new_empty(world * count, *mean.shape[1:])
        x = mean + batch["std"] * torch.randn(like.shape, generator=generator)[mine].to(mean)
        t = self.loss.times(world * count, len(self.alpha), generator)[mine].to(x.device)
        eps, added = (noise[mine] for noise in self.loss.noise(like, generator))
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

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss on photos that were kept back, always with the same noise at the same steps: a number that can be compared."""
        losses = []
        for draw in range(VALIDATION_DRAWS):
            generator = torch.Generator().manual_seed(seed_for(self.seed, "validation", batch_idx, draw))
            x = batch["mean"]
            t = self.loss.times(len(x), len(self.alpha), generator).to(x.device)
            eps = torch.randn(x.shape, generator=generator).to(x)
            alpha, sigma = self.alpha[t], self.sigma[t]
            answer = self(noised(x, eps, alpha, sigma), t, self._text(batch)).float()
            error = weighted_mean((answer - target_of(self.kind, x, eps, alpha, sigma)).square(), batch.get("weight"))
            losses.append((error * self.loss.weight((alpha / sigma) ** 2, self.kind)).mean())
        self.log("val/loss", torch.stack(losses).mean(), batch_size=len(batch["mean"]))

    def _text(self, batch: Batch) -> Tensor:
        """Text states, from the encoder that is being trained or as they were cached."""
        if self.text_encoder is None:
            return batch["states"]
        chunks = batch["tokens"].reshape(-1, 77)
        states: Tensor = self.text_encoder(chunks)[0]
        return states.reshape(len(batch["tokens"]), -1, states.shape[-1])

    @override
    def configure_optimizers(self) -> Any:
        groups = []
        for network, rate in ((self.unet, self.learning_rate), (self.text_encoder, self.text_learning_rate)):
            trained = [] if network is None else [(name, p) for name, p in network.named_parameters() if p.requires_grad]
            for ratio in sorted({1.0, self.up_ratio}):
                of = [p for name, p in trained if (self.up_ratio if "lora_B" in name else 1.0) == ratio]
                groups += [{"params": of, "lr": rate * ratio}] if of else []
        optimizer = self.optimizer(groups)
        total = int(self.trainer.estimated_stepping_batches)
        course = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate.factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": course, "interval": "step"}}

    @override
    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # torch has two overloads, both pass here
        """Only what is trained; the base is loaded again from its own files."""
        return {key: value for key, value in super().state_dict(*args, **kwargs).items() if "lora_" in key}

    def layers(self) -> dict[str, dict[str, Update]]:
        """What has been learned so far, by network and module path."""
        assert self.unet is not None
        found: dict[str, dict[str, Update]] = {"unet": trained_layers(self.unet), "text_encoder": {}}
        if self.text_encoder is not None:
            found["text_encoder"] = trained_layers(self.text_encoder)
        return found
