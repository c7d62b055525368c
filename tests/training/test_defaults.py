import pytest

from synthaug.training.defaults import Card, choose_defaults, count_photos

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


def test_a_large_card_needs_no_checkpointing_and_a_small_one_does():
    assert not chosen(RTX_3090).gradient_checkpointing
    assert chosen(GTX_1080).gradient_checkpointing


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


def test_photos_are_counted_without_masks_and_in_groups(tmp_path):
    for name in ("a_1.jpg", "a_2.JPG", "b_1.png", "mask/a_1.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert count_photos(tmp_path, (".jpg", ".png"), "-1") == (3, 2)
