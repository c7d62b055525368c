from __future__ import annotations

import signal

import pytest
import torch
from worlds import pictures

from synthaug.errors import NumericsError, SettingError
from synthaug.evaluation.batches import Batches, augmented
from synthaug.evaluation.detector import Detector, train_detector
from synthaug.evaluation.metrics import auroc


def batches(labels, synthetic, *, seed=0, steps=6, batch_size=8):
    """Batches of pictures whose every pixel is the picture's place."""
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 20, 16)
    return Batches(images, torch.tensor(labels), torch.tensor(synthetic), steps=steps, batch_size=batch_size, seed=seed)


def test_half_of_every_batch_is_defects_however_few_there_are():
    found = batches([0] * 9 + [1], [False] * 10)

    for index in range(len(found)):
        assert found[index][1].tolist() == [0] * 4 + [1] * 4
        assert found.places[index, :4].max() < 9
        assert found.places[index, 4:].tolist() == [9] * 4


def test_real_and_synthetic_defects_share_the_places_of_defects_evenly():
    found = batches([0, 0, 1] + [1] * 30, [False] * 3 + [True] * 30)

    assert (found.places[:, 4:] >= 3).sum(1).tolist() == [2] * 6


def test_synthetic_defects_leave_the_draws_of_good_pictures_as_they_were():
    without = batches([0, 0, 0, 1], [False] * 4)
    with_them = batches([0, 0, 0, 1, 1], [False] * 4 + [True])

    assert torch.equal(without.places[:, :4], with_them.places[:, :4])


def test_every_picture_has_its_turn_before_one_comes_again():
    found = batches([0] * 8 + [1], [False] * 9, steps=4)

    assert sorted(found.places[:2, :4].flatten().tolist()) == list(range(8))


def test_pictures_without_defects_are_refused():
    with pytest.raises(SettingError, match="needs good and defect pictures, there is none with label 1"):
        batches([0, 0], [False] * 2)


@pytest.mark.parametrize(("steps", "batch_size"), [(0, 8), (3, 6), (3, 0)])
def test_steps_and_batch_sizes_that_cannot_be_used_are_refused(steps, batch_size):
    with pytest.raises(SettingError, match=f"1 or more steps and a batch size that 4 divides, got {steps} and {batch_size}"):
        batches([0, 1], [False] * 2, steps=steps, batch_size=batch_size)


def test_augmentation_is_a_function_of_the_generator_and_moves_whole_pixels():
    images = torch.rand(16, 3, 40, 26, generator=torch.Generator().manual_seed(0)) - 0.5
    images[..., 20, 13], images[..., 21, 13] = -1, 1  # the extremes stay in the picture

    first, again = (augmented(images, torch.Generator().manual_seed(4)) for _ in range(2))

    assert torch.equal(first, again)
    assert first.shape == images.shape
    for before, after in zip(images, first, strict=True):
        # light is one line a x + b for all pixels: undone by it, every pixel is one of the picture's
        scale = (after.max() - after.min()) / (before.max() - before.min())
        undone = (after - after.min()) / scale + before.min()
        assert torch.isin((undone * 1000).round(), torch.cat([(before * 1000).round() + d for d in (-1, 0, 1)])).all()


def test_augmentation_mirrors_both_ways_and_shifts():
    ramp = torch.linspace(-1, 1, 32).expand(64, 3, 32, 32)

    changed = augmented(ramp, torch.Generator().manual_seed(0))

    falls = changed[:, 0, 16, 10] > changed[:, 0, 16, 20]
    assert 16 < int(falls.sum()) < 48
    assert len(changed[:, 0, 16, 16].unique()) > 20


def test_a_detector_learns_to_tell_a_spot_from_none():
    train = torch.cat([pictures(24, seed=0), pictures(24, seed=1, spot=True)])
    test = torch.cat([pictures(20, seed=2), pictures(20, seed=3, spot=True)])

    detector = train_detector(train, torch.arange(2).repeat_interleave(24), seed=0, steps=40, side=24)
    scores = detector.scores(test)

    assert scores.shape == (40,)
    assert 0 <= float(scores.min()) <= float(scores.max()) <= 1
    assert auroc(scores, torch.arange(2).repeat_interleave(20)) > 0.95


def test_equal_arguments_give_an_equal_detector_and_another_seed_another():
    images, labels = torch.cat([pictures(6, seed=0), pictures(6, seed=1, spot=True)]), torch.arange(2).repeat_interleave(6)

    def scores(seed: int, state: int):
        torch.manual_seed(state)
        return train_detector(images, labels, seed=seed, steps=4, side=16, batch_size=8).scores(images)

    one, same, other = scores(3, state=98), scores(3, state=99), scores(4, state=99)

    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_training_leaves_the_global_random_state_alone():
    images, labels = pictures(4, seed=0), torch.tensor([0, 1, 0, 1])
    torch.manual_seed(5)
    before = torch.get_rng_state()

    train_detector(images, labels, seed=0, steps=1, side=16, batch_size=4)

    assert torch.equal(torch.get_rng_state(), before)


def test_both_arms_start_from_the_same_weights(monkeypatch):
    starts = []
    monkeypatch.setattr(
        Detector, "on_train_start", lambda self: starts.append(torch.cat([w.detach().flatten() for w in self.parameters()]))
    )
    images, labels = pictures(6, seed=0), torch.tensor([0, 1, 0, 1, 1, 1])

    train_detector(images[:4], labels[:4], seed=7, steps=1, side=16)
    torch.manual_seed(99)
    train_detector(images, labels, seed=7, steps=1, side=16, synthetic=torch.arange(6) > 3)

    assert torch.equal(starts[0], starts[1])


def test_training_prints_nothing(capfd):
    train_detector(pictures(4, seed=0), torch.tensor([0, 1, 0, 1]), seed=0, steps=1, side=16)

    assert capfd.readouterr() == ("", "")


def test_scores_of_a_picture_do_not_depend_on_its_company():
    detector, images = Detector(side=24), pictures(131, seed=0)

    together = detector.scores(images)

    assert torch.allclose(together[129:], detector.scores(images[129:]), atol=1e-6)


@pytest.fixture
def ctrl_c_works():
    """A shell's background job starts with Ctrl-C ignored; here it is as at a terminal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_comes_out_of_training_as_ctrl_c_and_works_again_afterwards(monkeypatch, ctrl_c_works):
    def interrupted(self, batch):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Detector, "training_step", interrupted)

    with pytest.raises(KeyboardInterrupt):
        train_detector(pictures(4, seed=0), torch.tensor([0, 1, 0, 1]), seed=0, steps=1, side=16)

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(NumericsError, match="the detector's loss is nan at step 0"):
        Detector(side=16).training_step((torch.full((2, 3, 16, 16), float("nan")), torch.tensor([0.0, 1.0])))


def test_pictures_too_small_to_show_a_defect_are_refused():
    with pytest.raises(SettingError, match="side must be at least 16 pixels, got 8"):
        train_detector(pictures(4, seed=0), torch.tensor([0, 1, 0, 1]), seed=0, steps=1, side=8)
