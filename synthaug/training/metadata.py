"""What a LoRA file says about itself.

Keys and spellings are those of kohya-ss/sd-scripts (values are ``str()`` of Python values), so that
A1111, Forge and SD.Next show them; ``synthaug.*`` adds what drawing and evaluation need.
Model spec: https://github.com/Stability-AI/ModelSpec.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from synthaug.lora.file import FORMAT, SeenPhoto
from synthaug.lora.layers import LoraLayer
from synthaug.lora.naming import NetworkKind
from synthaug.lora.updates import Decomposed, Update
from synthaug.training.lora_training import LoraTraining
from synthaug.training.photo_data import PhotoData

__all__ = ["base_names", "metadata_of"]


def metadata_of(
    trainer: Trainer,
    module: LoraTraining,
    data: PhotoData,
    layers: Mapping[NetworkKind, Mapping[str, Update]],
    *,
    name: str,
    started: float,
    measured: tuple[int, float] | None = None,
) -> dict[str, str]:
    """All metadata except the hashes of the tensors, which the file adds itself.

    Args:
        trainer: In the middle of its work, or after it.
        module: What is trained.
        data: The photos.
        layers: What the file will hold, by network and module path.
        name: Of the LoRA.
        started: When the run began, in seconds since 1970.
        measured: Step and loss on what was kept back, where it was measured.
    """
    finished = time.time()
    kohya = {
        "output_name": name, "training_started_at": started, "training_finished_at": finished, **_base(module), **_network(module, layers),
        **_optimiser(trainer, module, data), **_noise(module), **_pictures(data),
    }  # fmt: skip
    return {
        **{f"ss_{key}": str(value) for key, value in kohya.items()},
        **{f"modelspec.{key}": str(value) for key, value in _spec(module, data, name, finished).items()},
        **{f"synthaug.{key}": str(value) for key, value in _ours(module, data, measured).items()},
    }


def base_names(family: str, prediction: str) -> tuple[str, str]:
    """What kohya's files and the model spec call a kind of base.

    Example:
        >>> base_names("sd2", "v_prediction")
        ('sd_v2_v', 'stable-diffusion-v2-768-v')
    """
    if family == "sdxl":
        return "sdxl_base_v1-0", "stable-diffusion-xl-v1-base"
    if family == "sd1":
        return "sd_v1", "stable-diffusion-v1"
    return ("sd_v2_v", "stable-diffusion-v2-768-v") if prediction == "v_prediction" else ("sd_v2", "stable-diffusion-v2-512")


def _base(module: LoraTraining) -> dict[str, object]:
    return {
        "sd_model_name": module.base, "new_sd_model_hash": module.base_hash, "v2": module.family == "sd2",
        "base_model_version": base_names(module.family, module.kind)[0], "clip_skip": None, "max_token_length": None,
        "zero_terminal_snr": float(module.alpha[-1]) == 0,
    }  # fmt: skip


def _network(module: LoraTraining, layers: Mapping[NetworkKind, Mapping[str, Update]]) -> dict[str, object]:
    """Rank and alpha as most layers have them, and those of every part as kohya's network arguments."""
    shape, every = module.shape, [layer for found in layers.values() for layer in found.values()]
    dim, alpha = shape.rank, shape.alpha
    if module.start is not None:  # the file that was gone on from decided
        plain = [layer.direction if isinstance(layer, Decomposed) else layer for layer in every]
        dim, alpha = Counter((layer.rank, layer.alpha) for layer in plain if isinstance(layer, LoraLayer)).most_common(1)[0][0]
    parts = {part: {"dim": size.rank, "alpha": size.alpha} for part, size in shape.parts.items()}
    arguments = {
        "targets": shape.targets, "conv_dim": shape.conv_rank, "conv_alpha": shape.conv_alpha, "dora_wd": shape.dora,
        "loraplus_lr_ratio": module.up_ratio, **({"parts": parts} if parts else {}),
    }  # fmt: skip
    return {
        "network_module": "networks.lora", "network_dim": dim, "network_alpha": alpha,
        "network_args": json.dumps(arguments), "network_dropout": shape.dropout or None,
    }  # fmt: skip


def _optimiser(trainer: Trainer, module: LoraTraining, data: PhotoData) -> dict[str, object]:
    kind = type(trainer.optimizers[0])
    together = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
    return {
        "learning_rate": module.learning_rate, "unet_lr": module.learning_rate, "text_encoder_lr": module.text_learning_rate or None,
        "optimizer": f"{kind.__module__}.{kind.__qualname__}", "lr_scheduler": module.rate.course, "lr_warmup_steps": module.rate.warm_up,
        "max_grad_norm": trainer.gradient_clip_val, "mixed_precision": trainer.precision, "seed": module.seed,
        "gradient_checkpointing": module.gradient_checkpointing is True, "gradient_accumulation_steps": trainer.accumulate_grad_batches,
        "batch_size_per_device": data.batch_size, "total_batch_size": together, "steps": trainer.global_step,
        "max_train_steps": trainer.max_steps,
    }  # fmt: skip


def _noise(module: LoraTraining) -> dict[str, object]:
    loss = module.loss
    return {
        "min_snr_gamma": None if loss.debiased else loss.snr_gamma or None, "debiased_estimation": loss.debiased,
        "noise_offset": loss.noise_offset or None, "ip_noise_gamma": loss.input_perturbation or None,
        "multires_noise_discount": loss.multires_noise or None, "loss_type": "huber" if loss.huber else "l2",
        "prior_loss_weight": loss.prior_weight,
    }  # fmt: skip


def _pictures(data: PhotoData) -> dict[str, object]:
    """Folders with their repeats, tags, sizes and what was kept back, as sd-scripts counts them."""
    assert data.found is not None
    assert data.size is not None
    photos, facts = data.found.photos, data.facts()
    repeats = data.found.repeats or (1,) * len(photos)
    folders: dict[str, dict[str, int]] = {}
    tags: dict[str, Counter[str]] = {}
    for photo, times, caption in zip(photos, repeats, data.captions, strict=True):
        folder = folders.setdefault(photo.path.parent.name, {"n_repeats": times, "img_count": 0})
        folder["img_count"] += 1
        counts = tags.setdefault(photo.path.parent.name, Counter())
        counts.update(tag.strip().lower() for tag in caption.split(",") if tag.strip())
    buckets = {str(at): {"resolution": [size[1], size[0]], "count": count} for at, (size, count) in enumerate(facts.buckets)}
    others = Path(data.regular).name if data.regular else "regular"
    regular = {others: {"n_repeats": 1, "img_count": facts.regular}} if facts.regular else {}
    return {
        "num_train_images": sum(repeats), "num_reg_images": facts.regular, "num_validation_images": facts.held_out,
        "validation_seed": data.seed if facts.held_out else None, "resolution": f"({data.size[1]}, {data.size[0]})",
        "dataset_dirs": json.dumps(folders), "reg_dataset_dirs": json.dumps(regular),
        "tag_frequency": json.dumps(tags, ensure_ascii=False), "enable_bucket": len(buckets) > 1,
        "bucket_info": json.dumps({"buckets": buckets}), "flip_aug": data.views.flip, "color_aug": False, "random_crop": False,
        "caption_dropout_rate": data.caption_dropout, "cache_latents": True,
    }  # fmt: skip


def _spec(module: LoraTraining, data: PhotoData, name: str, finished: float) -> dict[str, object]:
    assert data.size is not None
    return {
        "sai_model_spec": "1.0.1", "architecture": f"{base_names(module.family, module.kind)[1]}/lora",
        "implementation": "https://github.com/Stability-AI/generative-models" if module.family == "sdxl" else "diffusers", "title": name,
        "date": datetime.fromtimestamp(finished, UTC).strftime("%Y-%m-%dT%H:%M:%S"), "resolution": f"{data.size[1]}x{data.size[0]}",
        "prediction_type": "v" if module.kind == "v_prediction" else "epsilon", "trigger_phrase": _common(data),
    }  # fmt: skip


def _ours(module: LoraTraining, data: PhotoData, measured: tuple[int, float] | None) -> dict[str, object]:
    assert data.found is not None
    assert data.size is not None
    facts = data.facts()
    photos = data.found.photos if data.regular_count else data.seen  # what the base drew is no photo
    seen = [asdict(SeenPhoto(sha256=photo.sha256, group=photo.group)) for photo in photos]
    more: dict[str, Any] = {}
    if measured is not None:
        kept_back = {"photos": facts.held_out, "views_of_each": facts.held_out_views}
        more["validation"] = json.dumps({"step": measured[0], "loss": round(measured[1], 6), **kept_back})
    if module.average is not None:
        more["ema"] = module.average.decay
    if facts.regular:
        more["prior"] = json.dumps({"images": facts.regular, "weight": module.loss.prior_weight, "target": module.loss.prior})
    return {
        "format": FORMAT, "version": version("synthaug"), "base": module.base, "base_hash": module.base_hash, "caption": _common(data),
        "size": f"{data.size[0]}x{data.size[1]}", "photos": json.dumps(seen), **more,
    }  # fmt: skip


def _common(data: PhotoData) -> str:
    """The caption that at least half of the photos were trained with, or else the tags that at least half of the captions have."""
    caption, most = Counter(data.captions).most_common(1)[0]
    if 2 * most >= len(data.captions):
        return caption
    tags = [[tag for part in text.split(",") if (tag := part.strip())] for text in data.captions]
    counts = Counter(tag for of in tags for tag in dict.fromkeys(of))
    return ", ".join(tag for tag, count in counts.items() if 2 * count >= len(tags)) or caption
