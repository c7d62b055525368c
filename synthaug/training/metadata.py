"""What a LoRA file says about itself.

Keys and spellings are those of kohya-ss/sd-scripts (values are ``str()`` of Python values), so that
A1111, Forge and SD.Next show them; ``synthaug.*`` adds what drawing and evaluation need.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from synthaug.lora.file import FORMAT, SeenPhoto
from synthaug.records import Photo
from synthaug.training.loss import Loss

__all__ = ["RunFacts", "metadata_of"]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Facts of a training run that its file carries."""

    name: str
    base: str
    base_hash: str
    prediction_type: str
    caption: str
    size: tuple[int, int]
    rank: int
    alpha: float
    targets: str
    conv_rank: int | None
    conv_alpha: float | None
    dora: bool
    up_ratio: float
    optimizer: str
    course: str
    warm_up: int
    dropout: float
    learning_rate: float
    text_learning_rate: float
    batch_size: int
    steps: int
    max_steps: int
    seed: int
    loss: Loss
    caption_dropout: float
    gradient_checkpointing: bool
    precision: str
    started: float
    finished: float


def metadata_of(facts: RunFacts, photos: tuple[Photo, ...]) -> dict[str, str]:
    """All metadata except the hashes of the tensors, which the file adds itself."""
    folder = photos[0].path.parent.name
    height, width = facts.size
    tags = Counter(tag.strip().lower() for photo in photos for tag in photo.caption.split(",") if tag.strip())
    kohya: dict[str, object] = {
        "output_name": facts.name, "sd_model_name": facts.base, "new_sd_model_hash": facts.base_hash,
        "v2": False, "base_model_version": "sd_v1", "clip_skip": None, "max_token_length": None,
        "network_module": "networks.lora", "network_dim": facts.rank, "network_alpha": facts.alpha,
        "network_args": json.dumps({"targets": facts.targets, "conv_dim": facts.conv_rank, "conv_alpha": facts.conv_alpha,
                                    "dora_wd": facts.dora, "loraplus_lr_ratio": facts.up_ratio}),
        "network_dropout": facts.dropout or None,
        "learning_rate": facts.learning_rate, "unet_lr": facts.learning_rate, "text_encoder_lr": facts.text_learning_rate or None,
        "optimizer": facts.optimizer, "lr_scheduler": facts.course, "lr_warmup_steps": facts.warm_up, "max_grad_norm": 1.0,
        "mixed_precision": facts.precision, "gradient_checkpointing": facts.gradient_checkpointing, "gradient_accumulation_steps": 1,
        "min_snr_gamma": None if facts.loss.debiased else facts.loss.snr_gamma or None, "debiased_estimation": facts.loss.debiased,
        "noise_offset": facts.loss.noise_offset or None, "ip_noise_gamma": facts.loss.input_perturbation or None,
        "multires_noise_discount": facts.loss.multires_noise or None, "caption_dropout_rate": facts.caption_dropout,
        "seed": facts.seed, "steps": facts.steps, "max_train_steps": facts.max_steps, "num_train_images": len(photos),
        "batch_size_per_device": facts.batch_size, "total_batch_size": facts.batch_size, "resolution": f"({width}, {height})",
        "dataset_dirs": json.dumps({folder: {"n_repeats": 1, "img_count": len(photos)}}),
        "tag_frequency": json.dumps({folder: dict(tags)}, ensure_ascii=False), "cache_latents": True,
        "training_started_at": facts.started, "training_finished_at": facts.finished,
    }  # fmt: skip
    spec = {
        "sai_model_spec": "1.0.1", "architecture": "stable-diffusion-v1/lora", "implementation": "diffusers", "title": facts.name,
        "date": datetime.fromtimestamp(facts.finished, UTC).strftime("%Y-%m-%dT%H:%M:%S"), "resolution": f"{width}x{height}",
        "prediction_type": "v" if facts.prediction_type == "v_prediction" else "epsilon", "trigger_phrase": facts.caption,
    }  # fmt: skip
    seen = [asdict(SeenPhoto(sha256=photo.sha256, group=photo.group)) for photo in photos]
    ours = {
        "format": FORMAT, "version": version("synthaug"), "base": facts.base, "base_hash": facts.base_hash,
        "caption": facts.caption, "size": f"{height}x{width}", "photos": json.dumps(seen),
    }  # fmt: skip
    return {
        **{f"ss_{key}": str(value) for key, value in kohya.items()},
        **{f"modelspec.{key}": value for key, value in spec.items()},
        **{f"synthaug.{key}": value for key, value in ours.items()},
    }
