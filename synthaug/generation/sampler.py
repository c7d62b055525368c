"""Draw requests: those that can share a call of the UNet go together, and none of them can tell.

photos ─▶ starts ─▶ denoise ─▶ finishing ─▶ pixels, with LoRAs put on by the wardrobe and words told by conditions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from synthaug.errors import SettingError
from synthaug.generation.base_check import check_drawable
from synthaug.generation.conditions import Conditions, chunks_of
from synthaug.generation.denoise import denoise
from synthaug.generation.finishing import pixels_of
from synthaug.generation.networks import Networks, device_of
from synthaug.generation.starts import jobs_of
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
        for chunks, rows in self._batches(requests):
            photos = None if images is None else images[rows]
            for row, picture in zip(rows, self._draw([requests[r] for r in rows], photos, chunks=chunks), strict=True):
                out[row] = picture
        return torch.stack([picture for picture in out if picture is not None])

    def _batches(self, requests: Sequence[Request]) -> Iterator[tuple[int, list[int]]]:
        """Rows that can go through the UNet together, same costume and number of text chunks, with the costume put on."""
        networks, wardrobe = self._load()
        costumes: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for row, asked in enumerate(requests):
            costumes[asked.loras, asked.embeddings].append(row)
        for (loras, embeddings), alike in sorted(costumes.items(), key=lambda costume: costume[0] != wardrobe.worn):
            wardrobe.wear(loras, embeddings)
            together: dict[int, list[int]] = defaultdict(list)
            for row in alike:  # counted with the words that the costume brings
                asked = requests[row]
                chunks = chunks_of(asked.prompt, asked.negative_prompt, asked.steps, networks.texts, emphasis=asked.emphasis)
                together[chunks].append(row)
            yield from together.items()

    @torch.inference_mode()
    def _draw(self, requests: list[Request], photos: Tensor | None, *, chunks: int) -> Tensor:
        """Draw requests that share LoRAs and text length, uint8 (N, 3, H, W)."""
        networks = self.networks
        for request in requests:
            check_drawable(networks.base, request)
        jobs = jobs_of(requests, networks, photos)
        zeros = networks.base.nothing_is_zeros
        words = Conditions(jobs, networks.texts, chunks=chunks, device=self.device, nothing_is_zeros=zeros)
        return pixels_of(denoise(jobs, networks, words), networks)
