"""What a one-file checkpoint says of itself besides its weights: prediction, noise schedule, size.

Read are our own metadata, those of the model spec (https://github.com/Stability-AI/ModelSpec), the empty weights ``v_pred``
and ``ztsnr`` that some files carry, and the configuration ``NAME.yaml`` that may lie beside the file.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from synthaug.errors import SettingError, UnusableFileError
from synthaug.models.base import Prediction
from synthaug.models.ldm_names import Family

__all__ = ["SAID", "agreed_prediction", "recorded_prediction", "said_by_us", "schedule_of", "size_of", "stated_predictions"]

SAID = "synthaug.base"
"""Metadata key of the settings that weights do not show, as JSON."""

_WORDS: dict[str, Prediction] = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon", "eps": "epsilon"}
_SCHEDULE = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
    "set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading",
}  # fmt: skip
_SIDE: dict[Family, int] = {"sd1": 512, "sd2": 768, "sdxl": 1024}

log = logging.getLogger(__name__)


def said_by_us(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What :func:`synthaug.models.ldm.write_ldm` wrote into a file; empty for other tools' files.

    Raises:
        UnusableFileError: If it is no JSON object.
    """
    try:
        said = json.loads(metadata.get(SAID, "{}"))
    except json.JSONDecodeError as error:
        raise UnusableFileError(
            f"the metadata {SAID} of a base must be JSON, those of {path} are not ({error}); download or copy it again"
        ) from error
    if not isinstance(said, dict):
        raise UnusableFileError(f"the metadata {SAID} of a base must be a JSON object, those of {path} are {said!r}; download it again")
    return said


def stated_predictions(path: Path, names: Collection[str], metadata: Mapping[str, str]) -> dict[str, Prediction]:
    """What the network predicts, by who says so; empty when nobody does.

    Raises:
        UnusableFileError: If it predicts neither epsilon nor v, or its configuration cannot be read.
    """
    stated: dict[str, str] = {}
    if "v_pred" in names:
        stated["its weight v_pred"] = "v"
    if spec := metadata.get("modelspec.prediction_type"):
        stated["its modelspec.prediction_type"] = spec
    if prediction := said_by_us(metadata, path).get("schedule", {}).get("prediction_type"):
        stated[f"its {SAID}"] = prediction
    sidecar = path.with_suffix(".yaml")
    if sidecar.is_file():
        stated |= _sidecar(sidecar)
    if unknown := [f"{who} says {word!r}" for who, word in stated.items() if word not in _WORDS]:
        raise UnusableFileError(f"a base must predict epsilon or v, of {path} {unknown[0]}; take another base")
    return {who: _WORDS[word] for who, word in stated.items()}


def recorded_prediction(lora: Mapping[str, str]) -> Prediction | None:
    """What a LoRA file says that its base predicts; None for files that ``synthaug fit`` did not write, which may be worn on others.

    Example:
        >>> recorded_prediction({"synthaug.base": "sd2.safetensors", "modelspec.prediction_type": "v"})
        'v_prediction'
    """
    return _WORDS.get(lora.get("modelspec.prediction_type", "")) if lora.get(SAID) else None


def _sidecar(path: Path) -> dict[str, str]:
    """What the official configuration of a checkpoint says; without a word about it, it means epsilon."""
    try:
        model = dict(yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["params"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UnusableFileError(
            f"a configuration beside a checkpoint must have model.params, {path} has none that can be read "
            f"({str(error).splitlines()[0]}); take it away, or copy it again"
        ) from error
    by_scaling = "v" if "VScaling" in str(model.get("denoiser_config")) else "eps"
    return {path.name: str(model.get("parameterization", by_scaling))}


def agreed_prediction(name: str, stated: Mapping[str, Prediction], asked: Prediction | None, family: Family) -> Prediction:
    """What the network predicts.

    Args:
        name: The base's.
        stated: By who says so.
        asked: What the user says, None to leave it to the file.
        family: Decides when nobody says: SD 1.x and SDXL were published with epsilon, of SD 2.x the larger with v.

    Raises:
        SettingError: If the user says something else than the file.
        UnusableFileError: If the file contradicts itself and the user says nothing.
    """
    said = set(stated.values())
    who = " and ".join(f"{one} ({what})" for one, what in stated.items())
    if len(said) == 1 and asked not in (None, *said):
        raise SettingError(
            f"prediction must be what the base predicts, {asked!r} was asked of {name}, but {who} says otherwise; leave it out"
        )
    if asked is not None:
        return asked
    if len(said) > 1:
        raise UnusableFileError(f"a base must say one thing of what it predicts, {name} does not: {who}; give prediction yourself")
    if stated:
        return said.pop()
    if family != "sd2":
        return "epsilon"
    _say_once(name)
    return "v_prediction"


@cache
def _say_once(name: str) -> None:
    log.warning(
        "%s does not say what it predicts, and SD 2.x has both; v_prediction at 768 pixels is assumed: give prediction 'epsilon', or put "
        "its configuration beside it as %s", name, Path(name).with_suffix(".yaml").name,
    )  # fmt: skip


def schedule_of(names: Collection[str], said: Mapping[str, Any], prediction: Prediction) -> dict[str, Any]:
    """The noise schedule, as diffusers writes it."""
    ends_in_noise = {"rescale_betas_zero_snr": "ztsnr" in names}
    return {**_SCHEDULE, **ends_in_noise, **said.get("schedule", {}), "prediction_type": prediction}


def size_of(metadata: Mapping[str, str], said: Mapping[str, Any], family: Family, prediction: Prediction) -> tuple[int, int]:
    """Height and width that the base was trained for."""
    if "size" in said:
        height, width = said["size"]
        return height, width
    if found := re.fullmatch(r"(\d+)x(\d+)", metadata.get("modelspec.resolution", "")):
        return int(found[2]), int(found[1])
    side = 512 if family == "sd2" and prediction == "epsilon" else _SIDE[family]
    return side, side
