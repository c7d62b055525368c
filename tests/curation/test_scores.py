from __future__ import annotations

import pytest
import torch
from pictures import many_photos, scenes, strangers
from torch.nn import functional as F

from synthaug.curation import Limits, Reference, Scores, report
from synthaug.errors import SettingError


@pytest.fixture(scope="module")
def reference():
    return Reference(many_photos(12))


def test_photos_that_were_held_back_score_higher_than_other_pictures(reference):
    held_back, strange = reference.scores(many_photos(6, first=50)), reference.scores(strangers(4))

    assert held_back.distance.median() < 2 < strange.distance.min()
    assert held_back.typical.median() > 0.5 > strange.typical.max()


def test_scores_are_between_0_and_1_and_depend_on_their_own_picture_alone(reference):
    pictures = torch.cat([many_photos(3, first=50), strangers(2), many_photos(2)])

    together = reference.scores(pictures)
    alone = Scores.joined([reference.scores(pictures[row : row + 1]) for row in range(len(pictures))])

    for name in ("typical", "alive", "new"):
        score = getattr(together, name)
        assert score.shape == (7,)
        assert score.min() >= 0
        assert score.max() <= 1
        assert torch.allclose(score, getattr(alone, name), atol=1e-4)
    assert torch.equal(together.nearest, alone.nearest)
    assert len(together) == len(alone) == 7


def test_a_photo_itself_is_not_new_and_says_which_it_is(reference):
    scores = reference.scores(many_photos(12).flip(3))

    assert scores.new.max() < 0.05
    assert scores.copied.tolist() == list(range(12))


def test_a_magnified_crop_of_a_photo_is_a_copy():
    whole = scenes(6, side=138)  # training magnifies photos up to 1.15 times and cuts a view out of them
    small = F.interpolate(whole.float(), (120, 120), mode="bilinear", antialias=True).to(torch.uint8)

    scores = Reference(small).scores(whole[:, :, 5:125, 12:132])

    assert scores.copy.max() < 0.35
    assert scores.copied.tolist() == list(range(6))


def test_a_blank_picture_is_not_alive(reference):
    assert reference.scores(torch.full((1, 3, 40, 56), 230, dtype=torch.uint8)).alive.item() < 0.05
    assert reference.scores(many_photos(3)).alive.min() > 0.99


def test_fewer_than_three_photos_are_refused():
    with pytest.raises(SettingError, match="at least 3 photos are needed to tell what is usual, got 2; add photos"):
        Reference(many_photos(2))


def test_the_report_tells_copies_from_new_pictures_and_from_other_things(reference):
    copies, new, strange = (report(reference.scores(x), reference) for x in (many_photos(4), many_photos(6, first=50), strangers(4)))

    assert (copies.copy_share, new.copy_share, strange.copy_share) == (1, 0, 0)
    assert copies.distance_ratio < 0.1 < new.distance_ratio < strange.distance_ratio
    assert copies.photos_met == copies.images == 4
    assert strange.photos == 12
    assert report(reference.scores(many_photos(2).repeat(3, 1, 1, 1)), reference).photos_met == 2


def test_the_limit_decides_what_the_report_calls_a_copy(reference):
    scores = reference.scores(many_photos(6, first=50))

    assert report(scores, reference, Limits(copy=0.999, nearest=1.9)).copy_share > report(scores, reference).copy_share


def test_a_report_can_be_printed(reference):
    assert str(report(reference.scores(many_photos(4)), reference)).endswith(
        "near-copies 100.0%, 4 of 12 photos are the nearest of some image"
    )
