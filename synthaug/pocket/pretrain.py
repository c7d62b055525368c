"""Pretrain pocket from nothing: ``python -m synthaug.pocket.pretrain``.

Stages, each resumed where it stopped: pictures are rendered, words and the linear code are fitted,
the decoder is trained, the denoiser is trained with its text encoder, everything is exported as a
diffusers folder. Logs and checkpoints lie in the run's folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from transformers import CLIPTokenizer

from synthaug.errors import SynthaugError, UnusableFileError
from synthaug.pocket import WEIGHTS
from synthaug.pocket.autoencoder import CropBatches, DecoderPretraining, as_float
from synthaug.pocket.bystep import ByStep
from synthaug.pocket.checksums import write_hashes
from synthaug.pocket.denoiser import DenoiserPretraining, LatentBatches, places
from synthaug.pocket.linear_code import fit_linear_code, linear_encode, start_encoder
from synthaug.pocket.networks import KIND, LATENT_CHANNELS, SCHEDULE, build_autoencoder, build_denoiser, build_schedule, build_text_encoder
from synthaug.pocket.optimizers import warm_average
from synthaug.pocket.pictures import PART, PictureSet, render_set
from synthaug.pocket.words import train_tokenizer

__all__ = ["export", "main"]

SHARE = 0.35
"""How much of its loudness a latent channel keeps, see :func:`fit_linear_code`."""

FISH = 2.0
"""How often a picture with fish is drawn against the others: what the demo's LoRA builds on."""

FLAWED = 2.0
"""How often a picture with a flaw is drawn: flaws are small and learned last."""


def prepare(folder: Path, *, count: int, seed: int, workers: int) -> PictureSet:
    """Render the pictures, learn the words, fit the linear code, encode everything; what is there is kept."""
    render_set(folder / "pictures", count=count, seed=seed, workers=workers)
    pictures = PictureSet(folder / "pictures")
    if not (folder / "tokens.npy").exists():
        captions = [caption for facts in pictures.facts for caption in facts["captions"]]
        known = (folder / "tokenizer").exists()
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer") if known else train_tokenizer(captions, folder / "tokenizer")
        ids = tokenizer(captions, padding="max_length", max_length=77, truncation=True).input_ids
        np.save(folder / "tokens.npy", np.asarray(ids, np.int16).reshape(len(pictures), -1, 77))
    if not (folder / "latents.npy").exists():
        code = kept_code(folder / "code.pt", pictures)
        parts = [
            linear_encode(as_float(pictures.pixels(list(range(at, min(at + PART, len(pictures)))))), code).half().numpy()
            for at in range(0, len(pictures), PART)
        ]
        np.save(folder / "places.npy", places(pictures.covers(), parts[0].shape[-1]))
        np.save(folder / "latents.npy", np.concatenate(parts))
    return pictures


def kept_code(file: Path, pictures: PictureSet) -> dict[str, Tensor]:
    """The linear code of an earlier run, or one fitted on these pictures and kept."""
    if not file.exists():
        some = as_float(pictures.pixels(list(range(min(3000, len(pictures))))))
        torch.save(fit_linear_code(some, LATENT_CHANNELS, share=SHARE), file)
    code: dict[str, Tensor] = torch.load(file, weights_only=True)
    return code


def train(module: LightningModule, feed: ByStep, folder: Path, *, steps: int, every: int, ema: float) -> None:
    """Train or go on training; ``folder/last.ckpt`` holds the averaged weights and everything to resume."""
    callbacks: list[Callback] = [
        WeightAveraging(use_buffers=False, avg_fn=warm_average(ema)),
        ModelCheckpoint(folder, every_n_train_steps=every, save_last=True, save_top_k=0, enable_version_counter=False),
    ]
    trainer = Trainer(
        accelerator="auto", devices=1, precision="bf16-mixed", max_steps=steps, gradient_clip_val=1.0,
        callbacks=callbacks, logger=CSVLogger(folder, name="log"), log_every_n_steps=20,
        val_check_interval=every, check_val_every_n_epoch=None, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    last = folder / "last.ckpt"
    if last.exists():
        require_same_shapes(module, last)
    module.to(memory_format=torch.channels_last)
    trainer.fit(module, datamodule=feed, ckpt_path=last if last.exists() else None, weights_only=False)
    trainer.save_checkpoint(last)


def require_same_shapes(module: LightningModule, checkpoint: Path) -> dict[str, Tensor]:
    """Weights of a checkpoint, if they fit the networks as they are now.

    Raises:
        UnusableFileError: If one is missing, left over, or of another shape.
    """
    weights: dict[str, Tensor] = torch.load(checkpoint, weights_only=False)["state_dict"]
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        ours, theirs = (tuple(side[name].shape) if name in side else None for side in (wanted, weights))
        if ours != theirs:
            raise UnusableFileError(
                f"to go on, a checkpoint must be of the same networks, {checkpoint} has {name} {theirs or 'not at all'} where the network "
                f"has {ours or 'nothing'}; take --folder of the run it came from, or move it away to start anew"
            )
    return weights


def decoder_stage(folder: Path, pictures: PictureSet, args: argparse.Namespace) -> DecoderPretraining:
    """Train the decoder behind the linear code of ``code.pt``."""
    autoencoder = build_autoencoder()
    start_encoder(autoencoder, torch.load(folder / "code.pt", weights_only=True))
    module = DecoderPretraining(autoencoder, total_steps=args.decoder_steps)
    held_out = as_float(pictures.pixels(list(range(len(pictures) - 64, len(pictures)))))
    feed = ByStep(CropBatches(pictures, batch_size=16, side=64), seed=args.seed, held_out=held_out)
    train(module, feed, folder / "decoder", steps=args.decoder_steps, every=500, ema=0.995)
    return module


def denoiser_stage(folder: Path, pictures: PictureSet, args: argparse.Namespace) -> DenoiserPretraining:
    """Train the denoiser and the text encoder on the latents."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    module = denoiser_module(tokenizer, args.steps, level=args.level)
    captions = [facts["captions"] for facts in pictures.facts]
    weights = [(FISH if facts["thing"] == "fish" else 1.0) * (FLAWED if facts["flaw"] else 1.0) for facts in pictures.facts]
    if args.start is not None and not (folder / "denoiser" / "last.ckpt").exists():
        module.load_state_dict(require_same_shapes(module, args.start))
    batches = LatentBatches(folder, tokenizer, captions, weights=weights, batch_size=args.batch_size)
    feed = ByStep(batches, seed=args.seed, held_out=batches.held_out(512))
    train(module, feed, folder / "denoiser", steps=args.steps, every=250, ema=0.998)
    return module


def denoiser_module(tokenizer: CLIPTokenizer, steps: int, *, level: float = 0.6) -> DenoiserPretraining:
    """The networks of the denoiser stage, untrained."""
    text = build_text_encoder(len(tokenizer), bos=tokenizer.bos_token_id, eos=tokenizer.eos_token_id)
    return DenoiserPretraining(
        build_denoiser(), text, SCHEDULE, kind=KIND, learning_rate=5e-3, total_steps=steps, level=level, noise_offset=0.0
    )


def export(folder: Path, out: Path) -> None:
    """Write the averaged weights of the last checkpoints as a diffusers folder in fp16."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    autoencoder = DecoderPretraining(build_autoencoder())
    autoencoder.load_state_dict(torch.load(folder / "decoder" / "last.ckpt", weights_only=False)["state_dict"])
    module = denoiser_module(tokenizer, 1)
    module.load_state_dict(torch.load(folder / "denoiser" / "last.ckpt", weights_only=False)["state_dict"])
    StableDiffusionPipeline(
        vae=autoencoder.autoencoder, text_encoder=module.text_encoder, tokenizer=tokenizer, unet=module.denoiser,
        scheduler=build_schedule(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).to(dtype=torch.float16).save_pretrained(out)  # fmt: skip
    if out.resolve() == WEIGHTS.resolve():
        write_hashes(out)


def main() -> None:
    """Run the stages that are asked for; what the user can put right is said in a sentence."""
    try:
        _run(_options())
    except SynthaugError as error:
        raise SystemExit(f"error: {error}") from None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/pocket"), help="where everything is kept")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the weights are exported")
    parser.add_argument("--stages", nargs="+", default=["prepare", "decoder", "denoiser", "export"])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--decoder-steps", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--level", type=float, default=0.6, help="share of the denoiser's steps at the full rate; then it falls to 0")
    parser.add_argument("--start", type=Path, help="checkpoint of another run to take the denoiser's first weights from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def _run(args: argparse.Namespace) -> None:
    seed_everything(args.seed, verbose=False)
    pictures = prepare(args.folder, count=args.pictures, seed=args.seed, workers=args.workers)
    if "decoder" in args.stages:
        decoder_stage(args.folder, pictures, args)
    if "denoiser" in args.stages:
        denoiser_stage(args.folder, pictures, args)
    if "export" in args.stages:
        export(args.folder, args.out)


if __name__ == "__main__":
    main()
