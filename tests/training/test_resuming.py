"""What a run that is resumed keeps, and what it refuses to change."""

from pathlib import Path

import pytest
from fits import options
from photo_sets import masked

from synthaug.errors import SettingError
from synthaug.training.command import FitCLI
from synthaug.training.run import fit

BUCKETS = ("--data.buckets.enabled", "true", "--data.buckets.step", "8", "--data.buckets.smallest", "16")


def rest_of(argv: list[str]) -> list[str]:
    """The options without the number of steps."""
    at = argv.index("--trainer.max_steps")
    return [*argv[:at], *argv[at + 2 :]]


@pytest.mark.parametrize(("more", "expected"), [((), 2), (("--trainer.max_steps", "9"), 9)], ids=["left out", "given"])
def test_a_resumed_run_is_as_long_as_it_was_unless_another_length_is_given(more, expected, photo_folder, tiny_base, tmp_path):
    argv = options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", "--save_every", "2", steps=2)
    fit(argv)

    cli = FitCLI([*rest_of(argv), "--resume", "true", *more])

    assert cli.trainer.max_steps == expected


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ((), ("--model.optimizer", "torch.optim.SGD"), r'model.optimizer was "synthaug.training.rate.adamw", now "torch.optim.SGD"'),
        (("--model.optimizer", "torch.optim.SGD"), (), r'model.optimizer was "torch.optim.SGD", now "synthaug.training.rate.adamw"'),
        ((), BUCKETS, "data.buckets was null, now enabled true, "),
    ],
    ids=["an optimiser", "no optimiser", "buckets"],
)
def test_a_setting_that_only_one_of_two_runs_has_is_another_setting(first, second, sentence, photo_folder, tiny_base, tmp_path):
    argv = options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", "--save_every", "2", steps=2)
    fit([*argv, *first])

    with pytest.raises(SettingError, match=rf"resumed with its own settings, {sentence}"):
        FitCLI([*argv, "--resume", "true", *second])


def test_a_run_with_nested_settings_goes_on_with_the_same(photo_folder, tiny_base, tmp_path):
    argv = options(tiny_base, photo_folder(5), tmp_path / "a.safetensors", "--save_every", "2", "--model.optimizer", "torch.optim.SGD",
                   *BUCKETS, "--model.shape.parts", '{"attention": {"rank": 3}}', steps=2)  # fmt: skip
    fit(argv)

    assert FitCLI([*argv, "--resume", "true"]).resumed_at == 2


def recaption(folder: Path) -> None:
    (folder / "photo_01.txt").write_text("a photo of iriko, burst", encoding="utf-8")


def unmask(folder: Path) -> None:
    (folder / "mask" / "photo_01.png").unlink()


def fewer_regular(folder: Path) -> None:
    (folder.parent / "regular" / "photo_01.jpg").unlink()


def recaption_regular(folder: Path) -> None:
    (folder.parent / "regular" / "photo_01.txt").write_text("two fish", encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (recaption, "its own captions, 1 of 8 are gone or changed and 1 are new"),
        (unmask, "its own masks, 1 of 5 are gone or changed and 0 are new"),
        (fewer_regular, "its own regularisation pictures, 1 of 3 are gone or changed and 0 are new"),
        (recaption_regular, "its own captions, 1 of 8 are gone or changed and 1 are new"),
    ],
)
def test_a_run_is_not_resumed_with_other_captions_masks_or_regularisation_pictures(change, sentence, photo_folder, tiny_base, tmp_path):
    folder = masked(photo_folder(5), [(0, 0, 32, 32)] * 5)
    regular = photo_folder(3, name="regular", seed=50)
    argv = options(folder=folder, base=tiny_base, out=tmp_path / "a.safetensors", steps=2)
    argv += ["--save_every", "2", "--data.outside_mask", "0.5", "--data.regular", str(regular), "--data.regular_caption", "a fish"]
    fit(argv)
    change(folder)

    with pytest.raises(SettingError, match=rf"a run is resumed with {sentence}; put them back, or leave --resume out"):
        fit([*argv, "--resume", "true"])


def test_a_run_is_not_resumed_with_photos_shown_more_often(photo_folder, tiny_base, tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    photo_folder(5).rename(place / "1_iriko")
    argv = options(tiny_base, place, tmp_path / "a.safetensors", "--save_every", "2", steps=2)
    fit(argv)
    (place / "1_iriko").rename(place / "3_iriko")

    with pytest.raises(SettingError, match="its own repeats, 5 of 5 are gone or changed and 5 are new"):
        fit([*argv, "--resume", "true"])


def test_a_run_is_not_resumed_with_photos_whose_names_give_them_another_order(photo_folder, tiny_base, tmp_path):
    folder = photo_folder(5)
    argv = options(tiny_base, folder, tmp_path / "a.safetensors", "--save_every", "2", "--data.group", "0", steps=2)
    fit(argv)
    (folder / "photo_00.jpg").rename(folder / "photo_99.jpg")

    with pytest.raises(SettingError, match="its own order of photos, which their names give, 5 of 5 stand elsewhere; put them back"):
        fit([*argv, "--resume", "true"])


def test_masks_that_do_not_count_may_change(photo_folder, tiny_base, tmp_path):
    folder = masked(photo_folder(5), [(0, 0, 32, 32)] * 5)
    argv = options(tiny_base, folder, tmp_path / "a.safetensors", "--save_every", "2", steps=2)
    fit(argv)
    unmask(folder)

    fit([*argv, "--resume", "true", "--trainer.max_steps", "3"])

    assert (tmp_path / "a.safetensors").is_file()
