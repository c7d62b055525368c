"""Small stand-ins for the real thing: a Stable Diffusion base of a few thousand weights, a LoRA on it, photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from synthaug.lora import LoraFile


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with random weights that draws 32 x 32 pixels in milliseconds."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    make_tiny_base(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shapes with other weights."""
    folder = tmp_path_factory.mktemp("base") / "other"
    make_tiny_base(folder, seed=1)
    return folder


@pytest.fixture(scope="session")
def tiny_lora(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA for the tiny base that changes what it draws and has seen three photos."""
    path = tmp_path_factory.mktemp("lora") / "iriko.safetensors"
    make_tiny_lora(tiny_base).write(path)
    return path


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder is another one for every test."""
    folder = tmp_path_factory.mktemp("cache")
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(folder))
    return folder


@pytest.fixture
def photo_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of photos: a dark ellipse on bright paper, each a little different."""

    def make(count: int = 6, *, name: str = "photos", size: tuple[int, int] = (48, 64), suffix: str = ".jpg", seed: int = 0) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for index in range(count):
            make_photo(size, seed=seed * 1000 + index).save(folder / f"photo_{index:02d}{suffix}")
        return folder

    return make


def make_photo(size: tuple[int, int] = (48, 64), *, seed: int = 0) -> Image.Image:
    """A dark, slanted ellipse on bright, slightly noisy paper; size is (height, width)."""
    height, width = size
    rng = np.random.default_rng(seed)
    paper = Image.fromarray((235 + rng.normal(0, 3, (height, width, 3))).clip(0, 255).astype(np.uint8))
    left, top = rng.integers(width // 8, width // 4), rng.integers(height // 4, height // 3)
    box = (int(left), int(top), int(width * 0.8), int(height * 0.65))
    ImageDraw.Draw(paper).ellipse(box, fill=(int(rng.integers(60, 100)), 80, 95))
    return paper.rotate(float(rng.uniform(-20, 20)), fillcolor=(235, 235, 235))


def make_tiny_base(folder: Path, *, seed: int) -> None:
    """Write the base."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from synthaug.pocket.words import train_tokenizer

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(["a photo of a fish on white paper", "a screw"], folder.parent / f"words-{seed}")
    unet = UNet2DConditionModel(
        sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8), norm_num_groups=2, latent_channels=4, layers_per_block=1, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, projection_dim=16, num_hidden_layers=1,
            num_attention_heads=2, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    schedule = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=schedule, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def make_tiny_lora(base: Path, *, seed: int = 0, size: float = 0.5) -> LoraFile:
    """A LoRA with random layers, as if it had been trained on three photos."""
    import json

    import torch

    from synthaug.lora.file import LoraFile  # brings peft, which most tests do without
    from synthaug.lora.layers import put_on, trained_layers
    from synthaug.models.load import load_base

    loaded = load_base(str(base), parts=("unet",))
    assert loaded.unet is not None
    torch.manual_seed(seed)
    for weight in put_on(loaded.unet, rank=2, alpha=2.0):
        torch.nn.init.normal_(weight, std=size)
    photos = [{"sha256": f"{seed}{index}" * 16, "group": f"photo_{index}"} for index in range(3)]
    metadata = {
        "synthaug.base": str(base), "synthaug.base_hash": loaded.fingerprint, "synthaug.caption": "a photo of iriko",
        "synthaug.size": "32x32", "synthaug.photos": json.dumps(photos),
    }  # fmt: skip
    return LoraFile.of(trained_layers(loaded.unet), {}, metadata)
