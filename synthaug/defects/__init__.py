"""Defects: where to put them, filling a normal photo with one, the mask of what changed, and banks of them put into normal photos."""

from __future__ import annotations

from synthaug.defects.bank import Bank
from synthaug.defects.change import Change, DefectSource, object_mask
from synthaug.defects.compose import FromBank, Pasting
from synthaug.defects.handmade import HANDMADE, CutPaste, PerlinBlots, PoissonPaste
from synthaug.defects.transform import SyntheticDefect

__all__ = [
    "HANDMADE",
    "Bank",
    "Change",
    "CutPaste",
    "DefectSource",
    "FromBank",
    "Pasting",
    "PerlinBlots",
    "PoissonPaste",
    "SyntheticDefect",
    "object_mask",
]
