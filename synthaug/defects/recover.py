"""The mask of a filled defect is what changed, not what was asked for.

Code name   Meaning
apart       difference of the pair in lightness and two pairs of colours, smoothed a little, (3, h, w)
usual       how far apart two pictures of the same place may be: rounding and decoding, and the grain of the place itself, (h, w)
z           norm of apart over usual, (h, w)

A pixel belongs to the defect when z is at least half of what is typical of the defect and it hangs together with one that is beyond
doubt: hysteresis after Canny 1986, https://doi.org/10.1109/TPAMI.1986.4767851.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from synthaug.defects.copies import TrainingDefects
from synthaug.errors import SettingError, require
from synthaug.photos.regions import blurred, filled, grown
from synthaug.records import Verdict

__all__ = ["KINDS", "RecoveredMask", "RecoveryLimits", "count_kinds", "judge_filled", "recover_mask"]

KINDS = ("no visible defect", "spilled outside", "partly filled", "copy of a training defect")
"""How the reasons of rejection begin, in the order in which they are looked at."""

FLOOR, GRAIN = 4.0, 0.5
"""Grey levels that an autoencoder may be off by; share of the place's own variance that a redrawn one differs by."""

SMOOTHING = 0.7
"""Standard deviation in pixels by which a difference is smoothed."""

FAINTEST, TYPICAL = 2.0, 0.5
"""z that is no defect, whatever hangs on it; share of the defect's typical z that its edge has."""

FIRM = 4
"""So many pixels must be beyond doubt."""


@dataclass(frozen=True, kw_only=True)
class RecoveryLimits:
    """Where a filled defect stops being usable."""

    visible: float = 5.0
    """z that is beyond doubt: no defect is visible where fewer than four pixels reach it."""

    spilled: float = 0.1
    """Greatest share of the change that lies outside the region that was asked for."""

    filled: float = 0.1
    """Least number of changed pixels over those that were asked for."""

    copy: float = 0.45
    """A copy below this many times the distance that training defects keep from each other."""

    def __post_init__(self) -> None:
        require({
            "the limit of visibility must be above 2, what differs by itself": (self.visible > FAINTEST, self.visible),
            "the limit of spilling must be from 0 to 1": (0 <= self.spilled <= 1, self.spilled),
            "the limit of filling must be from 0 to 1": (0 <= self.filled <= 1, self.filled),
            "the copy limit must be in [0, 1)": (0 <= self.copy < 1, self.copy),
        })  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RecoveredMask:
    """What changed between a normal photo and the same photo with a defect."""

    mask: Tensor
    """uint8 (H, W), 1 = defect; within the region that was asked for, grown a little. Empty when nothing is visible."""

    peak: float
    """z that four pixels of the region reach."""

    spilled: float
    """Share of the change that lies outside the grown region, 0 to 1; 0 for pictures that were put together pixel by pixel."""

    filled: float
    """Pixels that changed over pixels that were asked for, 1 at most."""


def recover_mask(
    normal: Tensor, image: Tensor, asked: Tensor, *, reach: int = 3, limits: RecoveryLimits = RecoveryLimits()
) -> RecoveredMask:
    """Find what changed.

    Args:
        normal: uint8 (3, H, W).
        image: The same with a defect, uint8 (3, H, W).
        asked: Where the defect was to go, uint8 (H, W), 1 = defect.
        reach: Pixels by which the defect may go beyond what was asked for, such as the width of a soft edge.
        limits: Of visibility.

    Raises:
        SettingError: If the sizes differ, or nothing was asked for.

    Example:
        >>> normal = torch.full((3, 40, 60), 120, dtype=torch.uint8)
        >>> image, asked = normal.clone(), torch.zeros(40, 60, dtype=torch.uint8)
        >>> asked[10:30, 10:40] = 1
        >>> image[:, 12:20, 15:25] = 60
        >>> found = recover_mask(normal, image, asked)
        >>> int(found.mask.sum()), int(found.mask[12:20, 15:25].sum()), round(found.filled, 2)
        (80, 80, 0.13)
    """
    if not (normal.shape == image.shape and asked.shape == normal.shape[1:]):
        raise SettingError(
            "normal photo, filled image and mask must have one size, "
            f"got {tuple(normal.shape[1:])}, {tuple(image.shape[1:])} and {tuple(asked.shape)}; frame them alike"
        )
    if not asked.any():
        raise SettingError("the mask that was asked for must mark something, got an empty one; draw a shape first")
    z = change(normal, image)
    region = grown((asked > 0).float(), reach)
    inside, outside = z * region, z * (1 - region)
    mask, elsewhere = _hysteresis(inside, limits.visible), _hysteresis(outside, limits.visible)
    changed = mask.sum() + elsewhere.sum()
    return RecoveredMask(
        mask=mask.to(torch.uint8),
        peak=_reached(inside),
        spilled=float(elsewhere.sum() / changed) if changed else 0.0,
        filled=min(1.0, float(mask.sum() / (asked > 0).sum())),
    )


def judge_filled(
    image: Tensor, found: RecoveredMask, *, limits: RecoveryLimits = RecoveryLimits(), known: TrainingDefects | None = None
) -> Verdict:
    """Whether a filled image may be used.

    Args:
        image: uint8 (3, H, W).
        found: What changed in it.
        limits: Where to draw the lines.
        known: Training defects that it must not repeat; they are not looked at when left out.

    Returns:
        Scores, 0 to 1, higher = keep: ``visible`` is 0.5 at its limit, ``inside`` and ``filled`` are shares, ``new`` is the distance to the
        nearest training defect, 1 = as far as those keep from each other. The reason begins with one of ``KINDS``.

    Example:
        >>> found = RecoveredMask(mask=torch.zeros(8, 8, dtype=torch.uint8), peak=1.5, spilled=0.0, filled=0.0)
        >>> judge_filled(torch.zeros(3, 8, 8, dtype=torch.uint8), found).reason
        'no visible defect: the strongest change is 1.5 times what differs by itself, 5 is beyond doubt'
    """
    scores = {
        "visible": min(1.0, found.peak / (2 * limits.visible)),
        "inside": 1 - found.spilled,
        "filled": found.filled,
    }
    reason = ""
    if found.peak < limits.visible:
        reason = f"{KINDS[0]}: the strongest change is {found.peak:.1f} times what differs by itself, {limits.visible:g} is beyond doubt"
    elif found.spilled > limits.spilled:
        reason = f"{KINDS[1]}: {found.spilled:.0%} of the change lies outside the region asked for, {limits.spilled:.0%} may"
    elif found.filled < limits.filled:
        reason = f"{KINDS[2]}: {found.filled:.0%} as many pixels changed as were asked for, {limits.filled:.0%} must"
    if known is not None and found.mask.any():
        distance, name = known.nearest(image, found.mask)
        scores["new"] = min(1.0, distance)
        if not reason and distance < limits.copy:
            reason = f"{KINDS[3]}: {distance:.2f} from {name}, where 1 is the distance between training defects"
    return Verdict(keep=not reason, reason=reason, scores={key: round(value, 4) for key, value in scores.items()})


def count_kinds(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many were rejected for what; all kinds are named, those that did not happen with 0.

    Example:
        >>> count_kinds([Verdict(keep=False, reason="partly filled: 2% ..."), Verdict(keep=True)])["partly filled"]
        1
    """
    counted = Counter(verdict.reason.split(":")[0] for verdict in verdicts if not verdict.keep)
    return {kind: counted[kind] for kind in KINDS}


def change(normal: Tensor, image: Tensor) -> Tensor:
    """How much each pixel differs against what it would differ by itself, float (H, W), 0 for equal pixels.

    Args:
        normal: uint8 (3, H, W).
        image: uint8 (3, H, W).
    """
    before = _opponent(normal)
    apart = _smoothed(_opponent(image) - before, SMOOTHING)
    grain = (before - _smoothed(before, 2.0)).square()
    usual = (FLOOR**2 + GRAIN * blurred(grain, 4)).sqrt()
    z: Tensor = torch.linalg.vector_norm(apart / usual, dim=0)
    return z


def _hysteresis(z: Tensor, sure: float) -> Tensor:
    """Zeros and ones (H, W): what hangs together with pixels beyond doubt, holes filled."""
    if _reached(z) < sure:
        return torch.zeros_like(z)
    seeds = z >= sure
    cut = max(FAINTEST, TYPICAL * float(z[seeds].median()))
    within, found = (z >= cut).float(), seeds.float()
    while True:  # grows by a pixel a turn
        more = F.max_pool2d(found[None, None], 3, 1, 1)[0, 0] * within
        if torch.equal(more, found):
            break
        found = more
    return filled(found)


def _reached(z: Tensor) -> float:
    """What the strongest few pixels reach."""
    return float(z.flatten().topk(min(FIRM, z.numel())).values[-1])


def _opponent(picture: Tensor) -> Tensor:
    """Lightness, red against green, yellow against blue, float (3, H, W)."""
    red, green, blue = picture.float().unbind(0)
    return torch.stack([0.299 * red + 0.587 * green + 0.114 * blue, 0.7 * (red - green), 0.7 * ((red + green) / 2 - blue)])


def _smoothed(planes: Tensor, sigma: float) -> Tensor:
    """Gaussian of (C, H, W); the border repeats."""
    reach = int(2.5 * sigma + 0.5)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weight = weight / weight.sum()
    padded = F.pad(planes[:, None], (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, weight.reshape(1, 1, -1, 1)), weight.reshape(1, 1, 1, -1))[:, 0]
