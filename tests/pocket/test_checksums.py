from __future__ import annotations

import shutil

import pytest

from synthaug.errors import UnusableFileError
from synthaug.models.load import load_base
from synthaug.pocket import WEIGHTS
from synthaug.pocket.checksums import CARD, check_weights, hashes_in, write_hashes

WEIGHT_FILES = sorted(path.relative_to(WEIGHTS).as_posix() for path in WEIGHTS.rglob("*.safetensors"))


@pytest.fixture
def weights(tmp_path):
    """Weights that may be damaged."""
    return shutil.copytree(WEIGHTS, tmp_path / "weights")


def flip_a_byte(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_the_card_states_the_hash_of_every_weight_file():
    assert len(WEIGHT_FILES) == 4
    assert set(WEIGHT_FILES) <= set(hashes_in())
    check_weights(WEIGHTS, {"unet", "vae", "text_encoder", "tokenizer"})


@pytest.mark.parametrize("name", [*WEIGHT_FILES, "tokenizer/tokenizer.json"])
def test_one_flipped_bit_is_named_with_the_way_out(name, weights):
    flip_a_byte(weights / name)

    with pytest.raises(UnusableFileError, match=rf"{name} is damaged; reinstall synthaug"):
        check_weights(weights, {name.split("/")[0]})


def test_a_missing_file_is_named(weights):
    name = next(name for name in WEIGHT_FILES if name.startswith("unet/"))
    (weights / name).unlink()

    with pytest.raises(UnusableFileError, match=rf"{name} is missing; reinstall synthaug"):
        check_weights(weights, {"unet"})


def test_loading_pocket_checks_the_parts_that_are_loaded(weights, monkeypatch):
    flip_a_byte(weights / "unet" / "diffusion_pytorch_model.safetensors")
    monkeypatch.setattr("synthaug.models.load.WEIGHTS", weights)

    assert load_base("pocket", parts=("vae",)).vae is not None
    with pytest.raises(UnusableFileError, match=r"unet/diffusion_pytorch_model.safetensors is damaged"):
        load_base("pocket", parts=("unet",))


def test_the_card_follows_new_weights(weights, tmp_path):
    card = tmp_path / "CARD.md"
    shutil.copy(CARD, card)
    flip_a_byte(weights / WEIGHT_FILES[0])

    write_hashes(weights, card)

    check_weights(weights, {"unet", "vae", "text_encoder"}, card)
    assert card.read_text().replace(hashes_in(card)[WEIGHT_FILES[0]], hashes_in()[WEIGHT_FILES[0]]) == CARD.read_text()
