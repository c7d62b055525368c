import pytest
from still_life import still_life

from synthaug.photos import prepare
from synthaug.pixels import save_png
from synthaug.training.defaults import Card, choose_defaults, count_groups, count_photos
from synthaug.training.opening import held_out

GTX_1080 = Card(name="NVIDIA GeForce GTX 1080", memory=8192, capability=(6, 1))
GTX_1660 = Card(name="NVIDIA GeForce GTX 1660", memory=6144, capability=(7, 5))
RTX_2070 = Card(name="NVIDIA GeForce RTX 2070", memory=8192, capability=(7, 5))
RTX_3060 = Card(name="NVIDIA GeForce RTX 3060", memory=8192, capability=(8, 6))
RTX_3090 = Card(name="NVIDIA GeForce RTX 3090", memory=24576, capability=(8, 6))
NO_CARD = Card(name="CPU", memory=16000)


def chosen(card, family="sd1", side=512, photos=23):
    return choose_defaults(card, family=family, native=side, size=(side, side), photos=photos)


@pytest.mark.parametrize(
    ("card", "precision"), [(GTX_1080, "32-true"), (GTX_1660, "32-true"), (RTX_2070, "16-mixed"), (RTX_3060, "bf16-mixed")]
)
def test_precision_is_what_the_card_computes_well_and_without_nan(card, precision):
    assert chosen(card).precision == precision


def test_a_large_card_needs_little_checkpointing_and_a_small_one_much():
    assert chosen(RTX_3090).gradient_checkpointing is False
    assert chosen(GTX_1080).gradient_checkpointing is True


@pytest.mark.parametrize("card", [GTX_1080, GTX_1660, RTX_2070, RTX_3060, RTX_3090])
def test_sd15_fits_every_card_from_six_gigabytes(card):
    choice = chosen(card)

    assert choice.fits
    assert choice.memory <= 0.9 * card.memory


def test_sdxl_is_squeezed_into_eight_gigabytes_and_stored_in_halves_on_pascal():
    choice = chosen(GTX_1080, "sdxl", 1024)

    assert (choice.batch_size, choice.gradient_checkpointing, choice.precision, choice.fits) == (1, True, "16-mixed", True)


def test_what_fits_nowhere_is_chosen_as_small_as_can_be_and_said():
    choice = chosen(GTX_1660, "sdxl", 1024)

    assert not choice.fits
    assert (choice.batch_size, choice.gradient_checkpointing) == (1, True)


def test_every_photo_is_shown_about_as_often_whatever_the_batch():
    shown = [choice.steps * choice.batch_size / 23 for choice in map(chosen, (GTX_1080, GTX_1660, RTX_3090))]

    assert all(70 <= times <= 90 for times in shown)


def test_steps_have_bounds_however_few_or_many_photos_there_are():
    assert chosen(RTX_3090, photos=5).steps == 400
    assert chosen(RTX_3090, photos=5000).steps == 4000


def test_a_small_base_gets_what_the_recipe_for_pocket_has():
    choice = chosen(NO_CARD, side=128)

    assert (choice.steps, choice.batch_size, choice.learning_rate, choice.gradient_checkpointing) == (400, 8, 1e-3, False)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_photos_are_counted_as_they_will_be_learned_and_in_groups(tmp_path):
    touch(tmp_path, "a_1.jpg", "a_2.JPG", "b_1.png", "c_1.heic", "mask/a_1.png", "matte/a_1.png", "report/sheet.png", "notes.txt")

    assert count_photos(tmp_path) == 3
    assert count_groups(tmp_path, "-1") == 2


@pytest.mark.parametrize("inside", ["", "img/"])
def test_regularisation_images_do_not_count_as_photos(tmp_path, inside):
    touch(tmp_path, f"{inside}10_cod fish/a.png", f"{inside}1_eel fish/a.png", "reg/1_fish/x.png", "reg/1_fish/y.png")

    assert count_photos(tmp_path) == 2
    assert count_groups(tmp_path, "") == 2


def test_photos_beside_a_file_are_counted_wherever_they_lie(tmp_path):
    touch(tmp_path, "set.toml", "cod/a.png", "cod/mask/a.png", "eel/deep/a.png")

    assert count_photos(tmp_path / "set.toml") == 2


def test_few_photos_are_not_taken_for_many_by_their_variants(tmp_path):
    (tmp_path / "still").mkdir()
    for index in range(5):
        save_png(still_life((90, 120), seed=index, shift=(4, 7)).picture, tmp_path / "still" / f"{index}.png")
    prepare(photos=tmp_path / "still", out=tmp_path / "out", size=(90, 120), caption="a photo", background="blue,red,own", variants=3)

    options, _ = held_out(tmp_path / "out", group="", measurements=5, views_differ=True)

    assert count_groups(tmp_path / "out", "") == 5
    assert options == {"data.held_out": 0, "data.held_out_views": 1}


@pytest.mark.parametrize(("split", "kept"), [("validation_split = 0.4", 2), ("validation_split = 0.0", 0)])
def test_what_a_dataset_file_keeps_back_is_what_is_kept_back(split, kept, photo_folder, tmp_path):
    folder = photo_folder(5)
    path = tmp_path / "set.toml"
    path.write_text(f"[[datasets]]\n{split}\n[[datasets.subsets]]\nimage_dir = '{folder.name}'\n", encoding="utf-8")

    values, why = held_out(path, group="", measurements=1, views_differ=True)

    assert values == {"data.held_out": kept, "data.held_out_views": 0}
    assert "the file of the photos says" in why
