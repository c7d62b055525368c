"""A classifier that says what a picture shows: which object, on which surface, with which defect.

It is trained on renders alone and measured on renders it has not seen; only then does its opinion of
drawn images count. About one million weights, four minutes on two cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from synthaug.errors import UnusableFileError, require
from synthaug.pixels import to_float
from synthaug.pocket.flaws import FLAWS
from synthaug.pocket.grounds import GROUNDS
from synthaug.pocket.pictures import KEPT_BACK, PictureSet
from synthaug.pocket.scenes import OBJECTS

__all__ = ["ANSWERS", "Judge", "judge_from", "train_judge"]

ANSWERS: dict[str, list[str]] = {
    "thing": ["nothing", *sorted(OBJECTS)],
    "ground": sorted(GROUNDS),
    "flaw": ["nothing", *sorted(FLAWS)],
}
"""Question -> possible answers, under the names of a picture's facts."""

BATCH = 64

SOUND = 0.3
"""How much a picture without a flaw counts when flaws are learned: two in three have none, and to say so is right too cheaply."""

HARD = 2.0
"""How much flaws count against objects and grounds, which are easier to see."""


class Judge(nn.Module):
    """Convolutions with one head per question."""

    def __init__(self, widths: tuple[int, ...] = (24, 64, 112, 192)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 5, stride=2, padding=2), nn.BatchNorm2d(widths[0]), nn.ReLU(), nn.MaxPool2d(2)]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({name: nn.Linear(2 * widths[-1], len(answers)) for name, answers in ANSWERS.items()})

    @override
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Scores of every answer, (B, answers) per question; pictures (B, 3, H, W) in [-1, 1]."""
        seen = self.body(x.contiguous(memory_format=torch.channels_last))
        pooled = torch.cat([seen.amax((2, 3)), seen.mean((2, 3))], 1)
        return {name: head(F.dropout(pooled, 0.2, self.training)) for name, head in self.heads.items()}

    @torch.inference_mode()
    def answers(self, pixels: Tensor) -> dict[str, list[str]]:
        """The likeliest answer of every picture, uint8 (N, 3, H, W), per question."""
        self.eval()
        parts = [self(to_float(pixels[at : at + 128])) for at in range(0, len(pixels), 128)]
        return {
            name: [answers[k] for k in torch.cat([part[name].argmax(1) for part in parts]).tolist()] for name, answers in ANSWERS.items()
        }


@dataclass(frozen=True, kw_only=True)
class _Set:
    pixels: Tensor
    truth: dict[str, Tensor]


def train_judge(pictures: PictureSet, *, count: int = 20_000, epochs: int = 6, seed: int = 0) -> tuple[Judge, dict[str, float]]:
    """Train a judge on renders and measure it on those that were kept back.

    Args:
        pictures: Some hundred more than are kept back; ten thousand are better.
        count: How many to train on.
        epochs: Passes over them.
        seed: Seed of weights and order.

    Returns:
        The judge and the share of right answers per question, and per question on flaws where there is one.

    Raises:
        SettingError: If there are too few pictures.
    """
    require({f"a judge needs more than {KEPT_BACK + BATCH} renders": (len(pictures) > KEPT_BACK + BATCH, len(pictures))})
    torch.manual_seed(seed)
    seen = _load(pictures, list(range(min(count, len(pictures) - KEPT_BACK))))
    judge = Judge().to(memory_format=torch.channels_last)
    steps = epochs * (len(seen.pixels) // BATCH)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    order = torch.cat([torch.randperm(len(seen.pixels)) for _ in range(epochs + 1)])
    for step in range(steps):
        rows = order[step * BATCH : (step + 1) * BATCH]
        with torch.autocast("cpu", torch.bfloat16):
            scores = judge(_jittered(to_float(seen.pixels[rows])))
        loss = sum((_loss(name, scores[name].float(), truth[rows]) for name, truth in seen.truth.items()), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        optimizer.step()
        rate.step()
        if (step + 1) % 500 == 0:
            print(f"judge: step {step + 1} of {steps}, loss {loss.item():.3f}", flush=True)
    held_out = _load(pictures, list(range(len(pictures) - KEPT_BACK, len(pictures))))
    given = judge.answers(held_out.pixels)
    right = {name: [ANSWERS[name][k] for k in truth.tolist()] for name, truth in held_out.truth.items()}
    found = {name: sum(map(str.__eq__, given[name], right[name])) / KEPT_BACK for name in ANSWERS}
    flawed = [a == b for a, b in zip(given["flaw"], right["flaw"], strict=True) if b != "nothing"]
    return judge, found | {"flaw, where there is one": sum(flawed) / max(1, len(flawed))}


def judge_from(file: Path | None, pictures: PictureSet, *, count: int = 20_000) -> tuple[Judge, dict[str, float]]:
    """The judge that a file holds with its accuracy, or a new one, kept in the file when there is a name for it.

    Raises:
        UnusableFileError: If the file's judge was asked other questions, or knows other answers.
        SettingError: If there are too few renders to train one.
    """
    if file is None or not file.exists():
        judge, accuracy = train_judge(pictures, count=count)
        if file is not None:
            torch.save({"weights": judge.state_dict(), "answers": ANSWERS, "accuracy": accuracy}, file)
        return judge, accuracy
    kept = torch.load(file, weights_only=True)
    if kept.get("answers") != ANSWERS:
        raise UnusableFileError(
            f"a judge must know the objects, surfaces and defects of today, {file} knows others; delete it to train one"
        )
    judge = Judge()
    judge.load_state_dict(kept["weights"])
    return judge, kept["accuracy"]


def _load(pictures: PictureSet, rows: list[int]) -> _Set:
    truth = {
        name: torch.tensor([answers.index(pictures.facts[row][name] or "nothing") for row in rows]) for name, answers in ANSWERS.items()
    }
    return _Set(pixels=torch.from_numpy(pictures.pixels(rows)).permute(0, 3, 1, 2).contiguous(), truth=truth)


def _loss(name: str, scores: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of one question."""
    if name != "flaw":
        return F.cross_entropy(scores, truth)
    counts = torch.ones(scores.shape[1])
    counts[ANSWERS[name].index("nothing")] = SOUND
    return HARD * F.cross_entropy(scores, truth, counts)


def _jittered(batch: Tensor) -> Tensor:
    """Turn, mirror, shift, soften and roughen: what a drawn image may differ in without showing another thing."""
    if torch.rand(()) < 0.5:
        batch = batch.flip(3)
    batch = torch.rot90(batch, int(torch.randint(4, ())), (2, 3))
    batch = torch.roll(batch, (int(torch.randint(-6, 7, ())), int(torch.randint(-6, 7, ()))), (2, 3))
    if torch.rand(()) < 0.3:
        batch = F.avg_pool2d(F.pad(batch, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return batch + 0.03 * torch.randn_like(batch)
