"""Draw requests: those that can share a call of the UNet go together, and none of them can tell.

photos ─▶ starts ─▶ denoise ─▶ finishing ─▶ pixels, with LoRAs put on by the wardrobe and words told by conditions. What goes wrong on the
way is repaired for the image that it went wrong for, and counted (guard).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthaug.errors import SettingError
from synthaug.generation.conditions import Conditions, chunks_of
from synthaug.generation.control import Controls
from synthaug.generation.denoise import denoise
from synthaug.generation.finishing import Decoder, Drawn, Finisher
from synthaug.generation.guard import Room, redrawn, unsound
from synthaug.generation.hires import drawn_size, second_pass
from synthaug.generation.inpainting import pasted
from synthaug.generation.jobs import Job
from synthaug.generation.networks import Networks, device_of
from synthaug.generation.starts import check_given, jobs_of
from synthaug.generation.tiling import tiled
from synthaug.generation.tuning import refuse_qkv, tune
from synthaug.generation.wearing import Wardrobe
from synthaug.lora.file import LoraFile
from synthaug.models.load import Base, Prediction
from synthaug.models.numerics import PrecisionName
from synthaug.models.stated import recorded_prediction
from synthaug.records import Drawing, Request

__all__ = ["Sampler"]

_One = tuple[Tensor, Tensor | None, tuple[str, ...]]
"""Picture, latents (None where pixels were put in afterwards) and repairs of an image."""


class Sampler:
    """Draws images on one device; a sample depends on its request alone.

    Networks are loaded when the first image is drawn, and are left behind when the sampler is pickled,
    so that it can be handed to worker processes.

    Args:
        base: ``"pocket"``, a diffusers folder, a hub id, or one ``.safetensors`` file.
        device: ``"auto"`` takes a GPU if there is one.
        precision: ``"auto"`` looks at the card.
        prediction: What the base's UNet predicts, ``epsilon`` or ``v_prediction``, for one-file bases that do not say; None believes the
            base.
        tiny_decoder: Folder or hub id of the autoencoder for requests with decoder ``tiny``; None is that of the base's family.
        channels_last: Memory layout of convolutions; None is what was measured to be faster. No pixel changes beyond rounding.
        fuse_qkv: Make query, key and value one product; no pixel changes beyond rounding.
        compiled: Compile the UNet, which takes a minute or more; no pixel changes beyond rounding.

    Attributes:
        repairs: What had to be repaired so far, or looked odd, and how often: see :mod:`synthaug.generation.guard`.

    Raises:
        SettingError: If there is no such device; when drawing, if the base cannot be drawn with, or not one image fits into memory.
        UnusableFileError: When drawing, if a LoRA cannot be used with this base.
        NumericsError: When drawing, if a network answers NaN that fp32 does not cure.

    Example:
        >>> Sampler("pocket").base_name
        'pocket'
    """

    def __init__(
        self,
        base: str = "pocket",
        *,
        device: str = "auto",
        precision: PrecisionName = "auto",
        prediction: Prediction | None = None,
        tiny_decoder: Path | str | None = None,
        channels_last: bool | None = None,
        fuse_qkv: bool = False,
        compiled: bool = False,
    ) -> None:
        self.base_name = base
        self.device = device_of(device)
        self.repairs: Counter[str] = Counter()
        self._precision: PrecisionName = precision
        self._prediction = prediction
        self._tiny_decoder = tiny_decoder
        self._tuning: dict[str, Any] = {"channels_last": channels_last, "fuse_qkv": fuse_qkv, "compiled": compiled}
        self._room = Room()
        self._controls = Controls()
        self._loaded: tuple[Networks, Wardrobe, Finisher] | None = None

    @classmethod
    def for_drawing(cls, base: str, drawing: Drawing, **settings: Any) -> Sampler:
        """A sampler for a base that predicts what the drawing's LoRAs were trained to predict, where they say so.

        Args:
            base: As for the sampler itself.
            drawing: A plan or a request.
            **settings: Other arguments of the sampler.

        Raises:
            UnusableFileError: If a LoRA cannot be read.
        """
        said = [recorded_prediction(LoraFile.read(use.path).metadata) for use in drawing.loras]
        return cls(base, prediction=next((each for each in said if each is not None), None), **settings)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    @property
    def networks(self) -> Networks:
        """The base on its device, loaded when first needed."""
        return self._load()[0]

    @property
    def base(self) -> Base:
        """The base, loaded when first needed."""
        return self.networks.base

    def _load(self) -> tuple[Networks, Wardrobe, Finisher]:
        if self._loaded is None:
            networks = Networks(self.base_name, device=self.device, precision=self._precision, prediction=self._prediction)
            tune(networks, **self._tuning)
            self._loaded = (networks, Wardrobe(networks), Finisher(networks, tiny=self._tiny_decoder))
        return self._loaded

    def __call__(self, requests: Sequence[Request], images: Tensor | None = None, masks: Tensor | None = None) -> Tensor:
        """Draw the pictures alone, as :meth:`draw` does: uint8 (N, 3, H, W), in the order of the requests."""
        return self.draw(requests, images, masks).images

    def draw(self, requests: Sequence[Request], images: Tensor | None = None, masks: Tensor | None = None) -> Drawn:
        """Draw.

        Args:
            requests: All of one size, that of a second pass if there is one.
            images: Photos to start from, uint8 (N, 3, H, W), instead of the requests' own files; framed to the size.
            masks: Where they are redrawn, uint8 (N, H, W), 1 = redrawn, instead of the requests' own files.

        Returns:
            Pictures, latents and repairs, in the order of the requests.

        Raises:
            SettingError: If sizes differ, there is nothing to draw, or not even one image fits into memory; if a mask is empty, has
                another size than its photo or none.
            UnusableFileError: If a photo or a mask cannot be read.
            NumericsError: If an image is NaN in fp32 too.
        """
        sizes = {drawn_size(request) for request in requests}
        if len(sizes) != 1:
            raise SettingError(f"one call draws images of one size, got {sorted(sizes) or 'no request'}; draw each size by itself")
        check_given(requests, images, masks)
        out: dict[int, _One] = {}
        halved = self._room.halved
        for chunks, rows in self._batches(requests):
            some = partial(self._some, requests, images, masks, chunks=chunks)
            out |= dict(zip(rows, self._room.draw(rows, drawn_size(requests[rows[0]]), some), strict=True))
        pictures, latents, repairs = zip(*(out[row] for row in range(len(requests))), strict=True)
        self.repairs.update(what for told in repairs for what in told)
        self.repairs += Counter({"smaller batch": self._room.halved - halved})
        kept = [z for z in latents if z is not None]
        whole = len(kept) == len(latents) and len({z.shape for z in kept}) == 1
        return Drawn(images=torch.stack(pictures), latents=torch.stack(kept) if whole else None, repairs=repairs)

    def decode(self, latents: Tensor, *, decoder: Decoder = "full", tiling: bool = False) -> Tensor:
        """Pictures of latents that were kept from :meth:`draw`, such as those that a tiny decoder was used for.

        Args:
            latents: fp32 (N, C, h, w).
            decoder: ``full`` is the base's own, ``tiny`` the tiny one of its family.
            tiling: Whether the edges go on at the opposite ones, as with a request's ``tiling``.

        Returns:
            uint8 (N, 3, H, W).
        """
        finish = self._load()[2]
        with tiled([finish.network(decoder)], on=tiling):
            return finish(latents, decoder=decoder)[0]

    def _batches(self, requests: Sequence[Request]) -> Iterator[tuple[int, list[int]]]:
        """Rows that can go through the networks together: same costume, which is put on, passes, short cuts, number of text chunks."""
        networks, wardrobe, _ = self._load()
        costumes: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for row, asked in enumerate(requests):
            costumes[asked.loras, asked.embeddings].append(row)
        for (loras, embeddings), alike in sorted(costumes.items(), key=lambda costume: costume[0] != wardrobe.worn):
            wardrobe.wear(loras, embeddings)
            if self._tuning["fuse_qkv"]:
                refuse_qkv(networks)
            together: dict[tuple[Any, ...], list[int]] = defaultdict(list)
            for row in alike:  # chunks are counted with the words that the costume brings
                asked = requests[row]
                way = (asked.size, asked.tiling, asked.hires, asked.reuse, asked.decoder, self._controls.key(asked))
                together[chunks_of(asked, networks.texts), *way].append(row)
            yield from ((key[0], rows) for key, rows in together.items())

    def _some(
        self, requests: Sequence[Request], images: Tensor | None, masks: Tensor | None, rows: list[int], *, chunks: int
    ) -> list[_One]:  # fmt: skip
        """Picture, latents and repairs of those rows."""
        given = [None if stack is None else stack[rows] for stack in (images, masks)]
        return self._draw([requests[row] for row in rows], *given, chunks=chunks)

    @torch.inference_mode()
    def _draw(self, requests: list[Request], photos: Tensor | None, masks: Tensor | None, *, chunks: int) -> list[_One]:
        """Draw requests that share what :meth:`_batches` says."""
        networks, _, finish = self._load()
        one = requests[0]
        steering = [control for control in self._controls.networks_of(one, networks) if isinstance(control, nn.Module)]
        with tiled([networks.unet, networks.vae, finish.network(one.decoder), *steering], on=one.tiling):
            latents, jobs = self._latents(requests, photos, masks, chunks=chunks)
            drawn_again = unsound(latents)
            for row in drawn_again:
                own = [None if stack is None else stack[row : row + 1] for stack in (photos, masks)]
                latents[row] = redrawn(networks, partial(self._latents, [requests[row]], *own, chunks=chunks), seed=requests[row].seed)
            pictures, repairs = finish(latents, decoder=one.decoder)
        told = [(*(["UNet in fp32"] if row in drawn_again else []), *repairs[row]) for row in range(len(requests))]
        kept = [None if job.paste else z for job, z in zip(jobs, latents.cpu(), strict=True)]
        return list(zip(pasted(pictures, jobs), kept, told, strict=True))

    def _latents(
        self, requests: list[Request], photos: Tensor | None, masks: Tensor | None, *, chunks: int
    ) -> tuple[Tensor, list[Job]]:  # fmt: skip
        """Denoised latents, fp32 (N, C, h, w), after the second pass if there is one, and the jobs of the last pass."""
        networks = self.networks
        jobs = jobs_of(requests, networks, photos, masks)
        latents = self._denoised(jobs, chunks)
        if requests[0].hires is not None:
            jobs = second_pass(jobs, latents, networks)
            latents = self._denoised(jobs, chunks)
        return latents, jobs

    def _denoised(self, jobs: list[Job], chunks: int) -> Tensor:
        """Latents of one pass, (N, C, h, w)."""
        networks = self.networks
        zeros = networks.base.nothing_is_zeros
        words = Conditions(jobs, networks.texts, chunks=chunks, device=self.device, nothing_is_zeros=zeros)
        return denoise(jobs, networks, words, steer=self._controls.steer(jobs, networks))
