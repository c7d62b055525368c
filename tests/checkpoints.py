"""Bases in memory that follow the published models in everything but size, so that their shapes say what they are."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_schedule, tiny_text
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from synthaug.models.base import Base, fingerprint
from synthaug.models.ldm import ldm_weights
from synthaug.pocket.words import train_tokenizer

FAMILIES = ("sd1", "sd2", "sdxl")
PLAIN = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
UNETS = {
    "sd1": {**PLAIN, "block_out_channels": (32, 64), "cross_attention_dim": 64, "attention_head_dim": 8},
    "sd2": {
        **PLAIN, "block_out_channels": (64, 128), "cross_attention_dim": 64, "attention_head_dim": (1, 2), "use_linear_projection": True,
        "upcast_attention": True,
    },
    "sdxl": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (64, 128), "cross_attention_dim": 128, "attention_head_dim": (1, 2), "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2), "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 32 + 6 * 8,
    },
}  # fmt: skip
SIDES = {"sd1": 512, "sd2": 768, "sdxl": 1024}


def shrunken(family: str, folder: Path, *, in_channels: int = 4, seed: int = 0) -> Base:
    """A base with random weights; its tokenizers are saved into the folder."""
    torch.manual_seed(seed)
    side = SIDES[family]
    unet = UNet2DConditionModel(sample_size=side // 2, in_channels=in_channels, layers_per_block=1, **UNETS[family])
    vae = AutoencoderKL(
        block_out_channels=(32, 64), latent_channels=4, layers_per_block=1, sample_size=side, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.13025 if family == "sdxl" else 0.18215,
    )  # fmt: skip
    tokenizer = train_tokenizer(["a photo of a fish on white paper", "a screw"], folder / "tokenizer")
    open_clip = CLIPTokenizer.from_pretrained(folder / "tokenizer", pad_token=tokenizer.convert_ids_to_tokens(0))
    wide = {"hidden_size": 64, "num_attention_heads": 1, "projection_dim": 64}
    if family == "sd2":
        tokenizer = open_clip
        text = CLIPTextModel(tiny_text(tokenizer, **wide, hidden_act="gelu", num_hidden_layers=2))
    else:
        text = CLIPTextModel(tiny_text(tokenizer, **wide, num_hidden_layers=2))
    base = Base(
        name=f"shrunken {family}", schedule=dict(tiny_schedule().config), size=(side, side), family=family, inpaints=in_channels == 9,
        unet=unet, vae=vae, text_encoder=text, tokenizer=tokenizer, fingerprint=fingerprint(unet),
    )  # fmt: skip
    if family == "sdxl":
        settings = {**wide, "projection_dim": 32, "hidden_act": "gelu", "num_hidden_layers": 2}
        base.text_encoder_2, base.tokenizer_2 = CLIPTextModelWithProjection(tiny_text(open_clip, **settings)), open_clip
    return base


def bare_file(base: Base, path: Path, *, drop: str = "-", **more: torch.Tensor) -> Path:
    """A checkpoint as other tools write it: weights alone; those that begin with ``drop`` are left out."""
    weights = {name: weight for name, weight in ldm_weights(base).items() if not name.startswith(drop)}
    save_file({**weights, **more}, path)
    return path


def networks(base: Base) -> dict[str, torch.nn.Module]:
    found = {"unet": base.unet, "vae": base.vae, "text_encoder": base.text_encoder, "text_encoder_2": base.text_encoder_2}
    return {name: network for name, network in found.items() if network is not None}


def assert_same_weights(ours: Base, theirs: Base) -> None:
    assert networks(ours).keys() == networks(theirs).keys()
    for name, network in networks(ours).items():
        wanted, found = network.state_dict(), networks(theirs)[name].state_dict()
        assert wanted.keys() == found.keys(), name
        assert [key for key in wanted if not torch.equal(wanted[key], found[key])] == [], name


def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach another machine is an error that nobody catches."""

    class ReachedOutError(BaseException):
        pass

    def refuse(*_: object, **__: object) -> None:
        raise ReachedOutError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def beside(folder: Path, base: Base, tmp_path: Path, name: str = "model.safetensors", **settings: Any) -> Path:
    """A bare file of a base, with its tokenizer beside it."""
    shutil.copytree(folder / "tokenizer", tmp_path / "tokenizer", dirs_exist_ok=True)
    return bare_file(base, tmp_path / name, **settings)


def make_tiny_decoder(folder: Path, *, channels: int = 4) -> Path:
    """A tiny autoencoder, small as can be."""
    torch.manual_seed(0)
    blocks = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    AutoencoderTiny(latent_channels=channels, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4, **blocks).save_pretrained(folder)
    return folder
