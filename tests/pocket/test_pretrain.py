from __future__ import annotations

import sys

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from synthaug.errors import UnusableFileError
from synthaug.models.load import load_base
from synthaug.pocket.pretrain import main, require_same_shapes


class Small(LightningModule):
    def __init__(self, width: int, *, extra: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(3, width)
        if extra:
            self.more = nn.Linear(2, 2)


@pytest.fixture
def checkpoint(tmp_path):
    """A run with four channels."""
    torch.save({"state_dict": Small(4).state_dict()}, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_weights_of_the_same_shapes_are_taken(checkpoint):
    assert set(require_same_shapes(Small(4), checkpoint)) == {"layer.weight", "layer.bias"}


def test_weights_of_another_shape_are_refused_by_name(checkpoint):
    with pytest.raises(UnusableFileError, match=r"last.ckpt has layer.bias \(4,\) where the network has \(5,\); take --folder"):
        require_same_shapes(Small(5), checkpoint)


def test_a_weight_that_is_not_there_is_named(checkpoint):
    with pytest.raises(UnusableFileError, match=r"has more.bias not at all where the network has \(2,\)"):
        require_same_shapes(Small(4, extra=True), checkpoint)


@pytest.fixture
def small_sets(monkeypatch):
    """Sixty pictures to a part, sixteen kept back."""
    for module in ("pictures", "pretrain"):
        monkeypatch.setattr(f"synthaug.pocket.{module}.PART", 60)
    for module in ("denoiser", "autoencoder"):
        monkeypatch.setattr(f"synthaug.pocket.{module}.KEPT_BACK", 16)


def pretrain(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["pretrain", *map(str, options)])
    main()


@pytest.mark.slow
@pytest.mark.usefixtures("small_sets")
def test_pretraining_goes_from_nothing_to_a_base_and_on_from_where_it_stopped(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    common = ("--folder", folder, "--pictures", 120, "--batch-size", 4, "--decoder-steps", 2, "--out", tmp_path / "base")

    pretrain(monkeypatch, *common, "--steps", 2)
    first = load_base(str(tmp_path / "base"))
    pretrain(monkeypatch, *common, "--steps", 4, "--stages", "denoiser", "export")
    second = load_base(str(tmp_path / "base"))

    assert first.prediction_type == "v_prediction"
    assert first.schedule["rescale_betas_zero_snr"]
    assert first.fingerprint != second.fingerprint
    assert torch.load(folder / "denoiser" / "last.ckpt", weights_only=False)["global_step"] == 4
    pretrain(monkeypatch, "--folder", folder, "--pictures", 120, "--batch-size", 4, "--steps", 4, "--stages", "denoiser")
    assert torch.load(folder / "denoiser" / "last.ckpt", weights_only=False)["global_step"] == 4


@pytest.mark.slow
@pytest.mark.usefixtures("small_sets")
def test_going_on_from_other_networks_ends_in_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "denoiser").mkdir()
    torch.save({"state_dict": Small(4).state_dict()}, tmp_path / "denoiser" / "last.ckpt")

    with pytest.raises(SystemExit, match="error: to go on, a checkpoint must be of the same networks"):
        pretrain(monkeypatch, "--folder", tmp_path, "--pictures", 60, "--stages", "denoiser")
