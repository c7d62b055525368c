"""The training step of a LoRA."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers import UNet2DConditionModel
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection
from typing_extensions import override

from synthaug.diffusion.objective import Target, target_of, weighted_mean
from synthaug.errors import SettingError, require
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import trained_layers
from synthaug.lora.naming import NetworkKind
from synthaug.lora.updates import Update
from synthaug.seeds import seed_for
from synthaug.training.activations import Checkpointing, keep_less
from synthaug.training.average import HasModes, WeightAverage, shown
from synthaug.training.conditions import Conditions
from synthaug.training.endurance import Endurance, Task
from synthaug.training.frozen import Prediction, load_frozen, store_as, without_lora
from synthaug.training.gradient import carried
from synthaug.training.loss import Loss
from synthaug.training.precision import computed_in, gradient_scale, layout_for
from synthaug.training.putting_on import put_lora_on
from synthaug.training.rate import Rate, adamw, groups
from synthaug.training.repairs import Repair
from synthaug.training.rows import Batch, Rows, Share, seeded_dropout
from synthaug.training.shape import LoraShape, PartShape

__all__ = ["Batch", "LoraShape", "LoraTraining", "PartShape"]

VALIDATION_DRAWS = 8
"""How often each photo that was kept back is noised."""


class LoraTraining(LightningModule):
    """Teach a LoRA on a frozen base to draw the photos.

    Batches are dicts: ``mean`` and ``std`` (B, C, h, w), the encoder's posterior, already scaled;
    ``states`` (B, 77 n, width), text states; ``tokens`` (B, 77 n), used when the text encoder is trained;
    ``weight`` (B, 1, h, w), how much each place counts, if there are masks; ``regular`` (B,) bool, True for regularisation
    images, if there are any. Stable Diffusion XL wants ``pooled`` (B, P) and ``time_ids`` (B, 6) too, or ``tokens_2``;
    a base that inpaints wants ``inpaint`` (B, 1 + C, h, w), the mask and the masked photo's latents.
    What step k draws at random depends on the seed and k alone, so a resumed run is the same run, and several
    processes train as one would with all of their batches.

    Where memory runs out, a batch is computed in smaller parts to the same result; where half precision does not hold an
    answer, its module is computed in fp32. Both are said once, and kept in ``repairs``.

    Args:
        base: ``pocket``, a diffusers folder, a hub id or one ``.safetensors`` file.
        shape: Rank, alpha and place of the layers.
        start: LoRA file to go on from, in any naming; its layers, ranks and alphas are taken instead of ``shape``.
        learning_rate: Step size for the UNet's layers, whatever the optimiser's own ``lr`` says.
        text_learning_rate: The same for the layers of the text encoder, or of both; 0 leaves text encoders out.
        up_ratio: Step size of the layers' second matrices over that of the first (LoRA+); 1 is plain LoRA, 16 is usual.
        optimizer: Any torch optimiser by its class path.
        rate: How the step sizes go over the run.
        loss: Which noise, which steps, how much each counts.
        prediction: What the base predicts; left out, it is asked, and given, it must agree.
        ema: Decay of a running average of the weights that is measured and written instead of them; 0 is none, 0.99 is usual.
        gradient_checkpointing: What is computed again in the backward pass, for less memory: ``wide`` layers (for a third less of what it
            needs, and 5 to 10 % more time), all if true (three quarters less, half as much time again), none if false.
        seed: Seed of noise and time steps.

    Raises:
        UnusableFileError: In ``configure_model``, if the base or the file to go on from cannot be used.
        SettingError: If a number is outside its range; in ``configure_model``, if the base's schedule or prediction, the
            targets or the trainer's precision cannot be used; in a step, if the batch lacks something, or if one photo
            by itself takes more memory than there is.
        NumericsError: In a step, if the loss is NaN and fp32 does not help.

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
        prediction: Prediction | None = None,
        ema: float = 0.0,
        gradient_checkpointing: Checkpointing = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require({
            "learning_rate must be above 0; 1e-3 to 1e-4 are usual": (0 < learning_rate < math.inf, learning_rate),
            "text_learning_rate must be 0 or above; 0 trains none": (0 <= text_learning_rate < math.inf, text_learning_rate),
            "up_ratio must be above 0; 1 is plain LoRA": (0 < up_ratio < math.inf, up_ratio),
            "ema must be from 0 to below 1; 0 is none, 0.99 is usual": (0 <= ema < 1, ema),
        })  # fmt: skip
        self.base, self.shape, self.seed = base, shape, seed
        self.learning_rate, self.text_learning_rate = learning_rate, text_learning_rate
        self.start, self.up_ratio, self.optimizer, self.rate, self.loss = start, up_ratio, optimizer, rate, loss
        self.prediction, self.gradient_checkpointing = prediction, gradient_checkpointing
        self.base_hash = ""
        self.kind: Target = "epsilon"
        self.family: Literal["sd1", "sd2", "sdxl"] = "sd1"
        self.endurance = Endurance()
        self.average = WeightAverage(ema) if ema else None
        self.trained: dict[str, nn.Parameter] = {}
        """The weights that are trained, by name."""
        self.unet: UNet2DConditionModel | None = None
        self.text_encoder: CLIPTextModel | None = None
        self.text_encoder_2: CLIPTextModelWithProjection | None = None
        self.strict_loading = False

    @property
    def micro_batches(self) -> int:
        """Parts that a batch is computed in; the result is the same."""
        return self.endurance.micro_batches

    @micro_batches.setter
    def micro_batches(self, count: int) -> None:
        self.endurance.micro_batches = count

    @property
    def repairs(self) -> list[Repair]:
        """What went wrong and was put right, in order."""
        return self.endurance.repairs

    @property
    def networks(self) -> dict[NetworkKind, nn.Module]:
        """The networks that layers are on."""
        every: dict[NetworkKind, nn.Module | None] = {
            "unet": self.unet, "text_encoder": self.text_encoder, "text_encoder_2": self.text_encoder_2
        }  # fmt: skip
        return {kind: network for kind, network in every.items() if network is not None}

    @override
    def configure_model(self) -> None:
        """Load the base and put the layers on, once."""
        if self.unet is not None:
            return
        computed = None if self._trainer is None else computed_in(str(self.trainer.precision))
        frozen = load_frozen(self.base, with_text=self.text_learning_rate > 0, prediction=self.prediction)
        self.base_hash, self.kind, self.family, self._pixels = frozen.fingerprint, frozen.kind, frozen.family, frozen.pixels
        for name, values in (("alpha", frozen.alpha), ("sigma", frozen.sigma)):
            self.register_buffer(name, values.to(self.device), persistent=False)
        self.unet = frozen.unet.to(self.device, memory_format=layout_for(self.device, computed))
        for name, encoder in zip(("text_encoder", "text_encoder_2"), frozen.encoders, strict=False):
            setattr(self, name, encoder.to(self.device))
        self._conditions = Conditions(family=frozen.family, inpaints=frozen.inpaints, encoders=frozen.encoders)
        if start := LoraFile.read(self.start) if self.start is not None else None:
            start.check_base(self.base, self.base_hash)
        self.trained = put_lora_on(self.networks, self.shape, start)
        keep_less(self.unet, checkpointing=self.gradient_checkpointing)
        for network in self.networks.values():  # DoRA measures the frozen weights, in fp32
            store_as(network, torch.float32 if computed is None or self.shape.dora else computed)

    @override
    def forward(self, z: Tensor, t: Tensor, text: Tensor, added: dict[str, Tensor] | None = None) -> Tensor:
        """The network's answer for noised latents (B, C, h, w) at steps (B,)."""
        assert self.unet is not None
        answer: Tensor = self.unet(z, t, text, added_cond_kwargs=added, return_dict=False)[0]
        return answer

    @override
    def on_train_start(self) -> None:
        for optimizer in self.trainer.optimizers:
            if isinstance(optimizer, HasModes):
                optimizer.train()

    @override
    def training_step(self, batch: Batch, batch_idx: int = 0) -> Tensor:
        share, turn = Share(), 0
        if self._trainer is not None:
            share = Share(rank=self.trainer.global_rank, world=self.trainer.world_size)
            turn = batch_idx % self.trainer.accumulate_grad_batches
            if turn == 0:  # what was stepped with is not kept through this step
                self.zero_grad()
        names: tuple[str | int, ...] = ("noise", self.global_step, *([turn] if turn else []))
        generator = torch.Generator().manual_seed(seed_for(self.seed, *names))
        rows = Rows.drawn(batch, self.loss, (self.alpha, self.sigma), generator, share)
        task = self._task()
        with seeded_dropout(self.shape.dropout, seed_for(self.seed, "dropout", *names, share.rank), self.device):
            value, gradient = self.endurance.gradient(rows, task)
        loss = carried(value, gradient, task.weights, task.scale)
        self.log("train/loss", loss)
        return loss

    def _task(self) -> Task:
        """What this step computes."""
        scale, scaled = gradient_scale(self._trainer, self.device)
        precision = "32-true" if self._trainer is None else self.trainer.precision
        return Task(
            losses=self._losses, networks=self.networks, weights=list(self.trained.values()), scale=scale, scaled=scaled,
            step=self.global_step, learning_rate=self.learning_rate, pixels=self._pixels,
            settings=f"precision {precision}, gradient checkpointing {str(self.gradient_checkpointing).lower()}",
        )  # fmt: skip

    def _losses(self, rows: Rows) -> Tensor:
        """The loss of each row, (B,)."""
        target = self._target(rows)
        answer = self(*self._conditions.inputs(rows)).float()
        error = weighted_mean(self.loss.error(answer - target), rows.given.get("weight"))
        return error * self.loss.weight(rows.snr, self.kind) * self.loss.share(rows.given.get("regular"))

    def _target(self, rows: Rows) -> Tensor:
        """What the network should answer, (B, C, h, w): for regularisation images perhaps what it answers without the LoRA."""
        target = target_of(self.kind, rows.x, rows.eps, rows.alpha, rows.sigma)
        regular = rows.given.get("regular")
        if self.loss.prior == "base" and regular is not None and bool(regular.any()):
            with torch.no_grad(), without_lora(self.networks.values()):
                answer = self(*self._conditions.inputs(rows[regular])).float()
            target = target.index_put((regular,), answer)
        return target

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss on photos that were kept back, always with the same noise at the same steps: a number that can be compared."""
        losses, x = [], batch["mean"].float()
        for draw in range(VALIDATION_DRAWS):
            generator = torch.Generator().manual_seed(seed_for(self.seed, "validation", batch_idx, draw))
            t = self.loss.times(len(x), len(self.alpha), generator).to(x.device)
            eps = torch.randn(x.shape, generator=generator).to(x)
            rows = Rows.of(batch, (x, t, eps, eps), self.alpha, self.sigma)
            with self._shown():
                losses.append(self.endurance.losses(rows, self._task()))
        self.log("val/loss", torch.cat(losses).mean(), batch_size=len(x))

    def _shown(self) -> AbstractContextManager[None]:
        """The weights as they are measured and written."""
        return shown(self.trained, self.average, () if self._trainer is None else self.trainer.optimizers)

    @override
    def configure_optimizers(self) -> Any:
        rates = {kind: self.learning_rate if kind == "unet" else self.text_learning_rate for kind in self.networks}
        optimizer = self.optimizer(groups(self.networks, rates, up_ratio=self.up_ratio))
        total = int(self.trainer.estimated_stepping_batches)
        course = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate.factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": course, "interval": "step"}}

    @override
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.follow(self.trained)

    @override
    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # torch has two overloads, both pass here
        """Only what is trained; the base is loaded again from its own files."""
        return {key: value for key, value in super().state_dict(*args, **kwargs).items() if "lora_" in key}

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["endurance"] = self.endurance.state()
        if self.average is not None:
            checkpoint["average"] = self.average.state()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on as before.

        Raises:
            SettingError: If the weights are to be averaged and were not.
        """
        if "endurance" in checkpoint:
            self.endurance.restore(checkpoint["endurance"], self.networks)
        if self.average is not None:
            if "average" not in checkpoint:
                raise SettingError(f"a run must be resumed as it was begun, ema was 0 and is {self.average.decay}; leave --model.ema out")
            self.average.restore(checkpoint["average"])

    def layers(self) -> dict[NetworkKind, dict[str, Update]]:
        """What has been learned so far, by network and module path; empty for text encoders that are not trained."""
        with self._shown():
            found = {kind: trained_layers(network) for kind, network in self.networks.items()}
        return {kind: found.get(kind, {}) for kind in get_args(NetworkKind)}
