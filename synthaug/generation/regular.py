"""Draw regularisation pictures with a bare base: what training is handed by name, so that a LoRA forgets less.

Prior preservation: Ruiz et al. 2023 (DreamBooth), section 3.2, https://arxiv.org/abs/2208.12242.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synthaug.errors import OutputError, require
from synthaug.generation.folder import draw_into
from synthaug.generation.plan import Plan
from synthaug.generation.sampler import Sampler
from synthaug.manifest import Manifest
from synthaug.models.numerics import PrecisionName

__all__ = ["RegularImages"]


class RegularImages:
    """Draws with a base that wears no LoRA, once: a second call finds the pictures, one that was stopped goes on.

    Args:
        sampler: Name of the sampler.
        steps: Denoising steps.
        guidance: Scale of classifier-free guidance.
        negative_prompt: What to keep away from.
        batch_size: Images drawn at a time; it changes speed and memory only.
        device: ``auto``, ``cpu``, ``cuda`` …
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.

    Raises:
        SettingError: If a number is outside its range.

    Example:
        >>> RegularImages(steps=0)
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: steps must be 1 to 1000, got 0
    """

    def __init__(
        self,
        *,
        sampler: str = "DPM++ 2M",
        steps: int = 20,
        guidance: float = 4.0,
        negative_prompt: str = "",
        batch_size: int = 4,
        device: str = "auto",
        precision: PrecisionName = "auto",
    ) -> None:
        require({
            "steps must be 1 to 1000": (1 <= steps <= 1000, steps),
            "batch_size must be at least 1": (batch_size >= 1, batch_size),
        })  # fmt: skip
        self._how = {"sampler": sampler, "steps": steps, "guidance": guidance, "negative_prompt": negative_prompt}
        self._batch_size, self._device, self._precision = batch_size, device, precision

    def draw_regular(self, base: str, *, caption: str, count: int, size: tuple[int, int], seed: int, mark: str, cache: Path) -> Path:
        """Draw pictures, each with a text file that holds its caption.

        Args:
            base: ``pocket``, a diffusers folder, a hub id …
            caption: What to draw; ``{this|that}`` is decided per picture.
            count: How many.
            size: Height and width.
            seed: Seed of the plan.
            mark: Changes whenever the base does.
            cache: Folder for such folders.

        Returns:
            The folder they lie in: one for each base, caption, count, size, seed and way of drawing.

        Raises:
            OutputError: If they cannot be written; what was drawn before is kept.
            NumericsError: If the base draws NaN.
        """
        plan = Plan.from_json({**self._how, "prompts": [caption], "count": count, "size": list(size), "seed": seed, "base": base})
        about = {**plan.to_json(), "base": mark}
        folder = cache / hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        with _alone(folder):
            manifest = Manifest(folder)
            sampler = Sampler(base, device=self._device, precision=self._precision)
            draw_into(manifest, plan, sampler, batch_size=self._batch_size, tell=_tell, one_base=True)
            for sample in manifest.samples:
                _write_caption(folder / f"{Path(sample.file).stem}.txt", sample.request.prompt)
        return folder


def _tell(done: int, of: int) -> None:
    print(f"regularisation pictures: {done} of {of} drawn", flush=True)


def _write_caption(path: Path, text: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} could not be written ({error.strerror}); free some space or choose another --data.cache") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other run draws into the folder; on Windows, where files are locked in another way, two at once stop each other."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / ".lock").open("w")
    except OSError as error:
        raise OutputError(f"{folder} could not be written ({error.strerror}); choose another --data.cache") from error
    with opened:
        if sys.platform != "win32":
            import fcntl  # not there on Windows

            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
