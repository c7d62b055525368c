"""Defects: where to put them, filling a normal photo with one, and the mask of what changed."""

from __future__ import annotations

__all__: list[str] = []
