from __future__ import annotations

import pytest
import torch

from synthaug.curation import Entry, contact_sheet, write_sheet
from synthaug.curation.sheet import GREEN, MOST, RED
from synthaug.errors import OutputError, SettingError
from synthaug.records import Verdict

KEPT = Verdict(keep=True, scores={"typical": 0.5})
ODD = Verdict(keep=False, reason="odd: far away", scores={"typical": 0.1})


def entry(verdict=KEPT, *, colour=(0, 0, 255), size=(17, 11), name="000001"):
    return Entry(name=name, picture=torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, *size), verdict=verdict)


def pixels(sheet, colour):
    """How many pixels have just this colour."""
    return int((sheet == torch.tensor(colour, dtype=torch.uint8)[:, None, None]).all(0).sum())


def test_kept_pictures_have_a_green_frame_and_rejected_ones_a_red_cross():
    kept, rejected = contact_sheet([entry()]), contact_sheet([entry(ODD)])

    assert pixels(kept, GREEN) > 500 > pixels(kept, RED)
    assert pixels(rejected, RED) > 500 > pixels(rejected, GREEN)


def test_kept_pictures_keep_their_colours_and_rejected_ones_are_dimmed():
    kept, rejected = contact_sheet([entry()]), contact_sheet([entry(ODD)])

    assert pixels(kept, (0, 0, 255)) > 5000
    assert pixels(rejected, (0, 0, 255)) == 0


@pytest.mark.parametrize("count", [1, 2, 7, 61, 400])
def test_every_picture_is_on_the_sheet(count):
    sheet = contact_sheet([entry(colour=(0, 0, 255) if row % 2 else (255, 0, 255)) for row in range(count)])
    one = pixels(contact_sheet([entry(colour=(255, 0, 255))]), (255, 0, 255)) if count <= 60 else None

    shown = pixels(sheet, (0, 0, 255)), pixels(sheet, (255, 0, 255))

    if one is not None:
        assert shown == (count // 2 * one, (count + 1) // 2 * one)
    assert abs(shown[1] * (count // 2) - shown[0] * ((count + 1) // 2)) == 0


def test_more_than_can_be_shown_are_spread_over_all():
    entries = [entry(colour=(0, 0, 255) if row < MOST else (255, 0, 255), size=(4, 4)) for row in range(2 * MOST)]

    sheet = contact_sheet(entries)

    assert pixels(sheet, (0, 0, 255)) == pixels(sheet, (255, 0, 255)) > 0


def test_equal_entries_give_equal_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        write_sheet([entry(), entry(ODD), Entry(name="2", picture=None, verdict=ODD)], tmp_path / name, title="いりこ")

    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    "other",
    [
        entry(name="000002"),
        entry(Verdict(keep=True, scores={"typical": 0.9})),
        entry(Verdict(keep=False, reason="blank: so dull", scores={"typical": 0.1})),
    ],
)
def test_names_scores_and_reasons_are_written(other):
    plain = entry() if other.verdict.keep else entry(ODD)

    assert not torch.equal(contact_sheet([plain]), contact_sheet([other]))


def test_the_counts_are_in_the_title():
    two = [entry(), entry()]

    assert not torch.equal(contact_sheet(two)[:, :28], contact_sheet([entry(), entry(ODD)])[:, :28])
    assert not torch.equal(contact_sheet(two)[:, :28], contact_sheet(two, title="run 7")[:, :28])


def test_long_names_stay_inside_their_field():
    long = Verdict(keep=False, reason=f"copy of photo {'x' * 200}.jpg: 0.1", scores={"typical": 1.0})

    sheet = contact_sheet([entry(long, name="y" * 300), entry(long, name="y" * 300)])

    assert sheet.shape == contact_sheet([entry(ODD), entry(ODD)]).shape
    between = sheet[:, 200:, 8 + 144 + 1 : 8 + 144 + 7]
    assert (between == between[:, :1, :1]).all()


def test_no_pictures_make_no_sheet():
    with pytest.raises(SettingError, match="a contact sheet needs at least one picture, got none"):
        contact_sheet([])


def test_a_place_that_cannot_be_written_is_said_in_a_sentence(tmp_path):
    with pytest.raises(OutputError, match=r"no/sheet\.png could not be written"):
        write_sheet([entry()], tmp_path / "no" / "sheet.png")
