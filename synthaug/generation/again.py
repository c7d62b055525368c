"""What a picture says of how it was drawn, so that it can be drawn again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from synthaug.errors import SettingError, UnusableFileError
from synthaug.generation.lora_tags import file_hash, lora_hash_of
from synthaug.pixels import picture_text
from synthaug.records import Infotext, Request, base_of, left_over, parse_infotext
from synthaug.records.infotext import finder_in, hashes_in

__all__ = ["Original", "difference", "read_original"]


@dataclass(frozen=True, kw_only=True)
class Original:
    """A picture that is to be drawn again."""

    request: Request
    """What was asked for."""

    base: str | None
    """The base it was drawn with, by name or path; None if it does not say."""

    base_hash: str | None
    """How the fingerprint of that base begins; None where another tool drew, which hashes bases in another way."""

    lacking: dict[str, str] = field(default_factory=dict)
    """Settings that are not ours and will be missing."""

    def check_base(self, name: str, fingerprint: str) -> None:
        """Refuse a base that is not the picture's.

        Raises:
            SettingError: If the picture says so.
        """
        if self.base_hash and not fingerprint.startswith(self.base_hash):
            raise SettingError(
                f"an image is drawn again with the base it was drawn with ({self.base}, {self.base_hash}), got {name} "
                f"({fingerprint[: len(self.base_hash)]}); give that one as --base"
            )


def read_original(picture: Path, *, lora_folders: Sequence[Path | str] = (), image: str | None = None, mask: str | None = None) -> Original:
    """Read how a picture was drawn: our own JSON if it is there, A1111's infotext otherwise.

    Args:
        picture: PNG, JPEG or WebP.
        lora_folders: Where LoRAs and embeddings lie that are told by name, or have moved.
        image: The photo it was drawn from, where it does not hold it or the photo has moved.
        mask: The same of its mask.

    Raises:
        UnusableFileError: If it cannot be read or says nothing.
        SettingError: If what it says cannot be used, it was drawn from a photo that is not given, or a file is not found, or is another
            one than it was drawn with.
    """
    texts = picture_text(picture)
    told = texts.get("parameters", "")
    if "synthaug" in texts:
        request = _found_again(_from_json(picture, texts["synthaug"]), lora_folders)
    elif told:
        request = Request.from_infotext(told, lora_folders=lora_folders)
    else:
        raise UnusableFileError(f"{picture} says nothing of how it was drawn; take a file that no program has saved anew")
    found = parse_infotext(told) if told else Infotext(prompt="")
    request = _with_photo(picture, request, found.values, image, mask)
    _check_files(picture, request, found.values)
    ours = found.values.get("Version", "").startswith("synthaug")
    return Original(
        request=request, base=base_of(found), base_hash=found.values.get("Model hash") if ours else None, lacking=left_over(found)
    )


def difference(one: Tensor, other: Tensor) -> int:
    """Largest difference of two pictures of one size, uint8 (3, H, W), in steps of 255.

    Example:
        >>> difference(torch.tensor([[[3, 9]]], dtype=torch.uint8), torch.tensor([[[4, 2]]], dtype=torch.uint8))
        7
    """
    return int((one.to(torch.int16) - other.to(torch.int16)).abs().max())


def _from_json(picture: Path, text: str) -> Request:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UnusableFileError(f"what {picture} says under 'synthaug' is not JSON ({error}); take another copy of it") from error
    if not isinstance(data, dict):
        raise UnusableFileError(f"what {picture} says under 'synthaug' is no request, but {text[:40]!r}; take another copy of it")
    return Request.from_json(data)


def _found_again(request: Request, folders: Sequence[Path | str]) -> Request:
    """The request with LoRAs and embeddings that are no longer where they were looked up by name."""
    find = finder_in(tuple(folders))
    uses = [use if Path(use.path).exists() else replace(use, path=find("LoRA", Path(use.path).stem)) for use in request.loras]
    embeddings = [path if Path(path).exists() else find("embedding", Path(path).stem) for path in request.embeddings]
    return replace(request, loras=tuple(uses), embeddings=tuple(embeddings))


def _with_photo(picture: Path, request: Request, values: Mapping[str, str], image: str | None, mask: str | None) -> Request:
    """The request with the photo and the mask that are given.

    Raises:
        SettingError: If one is missing, or given to a picture that was drawn without.
    """
    masked = request.mask is not None or any(key in values for key in ("Mask blur", "Inpaint area", "Masked content", "Mask mode"))
    drawn_over = request.image is not None or masked or request.strength < 1 or ("Denoising strength" in values and not request.hires)
    own = {"image": (request.image, image, drawn_over, "photo"), "mask": (request.mask, mask, masked, "mask")}
    for name, (known, given, needed, what) in own.items():
        if needed and not (known or given):
            raise SettingError(f"{picture} was drawn from a {what} that it does not hold; give --{name}")
        if given and not needed:
            raise SettingError(f"{picture} was drawn without a {what}, got --{name} {given}; leave it out")
    return replace(request, image=image or request.image, mask=mask or request.mask)


def _check_files(picture: Path, request: Request, values: Mapping[str, str]) -> None:
    listed = {what: hashes_in(values.get(key, "")) for what, key in (("LoRA", "Lora hashes"), ("embedding", "TI hashes"))}
    files = [("LoRA", use.path, listed["LoRA"].get(Path(use.path).stem), "--lora_folder") for use in request.loras]
    files += [("embedding", path, listed["embedding"].get(Path(path).stem), "--lora_folder") for path in request.embeddings]
    for what, given in (("image", request.image), ("mask", request.mask)):
        files += [(what, given, values.get(f"synthaug {what} hash"), f"--{what}")] if given else []
    for what, path, then, option in files:
        if not then:
            continue
        now = lora_hash_of(path) if what == "LoRA" else file_hash(path, what=what)
        if not now.startswith(then):
            raise SettingError(
                f"an image is drawn again with the {what} it was drawn with, {picture} tells of one with hash {then}, {path} has "
                f"{now[: len(then)]}; name the right one, or the folder it lies in ({option})"
            )
