"""Captions that a network makes up from the photos: BLIP, BLIP-2 or GIT through transformers, from the hub or a folder.

BLIP: Li et al. 2022, https://arxiv.org/abs/2201.12086; BLIP-2: Li et al. 2023, https://arxiv.org/abs/2301.12597;
GIT: Wang et al. 2022, https://arxiv.org/abs/2205.14100.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthaug.errors import MissingExtraError, SettingError, UnusableFileError

__all__ = ["KINDS", "Captioner"]

KINDS = ("blip", "blip-2", "git")
"""Networks that caption a picture when they are given nothing else, as their config.json names them."""

LONGEST = 40
"""Tokens of a caption at most; a prompt has room for 75."""

BEAMS = 3
"""Beginnings of a caption that are followed at the same time."""


class Captioner:
    """Says in a few words what a picture shows, on the GPU if there is one.

    Nothing is drawn at random: equal pictures get equal captions on one machine.

    Args:
        name: A folder as transformers saves it, or a hub id such as ``"Salesforce/blip-image-captioning-base"``. Only safetensors are
            read; a folder never needs the network.

    Raises:
        SettingError: If nothing of this name can be found.
        UnusableFileError: If it is damaged, or no network that captions pictures.
        MissingExtraError: If a library is missing.

    Example:
        >>> Captioner("no/such/model/here")
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: no captioner 'no/such/model/here' was found here or on the hub (...
    """

    def __init__(self, name: str) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model, self._processor = _loaded(name)
        self._model.eval().to(self.device)

    def __call__(self, pictures: Sequence[Tensor]) -> list[str]:
        """One caption for each picture.

        Args:
            pictures: uint8 (3, H, W) each, of any sizes, at least one; they go through the network together.

        Returns:
            One line each; empty if the network had nothing to say.
        """
        pixels = self._processor(images=list(pictures), return_tensors="pt").to(self.device)
        with torch.inference_mode():
            tokens = self._model.generate(**pixels, num_beams=BEAMS, do_sample=False, max_new_tokens=LONGEST)
        return [" ".join(text.split()) for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]


def _loaded(name: str) -> tuple[Any, Any]:
    """Network and processor."""
    here = Path(name).exists()
    try:
        import transformers

        transformers.utils.logging.disable_progress_bar()
        try:
            return _read(transformers, name, here=here)
        finally:
            transformers.utils.logging.enable_progress_bar()
    except ImportError as error:
        raise MissingExtraError(
            f"automatic captions need transformers 4.57 or newer and torchvision ({error}); run pip install 'synthaug[caption]'"
        ) from error
    except UnusableFileError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        if here:
            raise UnusableFileError(
                f"the captioner {name} cannot be loaded: {first}; download it again, with config.json, tokenizer and model.safetensors"
            ) from error
        raise SettingError(
            f"no captioner {name!r} was found here or on the hub ({first}); give a folder, or a hub id while online"
        ) from error


def _read(transformers: Any, name: str, *, here: bool) -> tuple[Any, Any]:
    """The same, as long as nothing goes wrong."""
    config = transformers.AutoConfig.from_pretrained(name, local_files_only=here)
    if config.model_type not in KINDS:
        raise UnusableFileError(
            f"a captioner must be of the kind {', '.join(KINDS)}, {name} is of the kind {config.model_type!r}; give another --model, "
            "such as Salesforce/blip-image-captioning-base"
        )
    model, report = transformers.AutoModelForImageTextToText.from_pretrained(
        name, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True, local_files_only=here
    )
    processor = transformers.AutoProcessor.from_pretrained(name, local_files_only=here)
    _check(name, model, processor, sorted(report["missing_keys"]))
    return model, processor


def _check(name: str, model: Any, processor: Any, missing: Sequence[str]) -> None:
    """Refuse what transformers fills up with random weights or an empty tokenizer."""
    words, known = model.config.get_text_config().vocab_size, len(getattr(processor, "tokenizer", ()))
    if missing:
        raise UnusableFileError(f"the captioner {name} lacks {len(missing)} weights, the first is {missing[0]}; download it again")
    if 2 * known < words:
        raise UnusableFileError(f"the captioner {name} has {words} words, its tokenizer knows {known}; copy the tokenizer's files, too")
