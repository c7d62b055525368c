"""Screening: scores against the photos, verdicts with reasons, a sheet to look at."""

from synthaug.curation.features import Features, describe
from synthaug.curation.scores import Reference
from synthaug.curation.selection import Limits, judge

__all__ = ["Features", "Limits", "Reference", "describe", "judge"]
