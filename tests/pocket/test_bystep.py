from __future__ import annotations

from itertools import islice

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from synthaug.pocket.bystep import ByStep
from synthaug.pocket.optimizers import MuonAndAdamW


def some_batch(rng):
    return torch.from_numpy(rng.standard_normal((4, 20)).astype("float32"))


class Small(LightningModule):
    """Learns to answer its input, and remembers what it saw."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 20))
        self.seen = []

    def training_step(self, batch):
        self.seen.append(float(batch.sum()))
        return (self.net(batch) - batch).square().mean()

    def validation_step(self, batch):
        """Nothing to measure."""

    def configure_optimizers(self):
        return MuonAndAdamW(self.named_parameters(), lr=1e-2, small_lr=1e-3)


def train(folder, steps, *, resume=None):
    module = Small()
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, every_n_train_steps=3, save_last=True, save_top_k=0)], limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=ByStep(some_batch, seed=1, held_out=torch.zeros(1, 20)), ckpt_path=resume, weights_only=False)
    return module


def test_a_run_that_was_stopped_and_resumed_sees_the_same_batches_and_ends_with_the_same_weights(tmp_path):
    whole = train(tmp_path / "whole", 7)
    first = train(tmp_path / "stopped", 3)

    rest = train(tmp_path / "stopped", 7, resume=tmp_path / "stopped" / "last.ckpt")

    assert first.seen + rest.seen == whole.seen
    assert all(torch.equal(a, b) for a, b in zip(rest.parameters(), whole.parameters(), strict=True))


def test_batches_are_a_function_of_seed_and_step():
    def take(seed):
        return list(islice(ByStep(some_batch, seed=seed, held_out=None).train_dataloader(), 3))

    assert all(torch.equal(a, b) for a, b in zip(take(1), take(1), strict=True))
    assert not torch.equal(take(1)[0], take(1)[1])
    assert not torch.equal(take(1)[0], take(2)[0])


def test_there_is_one_batch_to_validate_with():
    held_out = torch.arange(6.0)

    batches = list(ByStep(some_batch, seed=1, held_out=held_out).val_dataloader())

    assert len(batches) == 1
    assert torch.equal(batches[0], held_out)
