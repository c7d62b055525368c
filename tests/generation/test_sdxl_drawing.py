"""SDXL and SD 2.x drawn with: diffusers' own pipelines on the same random weights stand beside us."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from conftest import make_tiny_base, tiny_schedule, tiny_text, tiny_vae
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from synthaug import Request, Sampler
from synthaug.errors import UnusableFileError
from synthaug.generation.networks import Networks
from synthaug.generation.schedulers import make_scheduler
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import LoraLayer, target_paths
from synthaug.models.load import load_base
from synthaug.records import LoraUse

KINDS = ("unet", "text_encoder", "text_encoder_2")


def request(**fields):
    return Request(**{"prompt": "a photo of a fish", "seed": 3, "steps": 6, "guidance": 5.0, "size": (32, 40), **fields})


def theirs(pipe, wanted, *, negative):
    """The picture that diffusers draws of a request, uint8 (3, H, W)."""
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make_scheduler(wanted.sampler, pipe.scheduler.config)
    height, width = wanted.size
    picture = pipe(
        prompt=wanted.prompt, negative_prompt=negative, num_inference_steps=wanted.steps, guidance_scale=wanted.guidance, height=height,
        width=width, generator=torch.Generator().manual_seed(wanted.seed), output_type="pt",
    ).images[0]  # fmt: skip
    return (picture * 255).round().to(torch.uint8)


def apart(a, b):
    return int((a.int() - b.int()).abs().max())


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl_base):
    return Sampler(str(tiny_sdxl_base))


@pytest.mark.parametrize(("negative", "sampler"), [("a screw", "DDIM"), ("", "DDIM"), ("a screw", "Euler")])
def test_sdxl_draws_what_diffusers_draws(sdxl, tiny_sdxl_base, negative, sampler):
    wanted = request(negative_prompt=negative, sampler=sampler)
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl_base, add_watermarker=False)

    assert apart(sdxl([wanted])[0], theirs(pipe, wanted, negative=negative or None)) <= 2


def test_a_base_says_whether_an_empty_negative_prompt_is_zeros(sdxl, tiny_sdxl_base, tmp_path):
    shutil.copytree(tiny_sdxl_base, tmp_path / "asks")
    index = tmp_path / "asks" / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "force_zeros_for_empty_prompt": False}))
    pipe = StableDiffusionXLPipeline.from_pretrained(tmp_path / "asks", add_watermarker=False)

    picture = Sampler(str(tmp_path / "asks"))([request(sampler="DDIM")])[0]

    assert apart(picture, theirs(pipe, request(sampler="DDIM"), negative=None)) <= 2
    assert apart(picture, sdxl([request(sampler="DDIM")])[0]) > 2


def test_a_picture_of_sdxl_depends_on_its_request_alone(sdxl):
    wanted = [request(), request(seed=4, negative_prompt="a screw"), request(seed=5, prompt="fish " * 80, guidance=1.0)]

    together = sdxl(wanted)

    assert max(apart(picture, sdxl([one])[0]) for picture, one in zip(together, wanted, strict=True)) <= 1


def test_a_lora_of_sdxl_is_drawn_with_on_unet_and_both_encoders(sdxl, tiny_sdxl_base, tmp_path):
    base = load_base(str(tiny_sdxl_base))
    torch.manual_seed(1)
    layers = {}
    for kind in KINDS:
        network = getattr(base, kind)
        layers[kind] = {path: random_layer(network.get_submodule(path)) for path in target_paths(network, "transformer")}
    LoraFile.of(layers["unet"], layers["text_encoder"], {}, text_encoder_2=layers["text_encoder_2"]).write(tmp_path / "xl.safetensors")
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl_base, add_watermarker=False)
    for kind, strength in (("unet", 0.8), ("text_encoder", 0.3), ("text_encoder_2", 0.3)):
        for path, layer in layers[kind].items():
            down, up = layer.down.half().float(), layer.up.half().float()
            getattr(pipe, kind).get_submodule(path).weight.data += strength * layer.alpha / layer.rank * up @ down
    wanted = request(sampler="DDIM", negative_prompt="a screw")
    on = LoraUse(path=str(tmp_path / "xl.safetensors"), weight=0.8, text_weight=0.3)

    worn = sdxl([Request(**{**vars(wanted), "loras": (on,)})])[0]

    assert apart(worn, theirs(pipe, wanted, negative="a screw")) <= 2
    assert apart(worn, sdxl([wanted])[0]) > 5, "the LoRA must show, or the test shows nothing"


def random_layer(module):
    out, inner = module.weight.shape
    return LoraLayer(down=0.3 * torch.randn(2, inner), up=torch.randn(out, 2), alpha=1.0)


def test_sdxls_own_autoencoder_stays_in_fp32_where_the_rest_is_in_half_precision(tiny_sdxl_base, tiny_base):
    here = {base: Networks(str(base), device=torch.device("cpu"), precision="fp16") for base in (tiny_sdxl_base, tiny_base)}

    assert [networks.vae.dtype for networks in here.values()] == [torch.float32, torch.float16]
    assert here[tiny_sdxl_base].unet.dtype == torch.float16


def test_sd2_that_predicts_v_draws_what_diffusers_draws(tiny_base, tmp_path):
    tokenizer = CLIPTokenizer.from_pretrained(tiny_base, subfolder="tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(tiny_base / "tokenizer", pad_token=tokenizer.convert_ids_to_tokens(0))
    torch.manual_seed(6)
    unet = UNet2DConditionModel(
        sample_size=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, use_linear_projection=True, upcast_attention=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=24, attention_head_dim=(1, 2),
    )  # fmt: skip
    schedule = tiny_schedule()
    schedule.register_to_config(prediction_type="v_prediction")
    text = CLIPTextModel(tiny_text(tokenizer, hidden_size=24, hidden_act="gelu", num_hidden_layers=2))
    StableDiffusionPipeline(
        vae=tiny_vae(), text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=schedule, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(tmp_path / "sd2")  # fmt: skip
    wanted = request(sampler="DDIM", negative_prompt="a screw")
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "sd2", safety_checker=None)

    sampler = Sampler(str(tmp_path / "sd2"))

    assert sampler.base.family == "sd2"
    assert apart(sampler([wanted])[0], theirs(pipe, wanted, negative="a screw")) <= 2


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_base_with_a_weight_that_is_nan_is_refused_before_it_draws(tmp_path, part):
    make_tiny_base(tmp_path / "folder", seed=5)
    base = load_base(str(tmp_path / "folder"))
    name, weight = list(getattr(base, part).named_parameters())[-1]
    weight.data.view(-1)[3] = float("nan")
    getattr(base, part).save_pretrained(tmp_path / "folder" / part)

    with pytest.raises(UnusableFileError, match=rf"weights must be finite, .*folder has NaN or infinity in {part}.{name}; download"):
        Sampler(str(tmp_path / "folder"))([request()])
