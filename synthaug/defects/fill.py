"""Put defects into real normal photos: redraw a place, look at what changed, draw again what is not good.

shape ─▶ placement (what is redrawn, how large it is drawn) ─▶ sampler ─▶ pixels outside as they were ─▶ recovered mask ─▶ verdict
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from synthaug.defects.copies import TrainingDefects
from synthaug.defects.masks import check_mask, restrict
from synthaug.defects.recover import RecoveryLimits, count_kinds, judge_filled, recover_mask
from synthaug.errors import SettingError
from synthaug.generation.inpainting import softened
from synthaug.generation.plan import Plan
from synthaug.generation.sampler import Sampler
from synthaug.photos.regions import grown, shrunk
from synthaug.records import Request, Verdict
from synthaug.seeds import seed_for

__all__ = ["Filled", "Filler", "Placement", "confined", "count_rejections", "place"]

THINNEST = 5
"""Pixels across that a redrawn place has at least, so that a soft edge leaves a middle that is redrawn in full."""

CELLS = 1.5
"""Places of the latent across that it has at least: wherever they begin, half of one is covered."""

ROOM = 1.0
"""Surroundings that are shown on each side of a small defect, against its own longer side."""

EDGE = 3
"""Pixels around what changed that stay as they were drawn, more or less."""

LEAST_ROOM, SMALL = 12, 0.4
"""Pixels of surroundings at least; share of the picture's side below which a defect is enlarged."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a place is redrawn so that a defect of its size comes out."""

    redrawn: Tensor
    """uint8 (H, W): what was asked for, thickened where it is too thin for the latent."""

    mask_blur: int
    """Softness of the edge, a pixel at least."""

    only_masked: bool
    """Whether the surroundings are enlarged to the whole size."""

    mask_padding: int
    """Pixels around the mask that are shown."""

    thickened: int
    """Pixels by which ``redrawn`` goes beyond what was asked for."""

    @property
    def reach(self) -> int:
        """Pixels beyond what was asked for that may change."""
        return self.thickened + int(2.5 * self.mask_blur + 0.5)


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A normal photo with a defect."""

    image: Tensor
    """uint8 (3, H, W), bit for bit the normal photo farther than six pixels from ``mask``, and everywhere when that is empty."""

    mask: Tensor
    """What changed, uint8 (H, W), 1 = defect."""

    asked: Tensor
    """What was asked for, uint8 (H, W)."""

    redrawn: Tensor
    """What was redrawn, uint8 (H, W)."""

    request: Request
    """How it was drawn."""

    verdict: Verdict
    """Whether it may be used; of the last try where none was good."""

    rejected: tuple[Verdict, ...] = ()
    """Of the tries before."""


def place(mask: Tensor, *, factor: int) -> Placement:
    """Choose how a place is redrawn, by the size of the defect.

    Args:
        mask: uint8 (H, W), 1 = defect, of the size that is drawn; not empty.
        factor: Pixels along the side of one place of the latent.

    Example:
        >>> mask = torch.zeros(128, 128, dtype=torch.uint8)
        >>> mask[60:64, 60:64] = 1
        >>> found = place(mask, factor=8)
        >>> found.only_masked, found.mask_blur, found.mask_padding, int(found.redrawn.sum())
        (True, 1, 12, 36)
    """
    marked = (mask > 0).float()
    height, width = mask.shape
    rows, columns = (marked.any(dim).nonzero().flatten() for dim in (1, 0))
    box = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
    padding = min(256, max(LEAST_ROOM, round(ROOM * box)))
    side = min(box + 2 * padding, height, width)
    enlarged = min(height, width) / side if box < SMALL * min(height, width) else 1.0
    wanted = max(THINNEST, math.ceil(CELLS * factor / enlarged))
    thick = _thickness(marked)
    grow = max(0, math.ceil((wanted - thick) / 2))
    return Placement(
        redrawn=grown(marked, grow).to(torch.uint8), mask_blur=max(1, min(4, (thick + 2 * grow) // 6)), only_masked=enlarged > 1,
        mask_padding=padding, thickened=grow,
    )  # fmt: skip


def confined(image: Tensor, normal: Tensor, mask: Tensor) -> Tensor:
    """A filled image with the normal photo back wherever nothing visible changed, so that no redrawn grain gives the place away.

    Args:
        image: uint8 (3, H, W).
        normal: uint8 (3, H, W).
        mask: What changed, uint8 (H, W); it stays in full, with a soft edge of six pixels around it.

    Example:
        >>> normal, mask = torch.zeros(3, 1, 16, dtype=torch.uint8), torch.zeros(1, 16, dtype=torch.uint8)
        >>> mask[:, :4] = 1
        >>> confined(normal + 100, normal, mask)[0, 0].tolist()
        [100, 100, 100, 100, 100, 94, 70, 30, 6, 0, 0, 0, 0, 0, 0, 0]
    """
    cover = softened(grown((mask > 0).float(), EDGE).to(torch.uint8), 1)
    return (normal.float() + cover * (image.float() - normal.float())).round().to(torch.uint8)


class Filler:
    """Puts defects into normal photos; what comes out for photo number ``i`` depends on ``i``, its mask and the plan alone.

    Args:
        sampler: Draws, with a base that redraws by blending (4 channels) or one made for it (9 channels).
        plan: Words, LoRAs, steps and so on; its size is that of the window that is drawn, cut out of larger photos.
        limits: What is rejected; the usual ones when left out.
        known: Training defects that must not be repeated.
        tries: Drawings of one photo at most, each with a seed of its own.
        batch: Photos that are drawn together.

    Raises:
        SettingError: If there are no tries, or the plan starts from photos of its own.

    Example:
        >>> filler = Filler(Sampler("pocket"), Plan(prompts=("a hole in grey paper",), base="pocket"), tries=2)
        >>> filler.tries
        2
    """

    def __init__(
        self, sampler: Sampler, plan: Plan, *, limits: RecoveryLimits | None = None, known: TrainingDefects | None = None,
        tries: int = 3, batch: int = 8,
    ) -> None:  # fmt: skip
        if tries < 1 or batch < 1:
            raise SettingError(f"tries and batch must be at least 1, got {tries} and {batch}")
        if plan.image or plan.mask or plan.hires:
            raise SettingError("a plan for filling must have no image, mask or second pass of its own; leave them out")
        self.sampler, self.plan, self.known, self.tries, self.batch = sampler, plan, known, tries, batch
        self.limits = RecoveryLimits() if limits is None else limits

    def __call__(
        self, normals: Sequence[Tensor], masks: Sequence[Tensor], *, areas: Sequence[Tensor] | None = None, first: int = 0
    ) -> list[Filled]:
        """Fill photos.

        Args:
            normals: Photos without a defect, uint8 (3, H, W).
            masks: Where each gets one, uint8 (H, W), 1 = defect.
            areas: Where the objects are, uint8 (H, W); what of a mask lies beside its object is left out.
            first: Number of the first photo.

        Returns:
            One for each photo, those without a good try too: look at ``verdict.keep``.

        Raises:
            SettingError: If there is no photo, the numbers differ, a defect is larger than what is drawn, or a mask cannot be used, see
                :func:`synthaug.defects.masks.check_mask`.
            UnusableFileError: If a LoRA of the plan cannot be used with the base.
        """
        if not normals or len(normals) != len(masks) or (areas is not None and len(areas) != len(normals)):
            raise SettingError(
                f"filling needs normal photos, and a mask for each, got {len(normals)} photos, {len(masks)} masks"
                + ("" if areas is None else f" and {len(areas)} masks of objects")
                + "; give photos without a defect"
            )
        todo = [
            self._asked(normal, mask, None if areas is None else areas[row], first + row)
            for row, (normal, mask) in enumerate(zip(normals, masks, strict=True))
        ]
        done: dict[int, Filled] = {}
        for attempt in range(self.tries):
            left = [row for row in range(len(todo)) if row not in done or not done[row].verdict.keep]
            for rows in self._batches(left, todo):
                for row, filled in zip(rows, self._drawn([todo[row] for row in rows], attempt), strict=True):
                    before = done.get(row)
                    done[row] = filled if before is None else replace(filled, rejected=(*before.rejected, before.verdict))
        return [done[row] for row in range(len(todo))]

    def _asked(self, normal: Tensor, mask: Tensor, area: Tensor | None, index: int) -> _Asked:
        height, width = normal.shape[1:]
        if normal.dtype != torch.uint8 or min(height, width) < 8:
            raise SettingError(
                f"a normal photo must be uint8 with sides of 8 pixels at least, number {index} is {normal.dtype}, {height} x {width}"
            )
        check_mask(mask, (height, width), area=area, name=f"mask {index}")
        kept = restrict(mask, mask if area is None else area)
        size = min(self.plan.size[0], height // 8 * 8), min(self.plan.size[1], width // 8 * 8)
        box = _window(kept, size, index)
        return _Asked(index=index, normal=normal, asked=kept, box=box, placement=place(kept[box], factor=self.sampler.networks.factor))

    def _batches(self, rows: list[int], todo: list[_Asked]) -> list[list[int]]:
        """Rows of one window size, a batch at a time."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for row in rows:
            alike.setdefault(tuple(todo[row].asked[todo[row].box].shape), []).append(row)
        return [group[at : at + self.batch] for group in alike.values() for at in range(0, len(group), self.batch)]

    def _drawn(self, wanted: list[_Asked], attempt: int) -> list[Filled]:
        requests = [self._request(each, attempt) for each in wanted]
        photos = torch.stack([each.normal[:, each.box[0], each.box[1]] for each in wanted])
        drawn = self.sampler(requests, photos, torch.stack([each.placement.redrawn for each in wanted])).cpu()
        return [self._judged(each, request, window) for each, request, window in zip(wanted, requests, drawn, strict=True)]

    def _request(self, each: _Asked, attempt: int) -> Request:
        how = each.placement
        return replace(
            self.plan.request(each.index),
            seed=seed_for(self.plan.seed, "fill", each.index, attempt) >> 10,  # 53 bits survive JSON in any language
            size=(how.redrawn.shape[0], how.redrawn.shape[1]),
            mask_blur=how.mask_blur, only_masked=how.only_masked, mask_padding=how.mask_padding,
        )  # fmt: skip

    def _judged(self, each: _Asked, request: Request, window: Tensor) -> Filled:
        image, redrawn = each.normal.clone(), torch.zeros_like(each.asked)
        image[:, each.box[0], each.box[1]], redrawn[each.box] = window, each.placement.redrawn
        found = recover_mask(each.normal, image, each.asked, reach=each.placement.reach, limits=self.limits)
        verdict = judge_filled(image, found, limits=self.limits, known=self.known)
        return Filled(
            image=confined(image, each.normal, found.mask),
            mask=found.mask,
            asked=each.asked,
            redrawn=redrawn,
            request=request,
            verdict=verdict,
        )


def count_rejections(filled: Sequence[Filled]) -> dict[str, int]:
    """How many tries were rejected for what, those that were drawn again too."""
    return count_kinds([verdict for each in filled for verdict in (*each.rejected, each.verdict)])


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A photo, and what is to be redrawn of it."""

    index: int
    normal: Tensor
    asked: Tensor
    box: tuple[slice, slice]
    placement: Placement


def _window(mask: Tensor, size: tuple[int, int], index: int) -> tuple[slice, slice]:
    """The part of a photo of this size whose middle is that of the mask, pushed back into the photo."""
    found = mask.nonzero()
    low, high = found.amin(0).tolist(), (found.amax(0) + 1).tolist()
    box = []
    for side, whole, begin, end in zip(size, mask.shape, low, high, strict=True):
        if end - begin > side:
            raise SettingError(
                f"a defect must fit into what is drawn, mask {index} is {end - begin} pixels long and {side} are drawn; "
                "give the plan a larger size, or ask for a smaller defect"
            )
        at = min(max(0, (begin + end - side) // 2), whole - side)
        box.append(slice(at, at + side))
    return box[0], box[1]


def _thickness(marked: Tensor) -> int:
    """About how many pixels the thickest part is across."""
    reach, rest = 0, shrunk(marked, 1)
    while rest.any() and reach < max(marked.shape):
        reach, rest = reach + 1, shrunk(rest, 1)
    return 2 * reach + 1
