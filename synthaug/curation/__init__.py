"""Screening: scores against the photos, verdicts with reasons, a sheet to look at."""

from synthaug.curation.features import Features, describe
from synthaug.curation.likeness import PhotoLikeness
from synthaug.curation.near_copies import copy_distances, thumbnails
from synthaug.curation.report import SetReport, report
from synthaug.curation.run import curate, reference_of, screen
from synthaug.curation.scores import Reference, Scores
from synthaug.curation.selection import Limits, judge
from synthaug.curation.sheet import Entry, contact_sheet, write_sheet

__all__ = [
    "Entry",
    "Features",
    "Limits",
    "PhotoLikeness",
    "Reference",
    "Scores",
    "SetReport",
    "contact_sheet",
    "copy_distances",
    "curate",
    "describe",
    "judge",
    "reference_of",
    "report",
    "screen",
    "thumbnails",
    "write_sheet",
]
