"""Small stand-ins for the real thing: a Stable Diffusion base of a few thousand weights, a LoRA on it, photos."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is there: threads on tiny networks take twice the processor time of one

import numpy as np
import pytest
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from synthaug.lora import LoraFile


def pytest_collection_finish() -> None:
    """Take what the libraries made out of all later garbage collections: a full one takes a quarter of a second otherwise."""
    gc.collect()
    gc.freeze()


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
def tiny_sdxl_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder as SDXL's: two text encoders, and a UNet that is told sizes."""
    folder = tmp_path_factory.mktemp("base") / "sdxl"
    make_tiny_sdxl_base(folder, seed=2)
    return folder


@pytest.fixture(scope="session")
def tiny_inpaint_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with a UNet that is shown a mask and the masked photo."""
    folder = tmp_path_factory.mktemp("base") / "inpaint"
    make_tiny_base(folder, seed=3, in_channels=9)
    return folder


@pytest.fixture(scope="session")
def tiny_lora(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA for the tiny base that changes what it draws and has seen three photos."""
    path = tmp_path_factory.mktemp("lora") / "iriko.safetensors"
    make_tiny_lora(tiny_base).write(path)
    return path


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders that are nobody's yet and are made by whoever writes to them."""
    place = tmp_path_factory.mktemp("caches")
    return (place / str(number) for number in count())


@pytest.fixture(autouse=True)
def cache_of_its_own(caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder is another one for every test."""
    folder = next(caches)
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


def make_tiny_base(folder: Path, *, seed: int, in_channels: int = 4) -> None:
    """Write the base."""
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    from synthaug.pocket.words import train_tokenizer

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(["a photo of a fish on white paper", "a screw"], folder.parent / f"words-{seed}")
    unet = UNet2DConditionModel(
        sample_size=4, in_channels=in_channels, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=tiny_vae(), text_encoder=CLIPTextModel(tiny_text(tokenizer)), tokenizer=tokenizer, unet=unet, scheduler=tiny_schedule(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def make_tiny_sdxl_base(folder: Path, *, seed: int) -> None:
    """Write a base with SDXL's parts; the second tokenizer fills up with word 0."""
    import torch
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    from synthaug.pocket.words import train_tokenizer

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(["a photo of a fish on white paper", "a screw"], folder.parent / f"words-{seed}")
    tokenizer_2 = CLIPTokenizer.from_pretrained(folder.parent / f"words-{seed}", pad_token=tokenizer.convert_ids_to_tokens(0))
    unet = UNet2DConditionModel(
        sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16 + 24, attention_head_dim=(1, 2), use_linear_projection=True, transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=12 + 6 * 8,
    )  # fmt: skip
    second = tiny_text(tokenizer_2, hidden_size=24, projection_dim=12, hidden_act="gelu", num_hidden_layers=3)
    StableDiffusionXLPipeline(
        vae=tiny_vae(scaling_factor=0.13025), text_encoder=CLIPTextModel(tiny_text(tokenizer, num_hidden_layers=2)), tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(second), tokenizer_2=tokenizer_2, unet=unet, scheduler=tiny_schedule(),
    ).save_pretrained(folder)  # fmt: skip


def tiny_vae(**settings: Any) -> Any:
    """An autoencoder of one eighth the size."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8), norm_num_groups=2, latent_channels=4, layers_per_block=1, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **settings,
    )  # fmt: skip


def tiny_text(tokenizer: Any, **settings: Any) -> Any:
    """Settings of a text encoder that knows the tokenizer's words."""
    from transformers import CLIPTextConfig

    usual = {
        "hidden_size": 16, "intermediate_size": 32, "projection_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    }  # fmt: skip
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return CLIPTextConfig(vocab_size=len(tokenizer), **{**usual, **settings}, **ids)


def tiny_schedule() -> Any:
    """Stable Diffusion's own."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )


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
