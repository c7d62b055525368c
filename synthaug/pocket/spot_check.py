"""One minute of evaluation: the shipped weights on a few renders, the same figures every time.

The full evaluation asks a judge and real photos; this part asks only whether the weights are as good as
the committed figures say, so that no change to the library spoils them unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from synthaug.diffusion.objective import noised, target_of
from synthaug.models.load import Base, load_base
from synthaug.pixels import to_float
from synthaug.pocket.autoencoder import psnr
from synthaug.pocket.captions import caption_of
from synthaug.pocket.likeness import tone_differences
from synthaug.pocket.networks import KIND, SCHEDULE
from synthaug.pocket.scenes import random_scene, render
from synthaug.seeds import seed_for

__all__ = ["FIGURES", "spot_check"]

FIGURES = Path(__file__).parent / "figures.json"
"""The figures of the shipped weights, written by ``python -m synthaug.pocket.evaluate``."""

STEPS = (100, 300, 500, 700, 900)
"""Time steps at which the denoiser is asked."""


@torch.inference_mode()
def spot_check(draw: Callable[[list[str]], Tensor], *, count: int = 48) -> dict[str, float]:
    """Figures by name.

    Args:
        draw: One image for each prompt, uint8 (N, 3, H, W).
        count: Renders to compare with; no training picture has their seeds.
    """
    seeds = [seed_for(0, "spot check", row) for row in range(count)]
    scenes = [random_scene(seed) for seed in seeds]
    pixels = torch.stack([torch.tensor(render(scene, seed).pixels).permute(2, 0, 1) for scene, seed in zip(scenes, seeds, strict=True)])
    captions = [caption_of(scene, 0) for scene in scenes]
    base = load_base("pocket").to("cpu", torch.float32)
    assert base.vae is not None
    x = to_float(pixels)
    latents = base.vae.encode(x).latent_dist.mean
    found = {"autoencoder on renders, PSNR in dB": float(psnr(base.vae.decode(latents).sample, x).mean())}
    for name, texts in (("its own", captions), ("another picture's", captions[1:] + captions[:1])):
        found[f"error of the prediction with {name} caption"] = _error(base, latents, texts)
    drawn = draw(captions[: count // 2])
    return {**found, **tone_differences(drawn, pixels[: count // 2])}


def _error(base: Base, latents: Tensor, captions: list[str]) -> float:
    """Mean square error of what the denoiser predicts, at fixed steps and noise."""
    assert base.unet is not None
    assert base.tokenizer is not None
    assert base.text_encoder is not None
    tokens = torch.tensor(base.tokenizer(captions, padding="max_length", max_length=77, truncation=True).input_ids)
    text = base.text_encoder(tokens)[0]
    alpha, sigma = SCHEDULE.scales()
    generator, errors = torch.Generator().manual_seed(0), []
    for step in STEPS:
        eps = torch.randn(latents.shape, generator=generator)
        t = torch.full((len(latents),), step)
        answer = base.unet(noised(latents, eps, alpha[t], sigma[t]), t, text, return_dict=False)[0]
        errors.append(F.mse_loss(answer, target_of(KIND, latents, eps, alpha[t], sigma[t])))
    return float(torch.stack(errors).mean())
