"""Draw a batch of requests: one UNet call per step for all of them, whatever each one asks for.

Requests with the same sampler, steps and strength form a cohort and share a scheduler; every cohort is
at its own noise level, and the UNet sees all rows of all cohorts at once. Each row has its own seed,
prompt, negative prompt and guidance, and nothing that a row is given depends on the others.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthaug.diffusion.guidance import guided, rescaled
from synthaug.errors import SettingError, UnusableFileError
from synthaug.generation.base_check import check_drawable
from synthaug.generation.schedulers import Scheduler, make_scheduler
from synthaug.lora.file import LoraFile
from synthaug.lora.layers import unfuse
from synthaug.lora.naming import NetworkKind, modules_by_name
from synthaug.models.load import Base, load_base
from synthaug.models.numerics import PrecisionName, choose_precision, decode_latents
from synthaug.pixels import framed, read_image, to_float, to_uint8
from synthaug.prompts.encode import TextStates, text_states_of
from synthaug.records import LoraUse, Request

__all__ = ["Sampler"]

RESCALE = 0.6
"""Share of the overshoot of guidance that is taken back on bases with zero terminal SNR: Lin et al. 2023, section 3.4, take 0.7; on
pocket, 0.7 leaves the spread of brightness 10 % too small (docs/decisions/0010)."""


@dataclass
class _Cohort:
    """Rows of the batch that go through the same noise levels."""

    rows: list[int]
    scheduler: Scheduler
    timesteps: Tensor
    generators: list[torch.Generator]
    latents: Tensor

    @property
    def noise_source(self) -> dict[str, Any]:
        """Generators, for schedulers that take some."""
        takes = "generator" in inspect.signature(self.scheduler.step).parameters
        return {"generator": self.generators} if takes else {}


class Sampler:
    """Draws images on one device; a sample depends on its request alone.

    Networks are loaded when the first image is drawn, and are left behind when the sampler is pickled,
    so that it can be handed to worker processes.

    Args:
        base: ``"pocket"``, a diffusers folder, a hub id, or one ``.safetensors`` file.
        device: ``"auto"`` takes a GPU if there is one.
        precision: ``"auto"`` looks at the card.

    Raises:
        SettingError: If there is no such device; when drawing, if the base is SDXL or fills in.
        UnusableFileError: When drawing, if a LoRA cannot be used with this base.
        NumericsError: When drawing, if a network answers NaN that fp32 does not cure.

    Example:
        >>> Sampler("pocket").base_name
        'pocket'
    """

    def __init__(self, base: str = "pocket", *, device: str = "auto", precision: PrecisionName = "auto") -> None:
        self.base_name = base
        self.device = _device(device)
        self._precision_name: PrecisionName = precision
        self._forget()

    def _forget(self) -> None:
        self._base: Base | None = None
        self._texts: TextStates | None = None
        self._worn: tuple[tuple[LoraUse, tuple[int, ...]], ...] = ()
        self._bare: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"base_name": self.base_name, "device": self.device, "_precision_name": self._precision_name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    @property
    def base(self) -> Base:
        """The base, loaded when first needed."""
        if self._base is None:
            self._precision = choose_precision(self._precision_name, self.device)
            check_drawable(load_base(self.base_name, parts=()))
            self._base = load_base(self.base_name).to(self.device, self._precision.storage)
            self._texts = text_states_of(self._base)
        return self._base

    def __call__(self, requests: Sequence[Request], images: Tensor | None = None) -> Tensor:
        """Draw.

        Args:
            requests: All of one size.
            images: Photos to start from, uint8 (N, 3, H, W), instead of the requests' own files.

        Returns:
            uint8 (N, 3, H, W), in the order of the requests.

        Raises:
            SettingError: If sizes differ, or there is nothing to draw.
        """
        sizes = {request.size for request in requests}
        if len(sizes) != 1:
            raise SettingError(f"one call draws images of one size, got {sorted(sizes) or 'no request'}; draw each size by itself")
        out: list[Tensor | None] = [None] * len(requests)
        for rows in self._batches(requests):
            self._wear(requests[rows[0]].loras)
            photos = None if images is None else images[rows]
            for row, picture in zip(rows, self._draw([requests[r] for r in rows], photos), strict=True):
                out[row] = picture
        return torch.stack([picture for picture in out if picture is not None])

    def _batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Rows that can go through the UNet together: same LoRAs, same number of text chunks."""
        assert self.base is not None
        assert self._texts is not None
        together: dict[tuple[tuple[LoraUse, ...], int], list[int]] = defaultdict(list)
        for row, request in enumerate(requests):
            chunks = max(self._texts.chunks(request.prompt), self._texts.chunks(request.negative_prompt))
            together[request.loras, chunks].append(row)
        return list(together.values())

    def _wear(self, loras: tuple[LoraUse, ...]) -> None:
        """Fuse these LoRAs into the weights, after taking off the ones that are worn."""
        wanted = tuple((use, _stamp(use.path)) for use in loras)
        if wanted == self._worn:
            return
        base = self.base
        assert base.unet is not None
        assert base.text_encoder is not None
        assert self._texts is not None
        files = [LoraFile.read(use.path) for use in loras]
        for file in files:
            file.check_base(base.name, base.fingerprint, base.family)
        networks: dict[NetworkKind, nn.Module] = {"unet": base.unet, "text_encoder": base.text_encoder}
        modules = {name: module for kind, network in networks.items() for name, module in modules_by_name(network, kind).items()}
        unfuse(modules, self._bare)
        self._worn, self._bare = (), {}
        try:
            for use, file in zip(loras, files, strict=True):
                self._bare = {**file.fuse_into(networks, use.weight), **self._bare}
        except UnusableFileError:
            unfuse(modules, self._bare)  # the bare base again, not half a costume
            self._bare = {}
            raise
        finally:
            self._texts.forget()
        self._worn = wanted

    @torch.inference_mode()
    def _draw(self, requests: list[Request], photos: Tensor | None) -> Tensor:
        """Draw requests that share LoRAs and text length, uint8 (N, 3, H, W)."""
        base = self.base
        assert base.vae is not None
        cohorts = self._cohorts(requests, photos)
        states, empty = self._text_rows(requests)
        usual = RESCALE if base.schedule.get("rescale_betas_zero_snr") else 0.0
        shares = [usual if request.guidance_rescale is None else request.guidance_rescale for request in requests]
        scale = torch.tensor([[r.guidance, share] for r, share in zip(requests, shares, strict=True)], device=self.device)
        for step in range(max(len(cohort.timesteps) for cohort in cohorts)):
            self._step([c for c in cohorts if step < len(c.timesteps)], step, states, empty, scale)
        latents = torch.empty_like(torch.cat([cohort.latents for cohort in cohorts]))
        for cohort in cohorts:
            latents[cohort.rows] = cohort.latents
        return to_uint8(decode_latents(base.vae, latents)).cpu()

    def _step(self, cohorts: list[_Cohort], step: int, states: Tensor, empty: Tensor, scale: Tensor) -> None:
        """Take one step of every cohort that is still under way, with one call of the UNet."""
        rows = [row for cohort in cohorts for row in cohort.rows]
        z = torch.cat([c.scheduler.scale_model_input(c.latents, c.timesteps[step]) for c in cohorts])
        t = torch.cat([c.timesteps[step].expand(len(c.rows)) for c in cohorts]).to(self.device)
        with_negative = [i for i, row in enumerate(rows) if scale[row, 0] != 1]
        answer = self._predict(
            torch.cat([z, z[with_negative]]),
            torch.cat([t, t[with_negative]]),
            torch.cat([states[rows], empty[[rows[i] for i in with_negative]]]),
        )
        eps, uncond = answer[: len(rows)].clone(), answer[len(rows) :]
        if with_negative:
            cond, (strength, share) = eps[with_negative], scale[rows][with_negative].unbind(1)
            eps[with_negative] = rescaled(guided(cond, uncond, strength), cond, share)
        at = 0
        for cohort in cohorts:
            mine = eps[at : at + len(cohort.rows)]
            at += len(cohort.rows)
            t_now = cohort.timesteps[step]
            cohort.latents = cohort.scheduler.step(mine, t_now, cohort.latents, **cohort.noise_source, return_dict=False)[0]

    def _predict(self, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The UNet's answer in fp32."""
        unet = self.base.unet
        assert unet is not None
        dtype = self._precision.autocast
        cast = torch.autocast(self.device.type, dtype) if dtype in (torch.float16, torch.bfloat16) else nullcontext()
        with cast:
            answer: Tensor = unet(z.to(unet.dtype), t, text.to(unet.dtype), return_dict=False)[0]
        return answer.float()

    def _cohorts(self, requests: list[Request], photos: Tensor | None) -> list[_Cohort]:
        together: dict[tuple[str, int, float], list[int]] = defaultdict(list)
        starts = self._starts(requests, photos)
        for row, request in enumerate(requests):
            together[request.sampler, request.steps, 1.0 if starts[row] is None else request.strength].append(row)
        cohorts = []
        for (name, steps, strength), rows in together.items():
            scheduler = make_scheduler(name, self.base.schedule)
            scheduler.set_timesteps(steps)
            generators = [torch.Generator().manual_seed(requests[row].seed) for row in rows]
            noise = torch.stack([self._noise(requests[row].size, g) for row, g in zip(rows, generators, strict=True)]).to(self.device)
            begin = 0
            if starts[rows[0]] is None:
                latents = noise * float(scheduler.init_noise_sigma)
            else:
                begin = (steps - max(1, min(steps, int(steps * strength)))) * scheduler.order
                if hasattr(scheduler, "set_begin_index"):  # DDIM looks its place up from the time step
                    scheduler.set_begin_index(begin)
                first = scheduler.timesteps[begin].expand(len(rows))
                clean = torch.stack([z for row in rows if (z := starts[row]) is not None])
                latents = scheduler.add_noise(clean, noise, first)
            cohorts.append(
                _Cohort(rows=rows, scheduler=scheduler, timesteps=scheduler.timesteps[begin:], generators=generators, latents=latents)
            )
        return cohorts

    def _noise(self, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Starting noise of one image, drawn on the CPU, (C, h, w): the same on every machine."""
        base = self.base
        assert base.unet is not None
        assert base.vae is not None
        factor = 2 ** (len(base.vae.config["block_out_channels"]) - 1)
        return torch.randn(base.unet.config["in_channels"], size[0] // factor, size[1] // factor, generator=generator)

    def _starts(self, requests: list[Request], photos: Tensor | None) -> list[Tensor | None]:
        """Latents of the photos to start from, None for requests that start from noise."""
        vae = self.base.vae
        assert vae is not None
        starts: list[Tensor | None] = []
        for row, request in enumerate(requests):
            photo = photos[row] if photos is not None else framed(read_image(request.image), request.size) if request.image else None
            if photo is None:
                starts.append(None)
                continue
            pixels = to_float(photo)[None].to(self.device, vae.dtype)
            starts.append((vae.encode(pixels).latent_dist.mean * float(vae.config["scaling_factor"]))[0].float())
        return starts

    def _text_rows(self, requests: list[Request]) -> tuple[Tensor, Tensor]:
        """Text states of the prompts and of the negative prompts, each (N, tokens, width)."""
        assert self._texts is not None
        texts = self._texts
        chunks = max(max(texts.chunks(r.prompt), texts.chunks(r.negative_prompt)) for r in requests)
        return (
            torch.stack([texts(request.prompt, chunks) for request in requests]),
            torch.stack([texts(request.negative_prompt, chunks) for request in requests]),
        )


def _device(name: str) -> torch.device:
    """The device of this name, ``"auto"`` included."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
    except RuntimeError:
        raise SettingError(f"unknown device {name!r}; give auto, cpu, cuda or cuda:1") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise SettingError(f"there is no device {name!r}, PyTorch sees {torch.cuda.device_count()} GPUs; give --device cpu or auto")
    return found


def _stamp(path: str) -> tuple[int, ...]:
    """Tells a file from a later one of the same name; () when there is none."""
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino
