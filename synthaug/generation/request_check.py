"""What would stop an image in the middle of a run, found before its first step: names, second passes, and the prompt's grammar."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from synthaug.errors import SettingError
from synthaug.generation.hires import drawn_size
from synthaug.generation.jobs import evaluations
from synthaug.generation.sampler_names import SAMPLERS, looks_of, split_sampler
from synthaug.prompts import course_of, weighted_runs
from synthaug.records import Drawing, Request

__all__ = ["check_request", "require_photo"]


def check_request(request: Request) -> None:
    """Refuse a request that cannot be drawn with any base.

    Raises:
        SettingError: If its sampler or schedule is unknown, the sampler has no ``eta`` to choose, its second pass or its share of a run
            cannot be drawn, or a prompt cannot be read.

    Example:
        >>> check_request(Request(prompt="a (fish:1.2.3)", seed=1))
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: ...
    """
    _check_sampler(request.sampler, request.schedule, request.eta)
    drawn_size(request)
    if request.strength < 1:
        evaluations(request.steps, request.strength, exact=request.exact_steps)
    looks = looks_of(request.sampler)
    first = looks * request.steps
    passes = {False: first} | ({True: looks * (request.hires.steps or request.steps)} if request.hires else {})
    for hires, steps in passes.items():
        for prompt, composes in ((request.prompt, True), (request.negative_prompt, False)):
            _check_prompt(prompt, request.emphasis, steps, first, hires=hires, composes=composes)


def require_photo(requests: Sequence[Drawing]) -> None:
    """Refuse a photo that would not be looked at, and a strength without a photo.

    A photo at strength 1 has a meaning with a mask, with controls, and where the others of a grid have less.

    Raises:
        SettingError: If one of the two is there.

    Example:
        >>> require_photo([Drawing(image="fish.png")])
        Traceback (most recent call last):
        ...
        synthaug.errors.SettingError: a photo at strength 1 would not be looked at, got image 'fish.png'; give --strength 0.75, or less
    """
    for one in requests:
        if one.strength < 1 and one.image is None:
            raise SettingError(f"strength below 1 needs a photo, got {one.strength:g} and none; give --image FILE, or leave strength out")
    if requests and all(one.image and one.strength == 1 and not (one.mask or one.controls) for one in requests):
        raise SettingError(f"a photo at strength 1 would not be looked at, got image {requests[0].image!r}; give --strength 0.75, or less")


@lru_cache(maxsize=256)
def _check_sampler(sampler: str, schedule: str, eta: float | None) -> None:
    name, _ = split_sampler(sampler, schedule)
    if eta is not None and not SAMPLERS[name].takes_eta:
        takers = ", ".join(sorted(other for other, its in SAMPLERS.items() if its.takes_eta))
        raise SettingError(f"{name} has no share of fresh noise to choose, got eta={eta}; leave it out, or choose one of: {takers}")


@lru_cache(maxsize=4096)
def _check_prompt(prompt: str, emphasis: str, steps: int, first: int, *, hires: bool, composes: bool) -> None:
    for text in course_of(prompt, steps, hires=hires, first_steps=first, composes=composes).texts:
        if emphasis != "None":
            weighted_runs(text)
