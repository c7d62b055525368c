from __future__ import annotations

import pytest
import torch
from pictures import many_photos, strangers

from synthaug.curation import Limits, Reference, judge
from synthaug.curation.selection import count_reasons
from synthaug.errors import SettingError
from synthaug.records import Verdict

ALL = Limits(share=1)


@pytest.fixture(scope="module")
def reference():
    return Reference(many_photos(12), names=[f"IMG_{index}.jpg" for index in range(12)])


def verdicts(reference, pictures, limits=ALL, names=()):
    return judge(reference.scores(pictures), reference, limits, names=names)


def test_new_photos_are_kept_without_a_word(reference):
    kept = [verdict for verdict in verdicts(reference, many_photos(6, first=50)) if verdict.keep]

    assert len(kept) >= 5
    assert all(verdict.reason == "" and set(verdict.scores) == {"typical", "alive", "new"} for verdict in kept)


def test_a_copy_names_its_photo_and_both_numbers(reference):
    [verdict] = verdicts(reference, many_photos(12)[7:8].flip(3))

    assert not verdict.keep
    assert verdict.reason.startswith("copy of photo IMG_7.jpg: 0.0")
    assert "as a picture" in verdict.reason
    assert "by features" in verdict.reason


def test_the_nearest_photo_by_features_makes_a_copy_too(reference):
    scores = reference.scores(many_photos(12)[4:5])
    scores.copy.fill_(0.9)

    assert judge(scores, reference, ALL)[0].reason.startswith("copy of photo IMG_4.jpg: 0.90 as a picture, 0.00 by features")
    assert judge(scores, reference, Limits(share=1, nearest=0))[0].keep


def test_odd_and_blank_pictures_say_so(reference):
    blank = torch.full((1, 3, 40, 56), 230, dtype=torch.uint8)

    odd, plain = verdicts(reference, torch.cat([strangers(1), blank]))

    assert odd.reason.startswith("odd: ")
    assert odd.reason.endswith("times as far from the nearest photo as photos are from each other")
    assert plain.reason.startswith("blank: 0% of the contrast")


def test_a_repeat_of_an_earlier_sample_is_rejected_and_names_it(reference):
    [new] = list(many_photos(1, first=50))
    pictures = torch.stack([new, many_photos(1, first=51)[0], new.flip(2)])

    first, other, repeat = verdicts(reference, pictures, names=["000000-aa", "000001-bb", "000002-cc"])

    assert first.keep
    assert other.keep
    assert repeat.reason.startswith("repeat of sample 000000-aa: 0.0")


def test_a_rejected_sample_is_not_what_others_repeat(reference):
    both = verdicts(reference, strangers(1).expand(2, -1, -1, -1))

    assert [verdict.reason.split(":")[0] for verdict in both] == ["odd", "odd"]


def test_of_what_passes_the_most_typical_share_is_kept(reference):
    pictures = torch.cat([many_photos(8, first=50), strangers(2)])
    passing = [row for row, verdict in enumerate(verdicts(reference, pictures)) if verdict.keep]
    distance = reference.scores(pictures).distance

    best = verdicts(reference, pictures, Limits(share=0.3))

    assert [row for row, verdict in enumerate(best) if verdict.keep] == sorted(sorted(passing, key=lambda row: distance[row])[:3])
    assert {verdict.reason.split(":")[0] for verdict in best if not verdict.keep} == {"less typical than the best 30%", "odd"}


def test_a_picture_that_is_not_finite_is_rejected(reference):
    scores = reference.scores(many_photos(1, first=50))
    scores.distance.fill_(torch.nan)

    assert judge(scores, reference, ALL)[0].reason == "not a picture: its features are not finite"


def test_the_order_of_other_pictures_does_not_matter(reference):
    pictures = torch.cat([many_photos(4, first=50), strangers(2), many_photos(2)])

    there, back = verdicts(reference, pictures, Limits(share=0.25)), verdicts(reference, pictures.flip(0), Limits(share=0.25))

    assert [verdict.keep for verdict in there] == [verdict.keep for verdict in back[::-1]]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"share": 0}, r"the share to keep must be in \(0, 1\], got 0; 0.7 keeps seven in ten"),
        ({"share": 70}, r"the share to keep must be in \(0, 1\], got 70"),
        ({"copy": 1.2}, r"the copy limit must be in \[0, 1\), got 1.2"),
        ({"copy": -0.1}, r"the copy limit must be in \[0, 1\), got -0.1"),
        ({"farthest": 0.2}, "the odd limit must be above the nearest distance allowed, 0.33, got 0.2"),
    ],
)
def test_a_limit_that_cannot_be_used_is_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        Limits(**settings)


def test_reasons_are_counted_by_kind_the_commonest_first():
    given = [
        Verdict(keep=True),
        Verdict(keep=False, reason="copy of photo a.jpg: 0.1"),
        Verdict(keep=False, reason="odd: 2"),
        Verdict(keep=False, reason="odd: 3"),
        Verdict(keep=False, reason="less typical than the best 70%: 1"),
        Verdict(keep=False, reason="written by hand"),
    ]

    counts = count_reasons(given)

    assert counts == {"odd": 2, "copy of a photo": 1, "less typical than the rest": 1, "other": 1}
    assert next(iter(counts)) == "odd"
