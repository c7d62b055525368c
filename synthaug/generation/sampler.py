"""Draw requests: those that can share a call of the UNet go together, and none of them can tell.

photos ─▶ starts ─▶ denoise ─▶ finishing ─▶ pixels, with LoRAs put on by the wardrobe and words told by conditions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synthaug.errors import SettingError
from synthaug.generation.conditions import Conditions, chunks_of
from synthaug.generation.control import Controls
from synthaug.generation.denoise import denoise
from synthaug.generation.finishing import pixels_of
from synthaug.generation.hires import drawn_size, second_pass
from synthaug.generation.inpainting import pasted
from synthaug.generation.jobs import Job
from synthaug.generation.networks import Networks, device_of
from synthaug.generation.starts import check_given, jobs_of
from synthaug.generation.tiling import tiled
from synthaug.generation.wearing import Wardrobe
from synthaug.models.load import Base
from synthaug.models.numerics import PrecisionName
from synthaug.records import Request

__all__ = ["Sampler"]


class Sampler:
    """Draws images on one device; a sample depends on its request alone.

    Networks are loaded when the first image is drawn, and are left behind when the sampler is pickled,
    so that it can be handed to worker processes.

    Args:
        base: ``"pocket"``, a diffusers folder, a hub id, or one ``.safetensors`` file.
        device: ``"auto"`` takes a GPU if there is one.
        precision: ``"auto"`` looks at the card.

    Raises:
        SettingError: If there is no such device; when drawing, if the base cannot be drawn with.
        UnusableFileError: When drawing, if a LoRA cannot be used with this base.
        NumericsError: When drawing, if a network answers NaN that fp32 does not cure.

    Example:
        >>> Sampler("pocket").base_name
        'pocket'
    """

    def __init__(self, base: str = "pocket", *, device: str = "auto", precision: PrecisionName = "auto") -> None:
        self.base_name = base
        self.device = device_of(device)
        self._precision: PrecisionName = precision
        self._loaded: tuple[Networks, Wardrobe] | None = None
        self._controls = Controls()

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

    def _load(self) -> tuple[Networks, Wardrobe]:
        if self._loaded is None:
            networks = Networks(self.base_name, device=self.device, precision=self._precision)
            self._loaded = (networks, Wardrobe(networks))
        return self._loaded

    def __call__(self, requests: Sequence[Request], images: Tensor | None = None, masks: Tensor | None = None) -> Tensor:
        """Draw.

        Args:
            requests: All of one size, that of a second pass if there is one.
            images: Photos to start from, uint8 (N, 3, H, W), instead of the requests' own files; framed to the size.
            masks: Where they are redrawn, uint8 (N, H, W), 1 = redrawn, instead of the requests' own files.

        Returns:
            uint8 (N, 3, H, W), in the order of the requests.

        Raises:
            SettingError: If sizes differ, or there is nothing to draw; if a mask is empty, has another size than its photo or none.
            UnusableFileError: If a photo or a mask cannot be read.
        """
        sizes = {drawn_size(request) for request in requests}
        if len(sizes) != 1:
            raise SettingError(f"one call draws images of one size, got {sorted(sizes) or 'no request'}; draw each size by itself")
        check_given(requests, images, masks)
        out: list[Tensor | None] = [None] * len(requests)
        for chunks, rows in self._batches(requests):
            given = [None if stack is None else stack[rows] for stack in (images, masks)]
            for row, picture in zip(rows, self._draw([requests[r] for r in rows], *given, chunks=chunks), strict=True):
                out[row] = picture
        return torch.stack([picture for picture in out if picture is not None])

    def _batches(self, requests: Sequence[Request]) -> Iterator[tuple[int, list[int]]]:
        """Rows that can go through the UNet together: same costume, which is put on, same passes and number of text chunks."""
        networks, wardrobe = self._load()
        costumes: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for row, asked in enumerate(requests):
            costumes[asked.loras, asked.embeddings].append(row)
        for (loras, embeddings), alike in sorted(costumes.items(), key=lambda costume: costume[0] != wardrobe.worn):
            wardrobe.wear(loras, embeddings)
            together: dict[tuple[Any, ...], list[int]] = defaultdict(list)
            for row in alike:  # chunks are counted with the words that the costume brings
                asked = requests[row]
                together[chunks_of(asked, networks.texts), asked.size, asked.tiling, asked.hires, self._controls.key(asked)].append(row)
            yield from ((key[0], rows) for key, rows in together.items())

    @torch.inference_mode()
    def _draw(self, requests: list[Request], photos: Tensor | None, masks: Tensor | None, *, chunks: int) -> Tensor:
        """Draw requests that share what :meth:`_batches` says, uint8 (N, 3, H, W)."""
        networks, one = self.networks, requests[0]
        steering = [control for control in self._controls.networks_of(one, networks) if isinstance(control, nn.Module)]
        with tiled([networks.unet, networks.vae, *steering], on=one.tiling):
            jobs = jobs_of(requests, networks, photos, masks)
            latents = self._denoised(jobs, chunks)
            if one.hires is not None:
                jobs = second_pass(jobs, latents, networks)
                latents = self._denoised(jobs, chunks)
            return pasted(pixels_of(latents, networks), jobs)

    def _denoised(self, jobs: list[Job], chunks: int) -> Tensor:
        """Latents of one pass, (N, C, h, w)."""
        networks = self.networks
        zeros = networks.base.nothing_is_zeros
        words = Conditions(jobs, networks.texts, chunks=chunks, device=self.device, nothing_is_zeros=zeros)
        return denoise(jobs, networks, words, steer=self._controls.steer(jobs, networks))
