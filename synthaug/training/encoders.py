"""The encoders of a base: loaded when the first thing must be encoded, dropped when the last one is."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from synthaug.errors import NumericsError, SettingError
from synthaug.models.base import Prediction
from synthaug.models.load import Part, load_base
from synthaug.models.numerics import PrecisionName, choose_precision
from synthaug.prompts.encode import TextStates, text_states_of
from synthaug.training.base_marks import base_mark
from synthaug.training.latent_cache import Entry, content_hash
from synthaug.training.memory import free_caches, is_out_of_memory

__all__ = ["Encoders"]


class Encoders:
    """Pictures to latents and texts to states, with the encoders of one base.

    Args:
        base: As :func:`synthaug.models.load_base` takes it.
        device: Where they run.
        precision: What pictures are encoded in; texts always in fp32.
        prediction: What the base predicts, where it does not say.

    Raises:
        NumericsError: When encoding, if the answer for a picture is NaN in fp32 too.
        SettingError: When encoding, if one picture by itself takes more memory than there is.

    Example:
        >>> Encoders("pocket").repairs
        0
    """

    def __init__(
        self,
        base: str,
        *,
        device: torch.device | str = "cpu",
        precision: PrecisionName = "fp32",
        prediction: Prediction | None = None,
    ) -> None:
        chosen = choose_precision(precision, device)
        self.base, self.prediction = base, prediction
        self.device, self.dtype = torch.device(device), chosen.autocast or chosen.storage
        self.loaded: list[str] = []
        """Parts that had to be loaded."""
        self.repairs = 0
        """Pictures that were encoded again in fp32 because the answer was NaN."""
        self._place = self.device
        self._vae: AutoencoderKL | None = None
        self._texts: TextStates | None = None
        self._marks: dict[Part, str] = {}

    def mark(self, part: Part) -> str:
        """What tells this part from that of other bases; its weights are loaded only where the files cannot be found."""
        if part not in self._marks:
            found = base_mark(self.base, part)
            if found is None:
                loaded = load_base(self.base, parts=(part,), prediction=self.prediction)  # what was not on this machine is now
                networks = (loaded.unet, loaded.vae, loaded.text_encoder, loaded.text_encoder_2)
                found = base_mark(self.base, part) or "".join(
                    content_hash(network.state_dict()) for network in networks if network is not None
                )
            self._marks[part] = found
        return self._marks[part]

    def latents(self, picture: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of what the encoder answers, scaled, each float (C, h, w) on the CPU.

        Args:
            picture: Float (3, H, W) in [-1, 1].
            name: What to call it if it goes wrong.
        """
        answer = self._fitting(picture, name)
        if not torch.isfinite(answer).all() and self.dtype != torch.float32:
            self.repairs += 1
            answer = self._fitting(picture, name, torch.float32)
        if not torch.isfinite(answer).all():
            raise NumericsError(f"the encoder answered NaN for {name} even in fp32; the VAE of {self.base} is damaged; download it again")
        mean, std = answer.cpu().clone()
        return mean, std

    def _fitting(self, picture: Tensor, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Mean and deviation, (2, C, h, w); where the card's memory does not hold the picture, from the CPU, as all that follow.

        Raises:
            SettingError: If the CPU's memory does not hold it either.
        """
        while True:
            vae = self._vae or self._load_vae()
            try:
                answer = self._posterior(vae if dtype is None else vae.to(dtype), picture)
                if dtype is not None:
                    vae.to(self.dtype)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error).splitlines()[0].rstrip(".")
            else:
                return answer
            del vae
            self._make_room(picture, name, failure)

    def _make_room(self, picture: Tensor, name: str, failure: str) -> None:
        height, width = picture.shape[-2:]
        if self._place.type == "cpu":
            raise SettingError(
                f"a photo must fit into memory by itself to be encoded, {name} at {height} x {width} pixels does not: {failure}; "
                "use a smaller --data.size"
            )
        print(
            f"{name} at {height} x {width} pixels does not fit into the memory of {self._place} to be encoded ({failure}); from here on "
            "photos are encoded on the CPU, which is slower and done once",
            flush=True,
        )
        self._vae, self._place, self.dtype = None, torch.device("cpu"), torch.float32
        free_caches()

    @torch.inference_mode()
    def _posterior(self, vae: AutoencoderKL, picture: Tensor) -> Tensor:
        """Mean and deviation, (2, C, h, w)."""
        found = vae.encode(picture[None].to(self._place, vae.dtype)).latent_dist
        scale = float(vae.config["scaling_factor"])
        return torch.cat([found.mean.float() * scale, found.std.float() * scale])

    def text(self, text: str) -> Entry:
        """``states`` (77 n, width) and ``tokens`` (77 n,) of a text; with two encoders ``tokens_2`` and ``pooled`` (P,), too."""
        texts = self._texts or self._load_texts()
        with torch.inference_mode():
            states, pooled = texts.plain(text)  # a caption is no prompt: its brackets are brackets
            entry = {"states": states.float().cpu().clone()}
            if pooled is not None:
                entry["pooled"] = pooled.float().reshape(-1).cpu().clone()
        entry |= {key: ids for key, ids in zip(("tokens", "tokens_2"), texts.tokens(text), strict=True) if ids is not None}
        return entry

    def drop(self) -> None:
        """Give the memory back, if there is any to give."""
        if self._vae is not None or self._texts is not None:
            self._vae = self._texts = None
            free_caches()

    def _load_vae(self) -> AutoencoderKL:
        part: Part = "vae"
        self._vae = load_base(self.base, parts=(part,), prediction=self.prediction).to(self._place, self.dtype).vae
        self.loaded.append(part)
        assert self._vae is not None
        return self._vae

    def _load_texts(self) -> TextStates:
        part: Part = "text"
        base = load_base(self.base, parts=(part,), prediction=self.prediction).to(self.device, torch.float32)
        self.loaded.append(part)
        self._texts = text_states_of(base)
        return self._texts
