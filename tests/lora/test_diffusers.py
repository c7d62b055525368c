"""Other people's programs read our files: diffusers stands for them."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline

from synthaug.generation import Plan, Sampler
from synthaug.generation.schedulers import make_scheduler
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import put_on, trained_layers
from synthaug.models.load import load_base


@pytest.fixture(scope="module")
def lora_on_both(tiny_base, tmp_path_factory):
    """A LoRA on the UNet, convolutions included, and on the text encoder, with alpha unlike rank."""
    base = load_base(str(tiny_base), parts=("unet", "text"))
    torch.manual_seed(7)
    for network in (base.unet, base.text_encoder):
        for weight in put_on(network, rank=2, alpha=3.0, targets="everything"):
            torch.nn.init.normal_(weight, std=0.2)
    metadata = {"synthaug.base": str(tiny_base), "synthaug.caption": "a photo of iriko", "synthaug.size": "32x32"}
    path = tmp_path_factory.mktemp("lora") / "both.safetensors"
    LoraFile.of(trained_layers(base.unet), trained_layers(base.text_encoder), metadata).write(path)
    return path


@pytest.mark.parametrize("sampler", ["DDIM", "DPM++ 2M", "Euler", "Euler a", "Heun", "UniPC"])
def test_diffusers_loads_the_file_and_draws_the_same_picture(lora_on_both, tiny_base, sampler):
    plan = Plan.for_lora(lora_on_both, count=2, steps=6, guidance=3.0, guidance_rescale=0.4, negative_prompt="a screw", sampler=sampler)
    request = plan[1]
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(lora_on_both)
    pipe.scheduler = make_scheduler(sampler, pipe.scheduler.config)

    ours = Sampler(str(tiny_base))(list(plan))[1]
    bare = Sampler(str(tiny_base))(list(Plan.for_lora(lora_on_both, weight=0.0, count=2, steps=6, sampler=sampler)))[1]
    theirs = pipe(
        prompt=request.prompt, negative_prompt=request.negative_prompt, num_inference_steps=request.steps,
        guidance_scale=request.guidance, guidance_rescale=0.4,
        height=32, width=32, generator=torch.Generator().manual_seed(request.seed), output_type="pt",
    ).images[0]  # fmt: skip

    assert ((theirs * 255).round().int() - ours.int()).abs().max() <= 2
    assert (bare.int() - ours.int()).abs().max() > 20, "the LoRA must show, or the test shows nothing"
