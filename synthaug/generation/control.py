"""Networks that steer the UNet by a picture, such as ControlNets; any class will do that does what :class:`Control` says.

Zhang et al. 2023, Adding conditional control to text-to-image diffusion models, https://arxiv.org/abs/2302.05543.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from synthaug.errors import SettingError, UnusableFileError, WrongBaseModelError
from synthaug.generation.denoise import Steer
from synthaug.generation.jobs import Job
from synthaug.generation.networks import Networks, Told
from synthaug.models.load import Base
from synthaug.pixels import framed, read_image
from synthaug.records import ControlUse, Request

__all__ = ["Control", "Controls", "DiffusersControlNet", "Residuals"]

Residuals = tuple[list[Tensor], Tensor]
"""What is added to the skip connections, from the outermost on, and to the middle."""


@runtime_checkable
class Control(Protocol):
    """A network that steers. It is built once for each sampler, with the settings of its use as arguments."""

    def check(self, base: Base) -> None:
        """Refuse a base that it was not made for, by a WrongBaseModelError."""

    def to(self, *, device: torch.device, dtype: torch.dtype) -> Any:
        """Move to where the base is."""

    def __call__(self, z: Tensor, t: Tensor, told: Told, pictures: Tensor) -> Residuals:
        """Steer rows that do not know of each other.

        Args:
            z: Noised latents as the UNet is shown them, (N, C, h, w).
            t: Time steps, (N,).
            told: What the rows are told.
            pictures: float (N, 3, H, W), 0 to 1.
        """
        ...


class DiffusersControlNet(nn.Module):
    """A ControlNet of SD 1.x, SD 2.x or SDXL.

    Args:
        path: A folder as diffusers writes it, or a ``.safetensors`` file; its configuration is read from ``config.json`` beside it, or, if
            there is none, by diffusers from the hub.

    Raises:
        UnusableFileError: If it cannot be read.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        from diffusers import ControlNetModel  # most runs have none

        where = Path(path)
        if not where.exists():
            raise UnusableFileError(f"there is no ControlNet {path}; give a folder as diffusers writes it, or a .safetensors file")
        beside = {"config": str(where.parent)} if (where.parent / "config.json").is_file() else {}
        try:
            made = (
                ControlNetModel.from_single_file(path, **beside)
                if where.is_file()
                else ControlNetModel.from_pretrained(path, use_safetensors=True)  # a pickle can run any program
            )
        except Exception as error:  # diffusers promises no list of what its loaders raise
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UnusableFileError(
                f"{path} cannot be read as a ControlNet ({said}); give a folder as diffusers writes it, or a .safetensors file with its "
                "config.json beside it"
            ) from error
        self._path = path
        self.network = made.eval().requires_grad_(requires_grad=False)

    def check(self, base: Base) -> None:
        """Refuse a base of another shape.

        Raises:
            WrongBaseModelError: If its blocks or its text states have other widths.
        """
        assert base.unet is not None
        for key in ("block_out_channels", "cross_attention_dim", "layers_per_block", "addition_embed_type"):
            mine, wanted = (_plain(config.get(key)) for config in (self.network.config, base.unet.config))
            if mine != wanted:
                raise WrongBaseModelError(
                    f"{self._path} was made for a base whose {key} is {mine}, that of {base.name} is {wanted}; take a ControlNet of its "
                    "family"
                )

    def forward(self, z: Tensor, t: Tensor, told: Told, pictures: Tensor) -> Residuals:
        """Steer rows: see :class:`Control`."""
        dtype = self.network.dtype
        more: dict[str, Any] = {}
        if told.pooled is not None:
            more["added_cond_kwargs"] = {"text_embeds": told.pooled.to(dtype), "time_ids": told.places}
        down, middle = self.network(
            z.to(dtype), t, encoder_hidden_states=told.states.to(dtype), controlnet_cond=pictures.to(dtype), return_dict=False, **more
        )
        return list(down), middle


def _plain(value: Any) -> Any:
    """A setting that is a tuple in one configuration and a list in another."""
    return list(value) if isinstance(value, tuple | list) else value


class Controls:
    """The networks that steer of one sampler, each built when it is first used."""

    def __init__(self) -> None:
        self._built: dict[str, Control] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_built": {}}

    @staticmethod
    def key(request: Request) -> tuple[str, ...]:
        """What requests that can share a call have in common: the same networks in the same order."""
        return tuple(_name(use) for use in request.controls)

    def networks_of(self, request: Request, networks: Networks) -> list[Control]:
        """The networks that steer a request, on the base's device.

        Raises:
            SettingError: If a class cannot be imported or built.
            UnusableFileError: If its weights cannot be read.
            WrongBaseModelError: If they were made for another base.
        """
        for use in request.controls:
            if _name(use) not in self._built:
                made = _build(use)
                made.check(networks.base)
                made.to(device=networks.device, dtype=networks.precision.storage)
                self._built[_name(use)] = made
        return [self._built[_name(use)] for use in request.controls]

    def steer(self, jobs: Sequence[Job], networks: Networks) -> Steer | None:
        """What the denoise loop asks for residuals; None if nothing steers.

        Args:
            jobs: With the same networks in the same order, of one size.
            networks: The base.

        Raises:
            SettingError: If a picture is missing; and as :meth:`networks_of` does.
            UnusableFileError: If a picture cannot be read.
        """
        found = self.networks_of(jobs[0].request, networks)
        if not found:
            return None
        pictures = [torch.stack([_picture(job, i) for job in jobs]).to(networks.device) for i in range(len(found))]
        latent_channels = networks.latent_shape(jobs[0].size)[0]

        def steer(rows: list[int], z: Tensor, t: Tensor, told: Told, shares: list[float]) -> Residuals | None:
            total: Residuals | None = None
            for i, control in enumerate(found):
                weights = torch.tensor([_weight(jobs[row].request.controls[i], share) for row, share in zip(rows, shares, strict=True)])
                if not weights.any():
                    continue
                with networks.casting():
                    said = control(z[:, :latent_channels], t, told, pictures[i][rows])
                total = _added(total, said, weights.to(z.device).reshape(-1, 1, 1, 1), networks.unet.dtype)
            return total

        return steer


def _added(total: Residuals | None, said: Residuals, weights: Tensor, dtype: torch.dtype) -> Residuals:
    down, middle = [(weights * residual).to(dtype) for residual in said[0]], (weights * said[1]).to(dtype)
    if total is None:
        return down, middle
    return [a + b for a, b in zip(total[0], down, strict=True)], total[1] + middle


def _weight(use: ControlUse, share: float) -> float:
    begin, end = use.interval
    return use.weight if begin <= share and (share < end or end == 1) else 0.0


def _picture(job: Job, i: int) -> Tensor:
    """What a control looks at, float (3, H, W) of the job's size, 0 to 1; of a part that is drawn by itself, that part."""
    use = job.request.controls[i]
    if use.image is None:
        if job.photo is None:
            raise SettingError(
                f"a control needs a picture to look at, {use.class_path} has none for request {job.request.index}; give its image, "
                "or a photo to start from"
            )
        return framed(job.photo, job.size).float() / 255
    picture = read_image(use.image)
    if job.paste is not None:
        top, left, bottom, right = job.paste.box
        picture = framed(picture, job.request.size)[:, top:bottom, left:right]
    return framed(picture, job.size).float() / 255


def _name(use: ControlUse) -> str:
    return json.dumps([use.class_path, use.settings], sort_keys=True, default=str)


def _build(use: ControlUse) -> Control:
    module, _, name = use.class_path.rpartition(".")
    advice = f"; the one that is shipped is {__name__}.{DiffusersControlNet.__name__}"
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(
            f"class_path of a control must name a class that can be imported, got {use.class_path!r} ({error}){advice}"
        ) from None
    if not isinstance(kind, type):
        raise SettingError(f"class_path of a control must name a class, {use.class_path!r} is a {type(kind).__name__}{advice}")
    try:
        made = kind(**use.settings)
    except TypeError as error:
        raise SettingError(f"settings of {use.class_path} must be its arguments, got {use.settings} ({error})") from None
    if not isinstance(made, Control):
        raise SettingError(
            f"a control must have check, to and __call__ as synthaug.generation.control.Control says, {use.class_path} lacks some{advice}"
        )
    return made
