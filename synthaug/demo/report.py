"""The demo's report: one HTML file with everything in it, to be opened or sent as it is."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from synthaug.demo.world import World
from synthaug.manifest import Manifest
from synthaug.records import Sample

__all__ = ["write_report"]

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1c1f24;background:#fbfbfa}
h1{font-size:1.7rem}h2{font-size:1.2rem;margin-top:2.4rem}
.row{display:flex;flex-wrap:wrap;gap:.5rem}figure{margin:0;width:8rem}figure img{width:8rem;height:8rem;display:block}
figcaption{font-size:.72rem;line-height:1.25;color:#555;padding:.2rem 0}
.out img{opacity:.55;outline:3px solid #c0392b;outline-offset:-3px}.in img{outline:3px solid #2e8b57;outline-offset:-3px}
table{border-collapse:collapse}td,th{padding:.25rem .9rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}.verdict{font-size:1.1rem;padding:.8rem 1rem;background:#eef3ee;border-left:4px solid #2e8b57}
svg{background:#fff;border:1px solid #ddd}
"""


def write_report(out: Path, world: World, seconds: Mapping[str, float]) -> Path:
    """Gather what the stages left in the demo's folder.

    Args:
        out: The folder.
        world: Where its photos are.
        seconds: Time of each stage.

    Returns:
        ``out/report.html``.
    """
    base, drawn = Manifest(out / "base"), Manifest(out / "images")
    rejected = [sample for sample in drawn.samples if sample.verdict is not None and not sample.verdict.keep]
    sections = [
        ("The photos", "Dried sardines on white paper: the 23 belly-burst ones are all the LoRA sees.",
         _pictures((path, path.stem) for path in sorted(world.burst.glob("*.jpg"))[:16])),
        ("What the base draws", f"The caption is <q>{html.escape(base.samples[0].request.prompt)}</q>; pocket has never met the word.",
         _pictures(_shown(base, base.samples[:8]))),
        ("What the LoRA draws", "The same caption and the same seeds.", _pictures(_shown(drawn, drawn.samples[:8]))),
        ("Kept", f"{len(drawn.kept)} of {len(drawn.samples)} images.", _pictures(_shown(drawn, drawn.kept[:24]), kind="in")),
        ("Crossed out", f"{len(rejected)} images, each with its reason.", _pictures(_shown(drawn, rejected[:24]), kind="out")),
        ("How far from the photos", "Median distance to the nearest photo; 1 is as far as the photos are from each other.",
         _distances(out)),
        ("Training", "Loss of the LoRA, averaged over 25 steps.", _curve(out / "iriko-fit" / "metrics.csv")),
        ("What it did for the detector", "", _gain(out / "gain.json")),
        ("Time", "", _table([("stage", "seconds"), *((name, f"{value:.1f}") for name, value in seconds.items())])),
    ]  # fmt: skip
    body = "".join(f"<h2>{title}</h2><p>{text}</p>{content}" for title, text, content in sections)
    path = out / "report.html"
    path.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>synthaug demo</title><style>{STYLE}</style>"
        f"<h1>From 23 photos of belly-burst iriko to a detector</h1>{body}</html>\n",
        encoding="utf-8",
    )
    return path


def _shown(manifest: Manifest, samples: Sequence[Sample]) -> Iterable[tuple[Path, str]]:
    """File and caption of samples: the reason, or the seed."""
    for sample in samples:
        reason = sample.verdict.reason if sample.verdict is not None else ""
        yield manifest.folder / sample.file, reason or f"seed {sample.request.seed}"


def _pictures(pictures: Iterable[tuple[Path, str]], *, kind: str = "") -> str:
    figures = [
        f'<figure class="{kind}"><img alt="" src="{_embedded(path)}"><figcaption>{html.escape(text)}</figcaption></figure>'
        for path, text in pictures
    ]
    return f'<div class="row">{"".join(figures)}</div>'


def _embedded(path: Path) -> str:
    """A picture as a data URL."""
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rest)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _distances(out: Path) -> str:
    rows = [("images", "distance ratio", "copies of a photo")]
    for name, file in (("without the LoRA", "base.json"), ("with the LoRA", "images.json")):
        report = json.loads((out / file).read_text(encoding="utf-8"))
        rows.append((name, f"{report['distance_ratio']:.2f}", f"{report['copy_share']:.1%}"))
    return _table(rows)


def _curve(path: Path, *, width: int = 640, height: int = 200, window: int = 5) -> str:
    """Loss against steps as an SVG line."""
    with path.open(encoding="utf-8") as opened:
        rows = [(int(row["step"]), float(row["train/loss"])) for row in csv.DictReader(opened) if row.get("train/loss")]
    groups = [rows[at : at + window] for at in range(0, len(rows), window)]
    points = [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]
    top, last = max(loss for _, loss in points) * 1.05, points[-1][0]
    line = " ".join(f"{40 + step / last * (width - 60):.1f},{height - 25 - loss / top * (height - 40):.1f}" for step, loss in points)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-size="11" fill="#555">'
        f'<polyline fill="none" stroke="#2e6da4" stroke-width="2" points="{line}"/>'
        f'<text x="6" y="20">{top:.2f}</text><text x="6" y="{height - 22}">0</text>'
        f'<text x="40" y="{height - 6}">step 0</text><text x="{width - 70}" y="{height - 6}">step {last}</text></svg>'
    )


def _gain(path: Path) -> str:
    """The table and the sentence of ``synthaug evaluate``."""
    if not path.exists():
        return '<p class="verdict">No image passed the screening, so no detector was trained.</p>'
    gain = json.loads(path.read_text(encoding="utf-8"))
    return f'<pre>{html.escape(gain["table"])}</pre><p class="verdict">{html.escape(gain["sentence"])}</p>'
